//! The pool: a place in it is the right to have one operation in flight.
//!
//! The pool bounds and measures how many operations are in flight; the connections are shared, so that operations in
//! flight travel in one write. Getting a place costs no command: whether a connection still works is learnt from the
//! operations themselves.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use deadpool::managed::{Manager, Metrics, RecycleResult};
use tokio::time::Instant;

use crate::{
    StoreError,
    nodes::{Handle, Node},
};

pub(crate) type Pool = deadpool::managed::Pool<Places>;

/// Makes places.
#[derive(Debug, Default)]
pub(crate) struct Places {
    next: AtomicUsize,
}

impl Manager for Places {
    type Type = Place;
    type Error = Infallible;

    async fn create(&self) -> Result<Place, Infallible> {
        Ok(Place { turn: self.next.fetch_add(1, Ordering::Relaxed), handle: None, waited_until: None })
    }

    async fn recycle(&self, _: &mut Place, _: &Metrics) -> RecycleResult<Infallible> {
        Ok(())
    }
}

/// A place, with the handle that was used in it last.
#[derive(Debug)]
pub(crate) struct Place {
    /// Spreads places over the connections of a node.
    turn: usize,
    handle: Option<Handle>,
    /// When whoever has the place now was ready to ask, if it had to wait for the place or for a connection.
    pub(crate) waited_until: Option<Instant>,
}

impl Place {
    /// A handle on a connection of this node: the one of last time, unless it is another node or the connection was
    /// replaced. `now`: as of a moment ago, since to look at the clock is dearer than all this.
    pub(crate) async fn handle(&mut self, node: &Arc<Node>, now: Instant) -> Result<&mut Handle, StoreError> {
        node.admit()?;
        if !self.handle.as_ref().is_some_and(|handle| handle.is_current(node, now)) {
            self.handle = None;
            self.handle = Some(Box::pin(node.handle(self.turn)).await?);
            self.waited_until = Some(Instant::now());
        }
        let handle = self.handle.as_mut().expect("it was set above");
        handle.waited_until = self.waited_until;
        Ok(handle)
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
