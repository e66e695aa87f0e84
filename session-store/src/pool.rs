//! The pool: a place in it is the right to have one operation in flight.
//!
//! The pool bounds and measures how many operations are in flight; the connections are shared, so that operations in
//! flight travel in one write. Getting a place costs no command: whether a connection still works is learnt from the
//! operations themselves.
//!
//! deadpool makes the places, counts them, and queues those who wait for one. What it does for each that is given out and
//! comes back (a semaphore, hooks, a look at the clock, a weak reference to itself) is worth it where a connection is
//! checked, and was a thirtieth of a read where there is none: so a place that comes back while nobody waits stays at hand,
//! for the next who wants one. To deadpool it is in use. Each thread has its own at hand, so that busy cores do not take the
//! cache lines of a list and of the places in it from each other; those of others it takes before it asks for a new one.
//!
//! The first places are for the first connection and are taken before others, so that the few requests of a quiet hour travel
//! together too. A place that rests lets go of its connection when there is another one: it may rest for long.

use std::{
    collections::VecDeque,
    convert::Infallible,
    ops::{Deref, DerefMut},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use deadpool::managed::{BuildError, Manager, Metrics, Object, PoolError, RecycleResult};
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    StoreError,
    metrics::Waiting,
    nodes::{Handle, Node, Origin},
    shared,
};

/// Lists of places at hand. More threads than these share them in turn.
const SHARDS: usize = 16;
/// Places in a row that use the same connection, if there are so many for each. Dealt one by one, requests at once met each other on no
/// connection: in rows the store reads 0.64 times for each of four at once in place of 0.92 times, of 16 0.20 in place of 0.28, at a twentieth
/// to a tenth less CPU on both sides; of more as often as before.
const ROW_MAX: usize = 16;

#[derive(Debug)]
pub(crate) struct Pool {
    places: deadpool::managed::Pool<Places>,
    at_hand: [AtHand; SHARDS],
    /// Those who ask deadpool, because none was at hand: as long as there is one, places go back there.
    asking: AtomicUsize,
    waiting_max: usize,
    changes: Changes,
    /// The changes of which the places at hand know.
    known: AtomicU64,
}

/// Count what makes handles old, since when there is the store: connections that took the place of others, and nodes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) connections: Arc<AtomicU64>,
    pub(crate) nodes: Arc<AtomicU64>,
}

impl Changes {
    fn count(&self) -> u64 {
        self.connections.load(Ordering::Acquire).wrapping_add(self.nodes.load(Ordering::Acquire))
    }
}

/// Free places, those of the first row at the back. In all no more than there are places.
// On cache lines of its own. Held for a few instructions only.
#[derive(Debug, Default)]
#[repr(align(128))]
struct AtHand(Mutex<VecDeque<Object<Places>>>);

impl AtHand {
    /// One of the first row: the one that came last, whose memory is warm. Of others the one that came first, so that all connections
    /// are used.
    fn take(&self) -> Option<Object<Places>> {
        self.0.lock().pop_back()
    }

    fn put(&self, place: Object<Places>) {
        let mut free = self.0.lock();
        if place.row == 0 { free.push_back(place) } else { free.push_front(place) }
    }
}

impl Pool {
    /// `size_max`: operations that can be in flight at once. `waiting_max`: those that may wait for a place. `sockets`: connections to a
    /// node.
    pub(crate) fn new(size_max: usize, waiting_max: usize, sockets: usize, changes: Changes) -> Result<Self, BuildError> {
        let row_length = (size_max / sockets).clamp(1, ROW_MAX);
        let places = Places { row_length, next: AtomicUsize::new(0) };
        let places = deadpool::managed::Pool::builder(places).max_size(size_max).build()?;
        let known = AtomicU64::new(changes.count());
        Ok(Self { places, at_hand: Default::default(), asking: AtomicUsize::new(0), waiting_max, changes, known })
    }

    /// A place at hand, as there nearly always is.
    pub(crate) fn take_at_hand(&self) -> Option<Taken<'_>> {
        let own = self.own();
        let place = self.at_hand[own].take().or_else(|| self.take_of_others(own))?;
        Some(self.taken(place, None))
    }

    #[cold]
    fn take_of_others(&self, own: usize) -> Option<Object<Places>> {
        (1..SHARDS).find_map(|next| self.at_hand[(own + next) % SHARDS].take())
    }

    /// Where this thread has its places at hand.
    fn own(&self) -> usize {
        shared::thread() % self.at_hand.len()
    }

    /// A place, now or when one becomes free. The caller bounds the wait.
    pub(crate) async fn take(&self) -> Result<Taken<'_>, StoreError> {
        if let Some(taken) = self.take_at_hand() {
            return Ok(taken);
        }
        let asker = Asker::new(&self.asking);
        // What came back before others knew of this one; what comes later goes to deadpool.
        if let Some(taken) = self.take_at_hand() {
            return Ok(taken);
        }
        // Boxed: each operation would be larger.
        Box::pin(self.ask(asker)).await
    }

    async fn ask(&self, _asker: Asker<'_>) -> Result<Taken<'_>, StoreError> {
        let closed = |error: PoolError<Infallible>| StoreError::Disconnected { reason: error.to_string() };
        if let Some(found) = pin!(self.places.get()).now_or_never() {
            return Ok(self.taken(found.map_err(closed)?, None));
        }
        let status = self.places.status();
        // A task that has had its share of the runtime's time is made to wait although there are places.
        let is_full = status.available == 0 && status.size == status.max_size;
        if is_full && status.waiting >= self.waiting_max {
            return Err(StoreError::PoolFull { waiting_max: self.waiting_max });
        }
        let _waiting = is_full.then(Waiting::begin);
        let place = self.places.get().await.map_err(closed)?;
        Ok(self.taken(place, Some(Instant::now())))
    }

    fn taken(&self, mut place: Object<Places>, waited_until: Option<Instant>) -> Taken<'_> {
        place.waited_until = waited_until;
        Taken { pool: self, place: Some(place) }
    }

    /// Nobody may ask for a place that rests for a long time, and what it leads over would stay connected.
    #[cold]
    fn let_go(&self, changes: u64) {
        self.known.store(changes, Ordering::Release);
        for at_hand in &self.at_hand {
            let old: Vec<_> = at_hand.0.lock().iter_mut().filter_map(|place| place.handle.take()).collect();
            // Behind the lock: the last one of a connection closes it.
            drop(old);
        }
    }

    pub(crate) fn status(&self) -> PoolStatus {
        // Held together: meanwhile none is taken from there, or put there.
        let at_hand = self.at_hand.each_ref().map(|at_hand| at_hand.0.lock());
        let at_hand: usize = at_hand.iter().map(|free| free.len()).sum();
        let status = self.places.status();
        PoolStatus {
            size_max: status.max_size,
            size: status.size,
            in_use: (status.size - status.available).saturating_sub(at_hand),
            waiting: status.waiting,
            waiting_max: self.waiting_max,
        }
    }
}

/// Counts somebody as asking deadpool, until that has come to an end.
struct Asker<'a>(&'a AtomicUsize);

impl<'a> Asker<'a> {
    fn new(asking: &'a AtomicUsize) -> Self {
        asking.fetch_add(1, Ordering::SeqCst);
        Self(asking)
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    pool: &'a Pool,
    // `None` only while it is dropped.
    place: Option<Object<Places>>,
}

impl Deref for Taken<'_> {
    type Target = Place;

    fn deref(&self) -> &Place {
        self.place.as_ref().expect("it is there until this is dropped")
    }
}

impl DerefMut for Taken<'_> {
    fn deref_mut(&mut self) -> &mut Place {
        self.place.as_mut().expect("it is there until this is dropped")
    }
}

impl Taken<'_> {
    /// A handle on a connection of this node, and what is told of it in the end: the one of last time, unless it is another node or the connection was
    /// replaced. `now`: as of a moment ago.
    pub(crate) async fn handle(&mut self, node: &Arc<Node>, now: Instant) -> Result<(&Handle, Origin), StoreError> {
        // Before the handle is made: what changes meanwhile is seen when the place comes back.
        let changes = self.pool.changes.count();
        let place: &mut Place = self;
        node.admit()?;
        if !place.handle.as_ref().is_some_and(|handle| Arc::ptr_eq(handle.node(), node) && handle.is_current(now)) {
            place.handle = None;
            place.handle = Some(Box::pin(node.handle(place.row)).await?);
            place.known = changes;
            place.waited_until = Some(Instant::now());
        }
        let handle = place.handle.as_ref().expect("it was set above");
        Ok((handle, handle.origin(place.waited_until)))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let Some(mut place) = self.place.take() else { return };
        let changes = self.pool.changes.count();
        if place.known != changes {
            place.handle = None;
        }
        let at_hand = &self.pool.at_hand[self.pool.own()];
        at_hand.put(place);
        // Looked at behind the lock, so that a place has either come back before and is found, or has looked for itself.
        if self.pool.known.load(Ordering::Acquire) != changes {
            self.pool.let_go(changes);
        }
        // Looked at behind the lock: whoever has begun to ask has either found this place under it, or is seen here.
        if self.pool.asking.load(Ordering::SeqCst) > 0 {
            // By its drop to whoever waits for the longest.
            drop(at_hand.take());
        }
    }
}

/// Makes places.
#[derive(Debug)]
pub(crate) struct Places {
    row_length: usize,
    next: AtomicUsize,
}

impl Manager for Places {
    // Boxed, since a place is handed from one owner to the next with each operation.
    type Type = Box<Place>;
    type Error = Infallible;

    async fn create(&self) -> Result<Box<Place>, Infallible> {
        let row = self.next.fetch_add(1, Ordering::Relaxed) / self.row_length;
        Ok(Box::new(Place { row, handle: None, known: 0, waited_until: None }))
    }

    async fn recycle(&self, _: &mut Box<Place>, _: &Metrics) -> RecycleResult<Infallible> {
        Ok(())
    }
}

/// A place, with the handle that was used in it last.
#[derive(Debug)]
pub(crate) struct Place {
    /// Spreads places over the connections of a node.
    row: usize,
    handle: Option<Handle>,
    /// The changes that were known when the handle was made.
    known: u64,
    /// When whoever has the place now was ready to ask, if it had to wait for the place or for a connection.
    waited_until: Option<Instant>,
}

impl Place {
    /// The handle of last time, if its node takes requests and its connection is still the one to use. `now`: as of a moment ago, since to
    /// look at the clock is dearer than all this.
    pub(crate) fn handle_at_hand(&self, now: Instant) -> Option<&Handle> {
        self.handle.as_ref().filter(|handle| handle.node().is_closed() && handle.is_current(now))
    }
}

/// How busy the pool is, in operations.
///
/// ```no_run
/// # async fn example(store: session_store::CacheStore) {
/// let status = store.pool_status();
/// println!("{} of {} in use, {} waiting", status.in_use, status.size_max, status.waiting);
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Operations that can be in flight at once.
    pub size_max: usize,
    /// Places made so far; they are made when first needed.
    pub size: usize,
    /// Operations in flight.
    pub in_use: usize,
    /// Operations that wait for a place.
    pub waiting: usize,
    /// Operations that may wait for a place; further ones are refused.
    pub waiting_max: usize,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use futures_util::{FutureExt as _, future::join_all};
    use tokio::{task::yield_now, time::timeout};

    use super::{Changes, Pool, PoolStatus};
    use crate::StoreError;

    fn status(size: usize, in_use: usize, waiting: usize) -> PoolStatus {
        PoolStatus { size_max: 2, size, in_use, waiting, waiting_max: 1 }
    }

    #[tokio::test]
    async fn what_is_at_hand_is_free_and_who_waits_comes_first() {
        let pool = Pool::new(2, 1, 1, Changes::default()).unwrap();
        assert_eq!(pool.status(), status(0, 0, 0));
        let first = pool.take().await.unwrap();
        assert_eq!(pool.status(), status(1, 1, 0));
        drop(first);
        assert_eq!(pool.status(), status(1, 0, 0));
        let (first, second) = (pool.take().await.unwrap(), pool.take().await.unwrap());
        assert_eq!(pool.status(), status(2, 2, 0));
        assert!(second.waited_until.is_none());
        let mut waits = Box::pin(pool.take());
        assert!(waits.as_mut().now_or_never().is_none());
        assert_eq!(pool.status(), status(2, 2, 1));
        assert!(matches!(pool.take().now_or_never(), Some(Err(StoreError::PoolFull { waiting_max: 1 }))));
        drop(first);
        // It is for the one who waits, although nobody has told him yet.
        assert!(pool.take().now_or_never().is_none_or(|taken| taken.is_err()));
        let third = waits.await.unwrap();
        assert!(third.waited_until.is_some());
        assert_eq!(pool.status(), status(2, 2, 0));
        // Who gives up leaves nothing behind.
        let mut waits = Box::pin(pool.take());
        assert!(waits.as_mut().now_or_never().is_none());
        drop((waits, second, third));
        assert_eq!(pool.status(), status(2, 0, 0));
        assert_eq!(pool.at_hand.iter().map(|at_hand| at_hand.0.lock().len()).sum::<usize>(), 2);
        // From another thread, none is made for it.
        std::thread::scope(|scope| scope.spawn(|| assert!(pool.take_at_hand().is_some())).join().unwrap());
        assert_eq!(pool.status(), status(2, 0, 0));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn there_are_never_more_in_flight_and_everybody_has_a_turn() {
        let pool = Arc::new(Pool::new(2, 1_000, 1, Changes::default()).unwrap());
        let in_flight = Arc::new(AtomicUsize::new(0));
        let tasks = (0..16).map(|task| {
            let (pool, in_flight) = (Arc::clone(&pool), Arc::clone(&in_flight));
            tokio::spawn(async move {
                for turn in 0..500 {
                    if (task + turn) % 7 == 0 {
                        // Asks, and gives up.
                        pool.take().now_or_never();
                        continue;
                    }
                    let taken = pool.take().await.unwrap();
                    assert!(in_flight.fetch_add(1, Ordering::SeqCst) < 2);
                    if turn % 3 == 0 {
                        yield_now().await;
                    }
                    in_flight.fetch_sub(1, Ordering::SeqCst);
                    drop(taken);
                }
            })
        });
        let all = timeout(Duration::from_secs(60), join_all(tasks)).await;
        all.expect("nobody is forgotten").into_iter().for_each(Result::unwrap);
        let status = pool.status();
        assert_eq!((status.in_use, status.waiting), (0, 0));
    }
}
