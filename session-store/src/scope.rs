//! What belongs to one request, and work of it that is done whether or not somebody waits for it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tower_sessions::Session;

use crate::unit_of_work::UnitOfWork;

/// References to a unit of work that the scope itself holds: its own, its handle's, and that of the handle which the unit holds.
const OWN_REFERENCES: usize = 3;

/// The handle and the unit of a request. They hold each other; the end of the scope takes them apart.
pub(crate) struct RequestScope {
    pub(crate) session: Session,
    pub(crate) unit: Arc<UnitOfWork>,
}

impl RequestScope {
    /// Whether somebody besides the layer still has a handle: a body that is to be streamed, an upgraded connection, a task.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.unit) > OWN_REFERENCES
    }
}

impl Drop for RequestScope {
    fn drop(&mut self) {
        self.unit.release();
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
