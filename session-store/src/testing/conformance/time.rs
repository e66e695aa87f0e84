//! How time passes for checks that run side by side.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tokio::sync::oneshot;

/// As it does everywhere, or as the store is told: then all checks wait for the same moments, so that it passes once for all of them, and
/// a date that a check has reckoned by the clock of this process means the same to the store when the check begins.
#[derive(Clone)]
pub(super) enum Time<'a> {
    Real,
    Told(Rc<Told<'a>>),
}

pub(super) struct Told<'a> {
    pass: Box<dyn Fn(Duration) + 'a>,
    passed: Cell<Duration>,
    /// Checks that have not ended.
    running: Cell<usize>,
    /// Those among them that wait, and until when.
    waiting: RefCell<Vec<(Duration, oneshot::Sender<()>)>>,
}

impl<'a> Time<'a> {
    pub(super) fn told(pass: impl Fn(Duration) + 'a) -> Self {
        let pass = Box::new(pass);
        Self::Told(Rc::new(Told { pass, passed: Cell::default(), running: Cell::default(), waiting: RefCell::default() }))
    }

    /// So many checks are about to begin.
    pub(super) fn begin(&self, checks: usize) {
        if let Self::Told(told) = self {
            told.running.set(checks);
        }
    }

    /// One of them has ended.
    pub(super) fn end(&self) {
        if let Self::Told(told) = self {
            told.running.set(told.running.get().saturating_sub(1));
            told.go_on();
        }
    }

    pub(super) async fn pass(&self, time: Duration) {
        match self {
            Self::Real => tokio::time::sleep(time).await,
            Self::Told(told) => {
                let (sender, receiver) = oneshot::channel();
                told.waiting.borrow_mut().push((told.passed.get() + time, sender));
                told.go_on();
                // The sender is kept until the moment has come.
                let _ = receiver.await;
            }
        }
    }
}

impl Told<'_> {
    /// The next moment comes when nobody has anything to do before it.
    fn go_on(&self) {
        let mut waiting = self.waiting.borrow_mut();
        let Some(next) = waiting.iter().map(|(until, _)| *until).min() else { return };
        if waiting.len() < self.running.get() {
            return;
        }
        (self.pass)(next.saturating_sub(self.passed.get()));
        self.passed.set(next);
        waiting.retain(|(until, _)| *until > next);
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, time::Duration};

    use futures_util::future::join;

    use super::Time;

    #[tokio::test]
    async fn time_passes_once_for_all_who_wait() {
        let passed = RefCell::new(Vec::new());
        let time = Time::told(|time| passed.borrow_mut().push(time.as_secs()));
        time.begin(2);
        let wait = |times: Vec<u64>| {
            let time = time.clone();
            async move {
                for seconds in times {
                    time.pass(Duration::from_secs(seconds)).await;
                }
                time.end();
            }
        };
        join(wait(vec![3, 3]), wait(vec![5, 5])).await;
        assert_eq!(*passed.borrow(), [3, 2, 1, 4]);
    }
}
