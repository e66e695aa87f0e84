//! One alarm for all who wait on a connection.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{Shared, Slot, State};

impl State {
    /// Whether the alarm has to be set earlier than it is.
    pub(super) fn ring_at(&mut self, deadline: Instant) -> bool {
        let is_earlier = self.alarm_at.is_none_or(|at| deadline < at);
        if is_earlier {
            self.alarm_at = Some(deadline);
        }
        is_earlier
    }

    /// Whoever waited until now waits no more. Sets the alarm to the next of them.
    fn ring(&mut self, now: Instant) -> Vec<Waker> {
        let (mut late, mut next) = (Vec::new(), None);
        for slot in &mut self.slots {
            let Slot::Waiting { deadline: Some(deadline), .. } = *slot else { continue };
            if deadline > now {
                next = Some(next.map_or(deadline, |next: Instant| next.min(deadline)));
            } else if let Slot::Waiting { waker, .. } = std::mem::replace(slot, Slot::Late) {
                late.push(waker);
            }
        }
        self.alarm_at = next;
        late
    }
}

/// Wakes those whose deadline has passed. Ends with the connection.
///
/// A task beside the driver, which is woken for an earlier deadline only: the driver is woken by whoever asks, to run on the same thread
/// next, and if that one goes on to compute instead of waiting, nobody else can run it.
pub(super) struct Alarm {
    shared: Arc<Shared>,
    timer: Option<Pin<Box<Sleep>>>,
    set_to: Option<Instant>,
}

impl Alarm {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, timer: None, set_to: None }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.shared.alarm.register(cx.waker());
        loop {
            let (at, is_closed) = {
                let state = this.shared.state.lock();
                (state.alarm_at, state.closed.is_some())
            };
            if is_closed {
                return Poll::Ready(());
            }
            let Some(at) = at else { return Poll::Pending };
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if this.set_to != Some(at) {
                timer.as_mut().reset(at);
                this.set_to = Some(at);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.set_to = None;
            let late = this.shared.state.lock().ring(Instant::now());
            late.into_iter().for_each(Waker::wake);
        }
    }
}
