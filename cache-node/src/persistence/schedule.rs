//! When snapshots are taken without being asked for.

use std::{fmt, time::Duration};

use time::OffsetDateTime;

/// `save SECONDS CHANGES`: after so long, if there were so many changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SaveRule {
    pub(crate) seconds: u64,
    pub(crate) changes: u64,
}

impl SaveRule {
    /// Reads pairs of numbers, as in `3600 1 300 100`.
    pub(crate) fn parse_all(words: &[&str]) -> Option<Vec<SaveRule>> {
        let pairs = words.chunks(2).map(|pair| {
            let [seconds, changes] = pair else { return None };
            let (seconds, changes) = (seconds.parse().ok()?, changes.parse().ok()?);
            (seconds > 0).then_some(SaveRule { seconds, changes })
        });
        pairs.collect()
    }
}

/// `snapshot-schedule`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Schedule {
    #[default]
    Never,
    Every(Duration),
    /// Each day, so many minutes after midnight in UTC.
    Daily(u32),
}

const DAY_SECONDS: u64 = 86_400;

impl Schedule {
    /// Reads `""`, `30m`, `6h` or `04:30`.
    pub(crate) fn parse(text: &str) -> Option<Schedule> {
        if text.is_empty() {
            return Some(Schedule::Never);
        }
        if let Some((hours, minutes)) = text.split_once(':') {
            let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
            return (hours < 24 && minutes < 60).then_some(Schedule::Daily(hours * 60 + minutes));
        }
        let units = [('s', 1), ('m', 60), ('h', 3600), ('d', DAY_SECONDS)];
        let (unit, seconds) = units.into_iter().find(|(unit, _)| text.ends_with(*unit))?;
        let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
        let seconds = count.checked_mul(seconds).filter(|seconds| (1..=366 * DAY_SECONDS).contains(seconds))?;
        Some(Schedule::Every(Duration::from_secs(seconds)))
    }

    /// Whether a snapshot is due, the last one having been begun (or the node started) at `last`. Unix seconds.
    pub(crate) fn is_due(self, last: u64, now: u64) -> bool {
        match self {
            Schedule::Never => false,
            Schedule::Every(interval) => now >= last + interval.as_secs(),
            Schedule::Daily(minute) => {
                let today = now / DAY_SECONDS * DAY_SECONDS + u64::from(minute) * 60;
                let latest = if today <= now { today } else { today.saturating_sub(DAY_SECONDS) };
                last < latest
            }
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Never => Ok(()),
            Schedule::Every(interval) => write!(f, "{}s", interval.as_secs()),
            Schedule::Daily(minute) => write!(f, "{:02}:{:02}", minute / 60, minute % 60),
        }
    }
}

/// A time as it stands in a file's name: `20261125T043000`, UTC.
pub(super) fn stamp(unix_seconds: u64) -> String {
    let time = i64::try_from(unix_seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (hour, minute, second) = time.to_hms();
    format!("{:04}{:02}{:02}T{hour:02}{minute:02}{second:02}", time.year(), u8::from(time.month()), time.day())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{SaveRule, Schedule, stamp};

    #[test]
    fn rules_are_pairs_of_numbers() {
        let rules = SaveRule::parse_all(&["3600", "1", "60", "10000"]);
        assert_eq!(rules, Some(vec![SaveRule { seconds: 3600, changes: 1 }, SaveRule { seconds: 60, changes: 10_000 }]));
        for wrong in [&["3600"][..], &["0", "1"], &["a", "1"], &["1", "-1"]] {
            assert_eq!(SaveRule::parse_all(wrong), None);
        }
    }

    #[test]
    fn a_schedule_is_an_interval_or_a_time_of_day() {
        assert_eq!(Schedule::parse("6h"), Some(Schedule::Every(Duration::from_secs(21_600))));
        for (text, printed) in [("", ""), ("04:05", "04:05"), ("90m", "5400s")] {
            assert_eq!(Schedule::parse(text).map(|schedule| schedule.to_string()).as_deref(), Some(printed));
        }
        for wrong in ["24:00", "1:60", "5", "h", "-1h", "99999d"] {
            assert_eq!(Schedule::parse(wrong), None, "{wrong}");
        }
        let daily = Schedule::Daily(60);
        let midnight = 20_000 * 86_400;
        assert!(!daily.is_due(midnight - 1, midnight + 3_599), "yesterday's was taken");
        assert!(daily.is_due(midnight - 1, midnight + 3_600));
        assert!(!daily.is_due(midnight + 3_600, midnight + 7_200));
    }

    #[test]
    fn a_stamp_is_the_date_and_time() {
        assert_eq!(stamp(0), "19700101T000000");
        assert_eq!(stamp(951_782_399), "20000228T235959");
        assert_eq!(stamp(951_782_400), "20000229T000000");
        assert_eq!(stamp(1_795_600_236), "20261125T095036");
    }
}
