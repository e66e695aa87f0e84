//! Looks at the node now and then, for what happens slowly or to too many clients to tell each time.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    announce::alarms::{Alarms, Figures, Writes},
    node::{Hindrance, Shared},
    server::now,
};

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);

/// Looks until the task is aborted. Waits for no lock of the data.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut alarms = Alarms::default();
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (kind, text) in alarms.look(&figures(&shared), now()) {
            shared.tell(kind, text);
        }
        shared.events.tell_held(false);
    }
}

fn figures(shared: &Shared) -> Figures {
    let config = shared.config();
    let gate = &shared.gate;
    let is_elsewhere =
        gate.has(Hindrance::ReadOnly) || gate.has(Hindrance::Loading) || shared.is_stopping.load(Ordering::Acquire);
    let writes = match gate.refusal_of_write() {
        _ if is_elsewhere => Writes::Elsewhere,
        Some(reason) => Writes::Refused(reason),
        None => Writes::Taken,
    };
    Figures {
        used_bytes: shared.keyspace.used_bytes(),
        maxmemory: config.maxmemory,
        memory_percent: config.event_memory_percent,
        evicted: shared.keyspace.evicted(),
        out_of_memory: shared.counters.out_of_memory.load(Ordering::Relaxed),
        turned_away: shared.counters.turned_away.load(Ordering::Relaxed),
        maxclients: config.maxclients,
        slow_syncs: shared.log.delayed_syncs.load(Ordering::Relaxed),
        writes,
    }
}
