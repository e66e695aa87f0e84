//! What belongs to one request, and work of it that is done whether or not somebody waits for it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Extensions;
use tower_sessions::Session;

#[cfg(feature = "tower-sessions-014")]
use crate::tower_sessions_014::Beside;
use crate::{
    Cart, StoreError,
    unit_of_work::{Outcome, Rest, UnitOfWork, at_hand},
};

/// References to a unit of work that the scope itself holds: its own, and that of the handle which the unit holds.
const OWN_REFERENCES: usize = 2;

/// The handles and the unit of a request. They hold each other; the end of the scope takes them apart.
pub(crate) struct RequestScope {
    /// `None` while the thread that runs the handler has it.
    unit: Option<Arc<UnitOfWork>>,
    #[cfg(feature = "tower-sessions-014")]
    beside: Option<Beside>,
}

impl RequestScope {
    /// Gives the request what its handlers take.
    // Each clone of a handle, and each lock, takes some ns of every request: the handle is cloned once, and lies where the unit's state does.
    pub(crate) fn begin(session: Session, unit: Arc<UnitOfWork>, extensions: &mut Extensions) -> Self {
        #[cfg(feature = "tower-sessions-014")]
        let beside = unit.settings.gives_014.then(|| Beside::new(&session));
        extensions.insert(session.clone());
        extensions.insert(Cart::new(Arc::clone(&unit)));
        #[cfg(feature = "tower-sessions-014")]
        if let Some(beside) = &beside {
            beside.give(extensions);
            unit.attach_other(beside.handle());
        }
        unit.attach(session);
        Self {
            unit: Some(unit),
            #[cfg(feature = "tower-sessions-014")]
            beside,
        }
    }

    /// Not to be asked by what runs [at hand](Self::at_hand).
    pub(crate) fn unit(&self) -> &Arc<UnitOfWork> {
        self.unit.as_ref().expect("no handler runs that borrows its scope")
    }

    /// Runs what belongs to this request.
    pub(crate) fn at_hand<T>(&mut self, run: impl FnOnce() -> T) -> T {
        at_hand(&mut self.unit, run)
    }

    /// Whether somebody besides the layer still has a handle: a body that is to be streamed, an upgraded connection, a task.
    pub(crate) fn is_shared(&self) -> bool {
        #[cfg(feature = "tower-sessions-014")]
        if let Some(beside) = &self.beside {
            // It has a handle of ours too.
            return beside.is_shared() || Arc::strong_count(self.unit()) > OWN_REFERENCES + 1;
        }
        Arc::strong_count(self.unit()) > OWN_REFERENCES
    }

    /// What is left to do when the handler has answered; `is_shared`: whether it [is](Self::is_shared).
    pub(crate) fn rest(&self, is_shared: bool) -> Rest {
        if self.has_news() { Rest::Commit } else { self.unit().rest(is_shared) }
    }

    /// Commits what the request changed. After a server error only a logout counts.
    pub(crate) async fn finish(&self, server_error: bool) -> Outcome {
        if !server_error && let Err(error) = self.merge().await {
            return self.unit().outcome(Some(error));
        }
        Arc::clone(self.unit()).finish(server_error).await
    }

    /// Commits what was changed after the head of the answer was sent; an error if the client must not believe that it was
    /// done.
    pub(crate) async fn finish_late(&self, is_safe: bool) -> Option<StoreError> {
        match self.merge().await {
            Ok(()) => Arc::clone(self.unit()).finish_late(is_safe).await,
            Err(error) => Some(error),
        }
    }

    /// Whether something was changed through the other version's handle.
    fn has_news(&self) -> bool {
        #[cfg(feature = "tower-sessions-014")]
        return self.beside.as_ref().is_some_and(Beside::is_modified);
        #[cfg(not(feature = "tower-sessions-014"))]
        false
    }

    #[cfg_attr(not(feature = "tower-sessions-014"), allow(clippy::unused_async, reason = "there is nothing to merge"))]
    async fn merge(&self) -> Result<(), StoreError> {
        #[cfg(feature = "tower-sessions-014")]
        if let Some(beside) = &self.beside {
            // Either of the two handles may be kept locked.
            Box::pin(self.unit().within(beside.merge())).await??;
        }
        Ok(())
    }
}

impl Drop for RequestScope {
    fn drop(&mut self) {
        // A handle in it would have a reference too.
        if let Some(unit) = self.unit.as_ref().filter(|unit| Arc::strong_count(unit) > 1) {
            unit.release();
        }
    }
}

/// A commit, which goes on in a task of its own when nobody waits for it any more, because the client went away. Its length
/// is bounded by the deadline of the store's operations, their number by that of the requests.
pub(crate) struct Detached<T: Send + 'static>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T: Send + 'static> Detached<T> {
    pub(crate) fn new(commit: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Box::pin(commit)))
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        let future = self.0.as_mut().expect("a commit is polled until it is done");
        let outcome = ready!(future.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(outcome)
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        if let Some(commit) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(commit);
        }
    }
}
