//! A request under way.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use redis::RedisError;

use super::{Closed, Packed, Reply, Shared, Slot};
use crate::deadline::Deadline;

/// Why a request got no reply.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// Its deadline has passed. The reply may still come, and is dropped.
    Late,
    Closed(RedisError),
}

impl From<Closed> for Unanswered {
    fn from(closed: Closed) -> Self {
        Self::Closed(closed.into())
    }
}

impl From<Unanswered> for RedisError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Late => io::Error::new(io::ErrorKind::TimedOut, "no answer came in time").into(),
            Unanswered::Closed(error) => error,
        }
    }
}

/// A request under way. When it is dropped its replies are read and dropped.
pub(crate) struct Ask<'a> {
    shared: &'a Shared,
    request: &'a dyn Packed,
    deadline: Option<&'a Deadline>,
    slot: Option<u32>,
}

impl<'a> Ask<'a> {
    pub(super) fn new(shared: &'a Shared, request: &'a dyn Packed, deadline: Option<&'a Deadline>) -> Self {
        Self { shared, request, deadline: deadline.filter(|_| shared.keeps_deadlines), slot: None }
    }

    fn keeps_deadline(&self, is_kept: bool) {
        if let Some(deadline) = self.deadline {
            deadline.kept_by_connection(is_kept);
        }
    }
}

impl Future for Ask<'_> {
    type Output = Result<Reply, Unanswered>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = self.shared;
        let mut state = shared.state.lock();
        let Some(slot) = self.slot else {
            let deadline = self.deadline.map(|deadline| deadline.at);
            self.slot = Some(state.send(self.request, deadline, cx.waker().clone(), shared.requests_max)?);
            let is_driver_told = std::mem::replace(&mut state.is_driver_told, true);
            let is_alarm_early = deadline.is_some_and(|deadline| state.ring_at(deadline));
            drop(state);
            self.keeps_deadline(true);
            // First the alarm: who is woken last waits for this very thread, and who asks may keep it busy.
            if is_alarm_early {
                shared.alarm.wake();
            }
            if !is_driver_told || is_alarm_early {
                shared.driver.wake();
            }
            return Poll::Pending;
        };
        match &mut state.slots[slot as usize] {
            Slot::Waiting { waker, .. } => {
                waker.clone_from(cx.waker());
                return Poll::Pending;
            }
            Slot::Answered(_) | Slot::Failed | Slot::Late => {}
            Slot::Free | Slot::Abandoned => unreachable!("a request under way has its slot"),
        }
        self.slot = None;
        self.keeps_deadline(false);
        if let late @ Slot::Late = &mut state.slots[slot as usize] {
            *late = Slot::Abandoned;
            return Poll::Ready(Err(Unanswered::Late));
        }
        match state.release(slot) {
            Slot::Answered(reply) => Poll::Ready(Ok(reply)),
            _ => {
                let closed = state.closed.unwrap_or(Closed { kind: io::ErrorKind::BrokenPipe, reason: "it was closed" });
                Poll::Ready(Err(closed.into()))
            }
        }
    }
}

impl Drop for Ask<'_> {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        self.keeps_deadline(false);
        let mut state = self.shared.state.lock();
        if let Slot::Waiting { .. } | Slot::Late = &state.slots[slot as usize] {
            // The slot is free again when the reply has come.
            state.slots[slot as usize] = Slot::Abandoned;
        } else {
            state.release(slot);
        }
    }
}
