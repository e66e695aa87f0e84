//! Measurements that each have a server of their own: one peer after the other, in so many rounds.

use anyhow::{Context as _, Result};

use crate::{
    Bench,
    peer::Peer,
    report::{Measure, Report},
};

/// Measures each of `peers` once in every round.
///
/// # Errors
/// When a measurement fails; the text names the peer.
pub(crate) fn in_rounds<const N: usize>(
    bench: &Bench,
    (name, about): (&str, String),
    measures: Vec<Measure>,
    peers: &[&Peer],
    mut measure: impl FnMut(&Peer) -> Result<[f64; N]>,
) -> Result<Vec<Report>> {
    let names: Vec<String> = peers.iter().map(|peer| peer.name.clone()).collect();
    let mut report = Report::new(name.to_owned(), about, measures, &names);
    let rounds = bench.options.long_rounds();
    for round in 1..=rounds {
        for (index, peer) in peers.iter().enumerate() {
            bench.progress.step(format!("{name}: round {round} of {rounds}, {peer}"));
            report.push(index, &measure(peer).with_context(|| peer.name.clone())?);
        }
    }
    Ok(vec![report])
}
