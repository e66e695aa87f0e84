//! What all requests of a layer share: its store and its settings, with references that each thread counts for itself.
//!
//! A request holds both for as long as it lives. Counted in one place, the cores take that cache line from each other each time: on two
//! busy ones that was two fifths of what an untouched session costs.

use std::{
    cell::Cell,
    fmt,
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::Extensions;

use crate::{CacheStore, settings::Settings};

/// Counts beside each other. More threads than these share them in turn.
const COUNTS: usize = 32;

pub(crate) struct Shared {
    pub(crate) store: CacheStore,
    pub(crate) settings: Settings,
    of_threads: [OnceLock<OfThread>; COUNTS],
    /// Nothing, and room for what the layer and a router add.
    roomy: Extensions,
}

/// What a request holds: handles of which only requests of the same threads have clones.
pub(crate) struct OfThread {
    pub(crate) store: CacheStore,
    pub(crate) settings: Arc<Settings>,
}

/// What each clone of a service holds. It is counted with its siblings alone, as its own clones are among themselves: a service is cloned for
/// each request from one that a connection has, and counted with those of all connections that was 1 % of a request, on two busy cores.
#[derive(Debug)]
pub(crate) struct Held {
    of_siblings: Arc<Apart>,
    /// Made for the first clone: those of a request have none.
    of_clones: OnceLock<Arc<Apart>>,
}

#[derive(Debug)]
struct Apart(Arc<Shared>);

impl Held {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { of_siblings: Arc::new(Apart(shared)), of_clones: OnceLock::new() }
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        let of_clones = self.of_clones.get_or_init(|| Arc::new(Apart(Arc::clone(&self.of_siblings.0))));
        Self { of_siblings: Arc::clone(of_clones), of_clones: OnceLock::new() }
    }
}

impl Deref for Held {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.of_siblings.0
    }
}

impl Shared {
    pub(crate) fn new(store: CacheStore, settings: Settings) -> Self {
        Self { store, settings, of_threads: [const { OnceLock::new() }; COUNTS], roomy: roomy() }
    }

    /// Gives a request room before anything is added to it. Two of the layer and two of axum are one more than a map has room for that
    /// grows with what is added: to make another one then is a tenth of what the layer costs.
    pub(crate) fn make_room(&self, extensions: &mut Extensions) {
        if extensions.is_empty() {
            *extensions = self.roomy.clone();
        }
    }

    /// That of this thread.
    pub(crate) fn of_thread(&self) -> &OfThread {
        self.of_threads[thread() % COUNTS]
            .get_or_init(|| OfThread { store: self.store.counted_apart(), settings: Arc::new(self.settings.clone()) })
    }
}

/// A map keeps its size when it is emptied, and a copy has the same.
fn roomy() -> Extensions {
    let mut extensions = Extensions::new();
    extensions.insert([(); 0]);
    extensions.insert([(); 1]);
    extensions.insert([(); 2]);
    extensions.insert([(); 3]);
    extensions.clear();
    extensions
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("store", &self.store).field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The number of this thread, in the order in which they first came here.
pub(crate) fn thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    thread_local! {
        /// 0: it has none yet.
        static NUMBER: Cell<usize> = const { Cell::new(0) };
    }
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{sync::Arc, thread};

    use super::{Held, Shared};
    use crate::{CacheStore, settings::Settings};

    #[tokio::test]
    async fn threads_count_apart_and_have_one_store() {
        let store = CacheStore::builder("redis://127.0.0.1:1").connect_lazy().unwrap();
        let shared = Shared::new(store.clone(), Settings::default());
        let of_thread = || {
            let own = shared.of_thread();
            assert!(std::ptr::eq(own, shared.of_thread()), "one for each thread");
            (own.store.clone(), Arc::clone(&own.settings))
        };
        let (here, there) = thread::scope(|scope| (of_thread(), scope.spawn(of_thread).join().unwrap()));
        assert!(here.0.is_same(&store) && there.0.is_same(&store));
        assert!(!Arc::ptr_eq(&here.0.inner, &there.0.inner) && !Arc::ptr_eq(&here.1, &there.1));
        let follower = store.weak();
        drop((shared, store, here));
        assert!(follower.upgrade().is_some());
        drop(there);
        assert!(follower.upgrade().is_none(), "the last handle was that of the other thread");
    }

    #[tokio::test]
    async fn the_clones_of_a_connection_are_counted_among_themselves() {
        let store = CacheStore::builder("redis://127.0.0.1:1").connect_lazy().unwrap();
        let shared = Arc::new(Shared::new(store, Settings::default()));
        let first = Held::new(Arc::clone(&shared));
        let connections = [first.clone(), first.clone()];
        let counts = || [Arc::strong_count(&shared), Arc::strong_count(&connections[0].of_siblings)];
        let requests = [connections[0].clone(), connections[1].clone()];
        let before = counts();
        let more: Vec<_> = (0..8).flat_map(|_| connections.clone()).collect();
        assert_eq!(counts(), before);
        assert!(more.iter().chain(&requests).all(|held| std::ptr::eq(&**held, &*shared)), "all hold the same");
        drop((first, connections, requests, more));
        assert_eq!(Arc::strong_count(&shared), 1, "nothing is left");
    }
}
