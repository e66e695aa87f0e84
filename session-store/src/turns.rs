//! Whose turn it is to change a value that others of this process want to change too.
//!
//! Without an order, each of n updates at once would fail up to n times. With it, an update contends with other replicas
//! alone. It is a queue and no lock: nothing is guarded by it, and the compare-and-set in the store decides.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::keys::Tag;

/// Updates of one session that wait in this process at most.
pub(crate) const WAITING_MAX: usize = 1_024;
/// How long one of them waits at most.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(5);

/// A queue for each session that has one, in order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Tag, Queue>>);

#[derive(Debug)]
struct Queue {
    semaphore: Arc<Semaphore>,
    /// Those who wait, and the one whose turn it is.
    length: usize,
}

/// The right to be the only one of this process who changes a session's values, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

#[derive(Debug)]
struct Place {
    turns: Arc<Turns>,
    tag: Tag,
}

impl Turns {
    /// `None`: too many wait, or it took too long.
    pub(crate) async fn take(self: &Arc<Self>, tag: Tag) -> Option<Turn> {
        let semaphore = {
            let mut queues = self.0.lock();
            let queue = queues.entry(tag).or_insert_with(|| Queue { semaphore: Arc::new(Semaphore::new(1)), length: 0 });
            if queue.length > WAITING_MAX {
                return None;
            }
            queue.length += 1;
            Arc::clone(&queue.semaphore)
        };
        // From here on the place is given back also when nobody waits for the turn any more.
        let place = Place { turns: Arc::clone(self), tag };
        let permit = timeout(WAIT_MAX, semaphore.acquire_owned()).await.ok()?.ok()?;
        Some(Turn { _permit: permit, _place: place })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queues = self.turns.0.lock();
        if let Some(queue) = queues.get_mut(&self.tag) {
            queue.length -= 1;
            if queue.length == 0 {
                queues.remove(&self.tag);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::Arc;

    use tower_sessions::session::Id;

    use super::{Turns, WAITING_MAX};
    use crate::keys::Keys;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_stays_behind() {
        let turns = Arc::new(Turns::default());
        let keys = Keys::new("shop", b"0123456789abcdef", &[], b"0123456789abcdef");
        let (a, b) = (keys.session_tag(&Id(1)), keys.session_tag(&Id(2)));
        let first = turns.take(a).await.unwrap();
        let other = turns.take(b).await.unwrap();
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(turns.take(a))).collect();
        for turn in &mut waiting {
            assert!(futures_util::poll!(turn).is_pending());
        }
        assert!(turns.take(a).await.is_none(), "one too many");
        drop(first);
        let second = waiting.remove(0).await.unwrap();
        assert!(futures_util::poll!(&mut waiting[0]).is_pending());
        drop((waiting, second, other));
        assert!(turns.0.lock().is_empty());
    }
}
