//! The moment until which an operation is waited for, and who looks at the clock.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

/// The deadline of one operation.
///
/// A timer for each operation was a tenth of what a read costs: most are the earliest of their runtime, so that another worker is woken by a
/// system call to learn of each, and none ever rings. So while an operation does nothing but wait for its answer, the connection has one alarm for
/// all who wait on it, and the operation has no timer.
#[derive(Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    is_kept_by_connection: AtomicBool,
}

impl Deadline {
    pub(crate) fn at(at: Instant) -> Self {
        Self { at, is_kept_by_connection: AtomicBool::new(false) }
    }

    /// Whether a connection wakes who waits, with an answer or when the deadline has passed.
    pub(crate) fn kept_by_connection(&self, is_kept: bool) {
        self.is_kept_by_connection.store(is_kept, Ordering::Relaxed);
    }

    /// What comes of the work, or `None` when the deadline passes before.
    pub(crate) fn bound<F: Future>(&self, work: F) -> Bounded<'_, F> {
        Bounded { work, deadline: self, timer: None }
    }
}

pin_project! {
    pub(crate) struct Bounded<'a, F> {
        #[pin]
        work: F,
        deadline: &'a Deadline,
        // Made when the work first waits for anything but an answer.
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future> Future for Bounded<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(done) = this.work.poll(cx) {
            return Poll::Ready(Some(done));
        }
        if this.deadline.is_kept_by_connection.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(this.deadline.at)));
        timer.as_mut().poll(cx).map(|()| None)
    }
}
