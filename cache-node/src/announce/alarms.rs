//! What is worth an event in figures that are looked at again and again. Knows no clock: time is handed in.

use crate::{keyspace::Now, node::EventKind};

/// How far memory must come below the threshold to be normal again, in percent of `maxmemory`: it would be told each second otherwise.
const MEMORY_SLACK_PERCENT: u64 = 5;

/// How long nothing more may be counted until what was counted is over.
const QUIET_MS: u64 = 60_000;

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) used_bytes: usize,
    /// 0: no limit.
    pub(super) maxmemory: usize,
    /// 0: no threshold.
    pub(super) memory_percent: u8,
    /// Keys that went for `maxmemory`, since the start.
    pub(super) evicted: u64,
    /// Requests that were refused for `maxmemory`, since the start.
    pub(super) out_of_memory: u64,
    /// Connections that were refused for `maxclients`, since the start.
    pub(super) turned_away: u64,
    pub(super) maxclients: usize,
    /// Times that bringing the log to disk took more than two seconds, since the start.
    pub(super) slow_syncs: u64,
    pub(super) writes: Writes,
}

/// What becomes of writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    Taken,
    /// In the words that clients are told.
    Refused(String),
    /// On a replica, while loading and at the end: nobody expects that they are taken.
    Elsewhere,
}

/// What was told of what was seen.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    is_memory_high: bool,
    are_writes_refused: bool,
    evictions: Spell,
    out_of_memory: Spell,
    turned_away: Spell,
    slow_syncs: Spell,
}

type Told = (EventKind, String);

impl Alarms {
    /// The events that follow from what is seen now.
    pub(super) fn look(&mut self, figures: &Figures, now: Now) -> Vec<Told> {
        let mut told = Vec::new();
        told.extend(self.look_at_memory(figures));
        told.extend(self.look_at_evictions(figures, now));
        if let Some(Turn::Began) = self.out_of_memory.look(figures.out_of_memory, now) {
            let text =
                format!("writes are refused: maxmemory of {} bytes is used up and nothing may be evicted", figures.maxmemory);
            told.push((EventKind::OutOfMemory, text));
        }
        if let Some(Turn::Began) = self.turned_away.look(figures.turned_away, now) {
            let text = format!("connections are refused: there are maxclients, which is {}", figures.maxclients);
            told.push((EventKind::MaxClientsReached, text));
        }
        if let Some(Turn::Began) = self.slow_syncs.look(figures.slow_syncs, now) {
            told.push((
                EventKind::LogSyncSlow,
                "the disk took more than two seconds for the log, and writes waited for it".to_owned(),
            ));
        }
        told.extend(self.look_at_writes(&figures.writes));
        told
    }

    fn look_at_memory(&mut self, figures: &Figures) -> Option<Told> {
        let &Figures { used_bytes, maxmemory, memory_percent, .. } = figures;
        let has_threshold = maxmemory > 0 && memory_percent > 0;
        let has_reached = |percent: u64| used_bytes as u128 * 100 >= maxmemory as u128 * u128::from(percent);
        let percent = u64::from(memory_percent);
        // A threshold of less than the slack is left as well.
        let lowered = percent.saturating_sub(MEMORY_SLACK_PERCENT).max(percent.div_ceil(2));
        let is_high = has_threshold && has_reached(if self.is_memory_high { lowered } else { percent });
        if is_high == self.is_memory_high {
            return None;
        }
        self.is_memory_high = is_high;
        Some(if is_high {
            (EventKind::MemoryHigh, format!("{used_bytes} of {maxmemory} bytes are used, {percent} % of maxmemory or more"))
        } else if has_threshold {
            (EventKind::MemoryNormal, format!("{used_bytes} of {maxmemory} bytes are used, less than {lowered} % of maxmemory"))
        } else {
            (EventKind::MemoryNormal, format!("{used_bytes} bytes are used; there is no threshold any more"))
        })
    }

    fn look_at_evictions(&mut self, figures: &Figures, now: Now) -> Option<Told> {
        Some(match self.evictions.look(figures.evicted, now)? {
            Turn::Began => {
                let text = format!("keys with time left are evicted: maxmemory of {} bytes is used up", figures.maxmemory);
                (EventKind::EvictionStarted, text)
            }
            Turn::Ended(count) => {
                (EventKind::EvictionEnded, format!("{count} keys were evicted; none for {} seconds", QUIET_MS / 1000))
            }
        })
    }

    fn look_at_writes(&mut self, writes: &Writes) -> Option<Told> {
        let were_refused = self.are_writes_refused;
        self.are_writes_refused = matches!(writes, Writes::Refused(_));
        match writes {
            Writes::Refused(reason) if !were_refused => Some((EventKind::WritesRefused, format!("writes are refused: {reason}"))),
            Writes::Taken if were_refused => Some((EventKind::WritesAccepted, "writes are taken again".to_owned())),
            _ => None,
        }
    }
}

/// A time in which something is counted again and again.
#[derive(Debug, Default)]
struct Spell {
    last_total: u64,
    /// Unix milliseconds of the last time that there were more; `None`: it is quiet.
    grew_at: Option<u64>,
    count: u64,
}

enum Turn {
    Began,
    /// With what was counted.
    Ended(u64),
}

impl Spell {
    fn look(&mut self, total: u64, now: Now) -> Option<Turn> {
        // Less than before: CONFIG RESETSTAT.
        let grown = if total < self.last_total { total } else { total - self.last_total };
        self.last_total = total;
        self.count += grown;
        match self.grew_at {
            _ if grown > 0 => self.grew_at.replace(now.unix_ms).is_none().then_some(Turn::Began),
            Some(at) if now.unix_ms.saturating_sub(at) >= QUIET_MS => {
                self.grew_at = None;
                Some(Turn::Ended(std::mem::take(&mut self.count)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Alarms, Figures, QUIET_MS, Writes};
    use crate::{keyspace::Now, node::EventKind};

    const CALM: Figures = Figures {
        used_bytes: 0,
        maxmemory: 1_000,
        memory_percent: 80,
        evicted: 0,
        out_of_memory: 0,
        turned_away: 0,
        maxclients: 10,
        slow_syncs: 0,
        writes: Writes::Taken,
    };

    fn kinds(alarms: &mut Alarms, figures: &Figures, unix_ms: u64) -> Vec<EventKind> {
        alarms.look(figures, Now { unix_ms }).into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn memory_around_the_threshold_is_told_once() {
        let mut alarms = Alarms::default();
        let mut seen = |used_bytes, maxmemory| kinds(&mut alarms, &Figures { used_bytes, maxmemory, ..CALM }, 0);
        assert!(seen(799, 1_000).is_empty());
        assert_eq!(seen(800, 1_000), [EventKind::MemoryHigh]);
        assert!(seen(760, 1_000).is_empty() && seen(990, 1_000).is_empty());
        assert_eq!(seen(749, 1_000), [EventKind::MemoryNormal]);
        assert!(seen(799, 1_000).is_empty());
        assert_eq!(seen(801, 1_000), [EventKind::MemoryHigh]);
        assert_eq!(seen(801, 0), [EventKind::MemoryNormal]);
        assert!(kinds(&mut alarms, &Figures { used_bytes: 1_000, memory_percent: 0, ..CALM }, 0).is_empty());
        let mut seen = |used_bytes| kinds(&mut alarms, &Figures { used_bytes, memory_percent: 3, ..CALM }, 0);
        assert_eq!((seen(30), seen(19)), (vec![EventKind::MemoryHigh], vec![EventKind::MemoryNormal]));
    }

    #[test]
    fn evictions_begin_and_end_with_a_count() {
        let mut alarms = Alarms::default();
        let seen = |alarms: &mut Alarms, evicted, at| alarms.look(&Figures { evicted, ..CALM }, Now { unix_ms: at });
        assert_eq!(seen(&mut alarms, 3, 1_000)[0].0, EventKind::EvictionStarted);
        assert!(seen(&mut alarms, 10, 2_000).is_empty() && seen(&mut alarms, 10, 2_000 + QUIET_MS - 1).is_empty());
        // The counter begins anew, and what comes behind counts.
        assert!(seen(&mut alarms, 2, 2_000 + QUIET_MS - 1).is_empty());
        let ended = seen(&mut alarms, 2, 2_000 + 2 * QUIET_MS);
        assert_eq!(ended, [(EventKind::EvictionEnded, "12 keys were evicted; none for 60 seconds".to_owned())]);
        assert!(seen(&mut alarms, 2, 2_000 + 9 * QUIET_MS).is_empty());
        assert_eq!(seen(&mut alarms, 3, 2_000 + 9 * QUIET_MS)[0].0, EventKind::EvictionStarted);
    }

    #[test]
    fn who_is_turned_away_and_writes_that_are_refused_are_told_once_each_time() {
        let mut alarms = Alarms::default();
        let full = Figures { out_of_memory: 5, turned_away: 1, slow_syncs: 1, ..CALM };
        let expected = [EventKind::OutOfMemory, EventKind::MaxClientsReached, EventKind::LogSyncSlow];
        assert_eq!(kinds(&mut alarms, &full, 0), expected);
        assert!(kinds(&mut alarms, &Figures { out_of_memory: 6, ..full.clone() }, 1_000).is_empty());
        assert!(kinds(&mut alarms, &Figures { out_of_memory: 6, ..full.clone() }, 1_000 + QUIET_MS).is_empty());
        let again = Figures { out_of_memory: 7, turned_away: 2, slow_syncs: 2, ..CALM };
        assert_eq!(kinds(&mut alarms, &again, 1_000 + 2 * QUIET_MS), expected);

        let mut seen = |writes| kinds(&mut alarms, &Figures { writes, ..again.clone() }, 1_000 + 2 * QUIET_MS);
        let refused = || Writes::Refused("NOREPLICAS".to_owned());
        assert_eq!(seen(refused()), [EventKind::WritesRefused]);
        assert!(seen(refused()).is_empty());
        assert_eq!(seen(Writes::Taken), [EventKind::WritesAccepted]);
        assert_eq!(seen(refused()), [EventKind::WritesRefused]);
        // It follows another node now, which takes them.
        assert!(seen(Writes::Elsewhere).is_empty() && seen(Writes::Taken).is_empty());
    }
}
