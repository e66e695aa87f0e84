//! Medians, and the ratio of two servers that were measured in turns.

/// The middle of several rounds and their extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// Which way round a ratio is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Ours over the peer's: 0.5 for half of a latency.
    OursOverPeers,
    /// The peer's over ours: costs per operation turned into operations per cost.
    PeersOverOurs,
}

/// Nanoseconds as milliseconds.
pub(crate) fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

/// Bytes as MiB.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// `None` without values.
pub(crate) fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let (&min, &max) = (sorted.first()?, sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
    Some(Spread { median, min, max })
}

/// The ratio within each round, so that what slows the machine for a while slows both sides of it.
pub(crate) fn ratio(ours: &[f64], peers: &[f64], direction: Direction) -> Option<Spread> {
    let ratios: Vec<f64> = ours
        .iter()
        .zip(peers)
        .map(|(&ours, &peers)| match direction {
            Direction::OursOverPeers => ours / peers,
            Direction::PeersOverOurs => peers / ours,
        })
        .collect();
    spread(&ratios)
}

#[cfg(test)]
mod tests {
    use super::{Direction, Spread, ratio, spread};

    #[test]
    fn the_median_is_the_middle_value_or_the_mean_of_two() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0]), Some(Spread { median: 3.0, min: 3.0, max: 3.0 }));
        assert_eq!(spread(&[9.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 9.0 }));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 9.0]), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine is slow in the second round: the ratio of the medians would be 1.5, that of the rounds is 2 throughout.
        let (ours, peers) = ([5.0, 50.0, 6.0], [10.0, 100.0, 12.0]);
        let halved = Some(Spread { median: 2.0, min: 2.0, max: 2.0 });
        assert_eq!(ratio(&ours, &peers, Direction::PeersOverOurs), halved);
        assert_eq!(ratio(&ours, &peers, Direction::OursOverPeers).map(|spread| spread.median), Some(0.5));
    }

    #[test]
    fn a_division_by_zero_is_left_out() {
        assert_eq!(ratio(&[0.0, 2.0], &[1.0, 4.0], Direction::PeersOverOurs).map(|spread| spread.max), Some(2.0));
        assert_eq!(ratio(&[1.0], &[0.0], Direction::OursOverPeers), None);
    }
}
