//! Events and what became of them, for a node and for the controller of a cluster.

use std::fmt;

use crate::{
    events::{EventCounts, Kind},
    metrics::{Labels, Number, Series},
    webhook::TargetCounts,
};

impl Series<'_> {
    /// The events of a process's life, under names that begin with `prefix`.
    pub(crate) fn events(&mut self, prefix: &str, counts: &EventCounts<impl Kind>) -> fmt::Result {
        let dropped = [(Labels::new(), Number::Whole(counts.dropped))];
        let help = "Events that /v1/events has no room for any more.";
        self.counter(&format!("{prefix}_events_dropped"), None, help, dropped)?;
        let by_kind = counts.by_kind.iter().map(|(kind, count)| (vec![("kind", format!("{kind:?}"))], Number::Whole(*count)));
        self.counter(&format!("{prefix}_events"), None, "Events by their kind, in the life of this process.", by_kind)
    }

    /// What became of events that webhooks were to tell.
    pub(crate) fn webhooks(&mut self, prefix: &str, webhooks: &[TargetCounts]) -> fmt::Result {
        type Read = fn(&TargetCounts) -> u64;
        let counters: [(&str, &str, Read); 4] = [
            ("delivered", "Events that the receiver took.", |counts| counts.delivered),
            ("failed", "Events that were given up after the last try.", |counts| counts.failed),
            ("failed_tries", "Tries that did not succeed.", |counts| counts.failed_tries),
            ("dropped", "Events that had no room while an earlier one was tried.", |counts| counts.dropped),
        ];
        for (name, help, read) in counters {
            let counts = webhooks.iter().map(|counts| (vec![("target", counts.target.clone())], Number::Whole(read(counts))));
            self.counter(&format!("{prefix}_webhook_{name}"), None, help, counts)?;
        }
        Ok(())
    }
}
