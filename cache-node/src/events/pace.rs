//! How many events of one kind are told: what comes and goes again and again is not to push others out of the queues.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Events of one kind that are told within a [`SPELL`]. What comes behind them is counted, and told in one at its end.
pub(super) const TOLD_MAX: u32 = 8;

/// See [`TOLD_MAX`].
const SPELL: Duration = Duration::from_secs(60);

/// The latest spells of all kinds.
#[derive(Debug)]
pub(super) struct Pace<K>(BTreeMap<K, Spell>);

#[derive(Debug)]
struct Spell {
    began: Instant,
    told: u32,
    held: Option<Held>,
}

/// What was not told.
#[derive(Debug)]
struct Held {
    count: u64,
    at: Instant,
    /// Of the latest one.
    text: String,
}

impl<K: Copy + Ord> Pace<K> {
    pub(super) fn new() -> Pace<K> {
        Pace(BTreeMap::new())
    }

    /// Whether an event is to be told now. If not, it is held for [`Pace::due`].
    pub(super) fn admits(&mut self, kind: K, text: &str, now: Instant) -> bool {
        let spell = self.0.entry(kind).or_insert(Spell { began: now, told: 0, held: None });
        if spell.held.is_none() && now.duration_since(spell.began) >= SPELL {
            *spell = Spell { began: now, told: 0, held: None };
        }
        if spell.held.is_none() && spell.told < TOLD_MAX {
            spell.told += 1;
            return true;
        }
        let count = spell.held.as_ref().map_or(0, |held| held.count) + 1;
        spell.held = Some(Held { count, at: now, text: text.to_owned() });
        false
    }

    /// One text for all that was held of a kind whose spell is over, in the order of the latest of each. `is_end`: of every kind.
    pub(super) fn due(&mut self, now: Instant, is_end: bool) -> Vec<(K, String)> {
        let mut due = Vec::new();
        for (kind, spell) in &mut self.0 {
            if !is_end && now.duration_since(spell.began) < SPELL {
                continue;
            }
            if let Some(held) = spell.held.take() {
                // Those that go on are told in one again.
                *spell = Spell { began: now, told: TOLD_MAX, held: None };
                due.push((held.at, *kind, format!("{} more, the latest: {}", held.count, held.text)));
            }
        }
        due.sort_by_key(|(at, ..)| *at);
        due.into_iter().map(|(_, kind, text)| (kind, text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Pace, SPELL, TOLD_MAX};

    #[test]
    fn the_first_of_a_kind_are_told_and_the_rest_in_one_each_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new();
        for _ in 0..TOLD_MAX {
            assert!(pace.admits('a', "told", at(0)));
        }
        assert!(!pace.admits('a', "second", at(10)) && !pace.admits('a', "third", at(30)));
        assert!(pace.admits('b', "another kind", at(20)));
        assert!(pace.due(at(59), false).is_empty());
        assert_eq!(pace.due(at(60), false), [('a', "2 more, the latest: third".to_owned())]);
        // It goes on, and stays at one in a minute.
        assert!(!pace.admits('a', "fourth", at(61)));
        assert!(pace.due(at(100), false).is_empty());
        assert_eq!(pace.due(at(120), false).len(), 1);
        assert!(pace.due(at(180), false).is_empty());
        // It was quiet for a minute.
        assert!(pace.admits('a', "again", at(120) + SPELL));
        // The end waits for no minute, and says last what came last.
        for kind in ['a', 'b'] {
            while pace.admits(kind, "", at(200)) {}
        }
        assert!(!pace.admits('a', "the very last", at(210)));
        let kinds: Vec<char> = pace.due(at(211), true).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ['b', 'a']);
    }
}
