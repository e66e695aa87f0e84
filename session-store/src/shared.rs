//! What all requests of a layer share: its store and its settings, with references that each thread counts for itself.
//!
//! A request holds both for as long as it lives. Counted in one place, the cores take that cache line from each other each time: on two
//! busy ones that was two fifths of what an untouched session costs.

use std::{
    cell::Cell,
    fmt,
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

    use super::Shared;
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
}
