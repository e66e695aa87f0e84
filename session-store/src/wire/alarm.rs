//! One alarm for all who wait on a connection.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Waker},
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{Shared, Slot, State};

/// Who waits for replies, for how many, and until when if the connection is to tell.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) slot: u32,
    pub(super) replies: u32,
    pub(super) deadline: Option<Instant>,
}

/// Those who wait for the replies of what was sent, in order.
pub(super) type InFlight = VecDeque<Asked>;

impl State {
    /// Whether the driver has to be told that it is to look at the clock earlier than it would.
    pub(super) fn ring_at(&mut self, deadline: Instant) -> bool {
        let is_earlier = self.alarm.is_none_or(|alarm| deadline < alarm);
        if is_earlier {
            self.alarm = Some(deadline);
        }
        is_earlier
    }

    /// Whoever waited until now waits no more. Sets the alarm to the next of them.
    fn ring(&mut self, in_flight: &InFlight, now: Instant) -> Vec<Waker> {
        let mut late = Vec::new();
        self.alarm = None;
        for asked in in_flight.iter().chain(&self.asked) {
            let slot = &mut self.slots[asked.slot as usize];
            match asked.deadline {
                Some(deadline) if matches!(slot, Slot::Waiting(_)) => {
                    if deadline > now {
                        self.alarm = Some(self.alarm.map_or(deadline, |alarm| alarm.min(deadline)));
                    } else if let Slot::Waiting(waker) = std::mem::replace(slot, Slot::Late) {
                        late.push(waker);
                    }
                }
                _ => {}
            }
        }
        late
    }
}

/// The driver's clock: set once for all who are under way when it rings, and not for each of them.
#[derive(Default)]
pub(super) struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
    set_to: Option<Instant>,
}

impl Alarm {
    /// Wakes those whose deadline has passed, and the task when the next one does.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared, in_flight: &InFlight) {
        loop {
            // By itself: what a loop's condition holds is held in its body.
            let alarm = shared.state.lock().alarm;
            let Some(alarm) = alarm else { return };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(alarm)));
            if self.set_to != Some(alarm) {
                timer.as_mut().reset(alarm);
                self.set_to = Some(alarm);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return;
            }
            self.set_to = None;
            let late = shared.state.lock().ring(in_flight, Instant::now());
            late.into_iter().for_each(Waker::wake);
        }
    }
}
