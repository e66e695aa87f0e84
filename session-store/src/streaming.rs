//! Changes that are made while the body of an answer is sent.
//!
//! The answer's head is gone then, and with it the cookie: what is changed can be committed to the session that there was, a new
//! one or a new id cannot be given out.

use std::{
    any::Any,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum_core::{Error, body::Body};
use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::{
    StoreError,
    scope::{Detached, RequestScope},
    unit_of_work::Rest,
};

/// Commits once more at the end of the body. Only a body of axum's type is followed: of another one the layer does not know
/// how to make such a one. `is_told`: the head says already that something was not committed.
pub(crate) fn follow<B: 'static>(response: Response<B>, scope: RequestScope, is_safe: bool, is_told: bool) -> Response<B> {
    scope.unit().answered();
    response.map(|body| {
        let mut body = Some(body);
        if let Some(slot) = (&mut body as &mut dyn Any).downcast_mut::<Option<Body>>() {
            *slot = slot
                .take()
                .map(|body| Body::new(Followed { body, end: End::Open(Open { scope: Some(scope), is_safe, is_told }) }));
        }
        body.expect("it is put back above")
    })
}

pin_project! {
    struct Followed {
        #[pin]
        body: Body,
        end: End,
    }
}

enum End {
    Open(Open),
    Commit(Detached<Option<StoreError>>),
    Done,
}

/// Until the body has ended, or nobody wants it any more.
struct Open {
    scope: Option<RequestScope>,
    is_safe: bool,
    is_told: bool,
}

impl Open {
    fn commit(&mut self) -> Option<Detached<Option<StoreError>>> {
        let (scope, is_safe, is_told) = (self.scope.take()?, self.is_safe, self.is_told);
        if scope.rest(scope.is_shared()) != Rest::Commit {
            return None;
        }
        Some(Detached::new(async move { scope.finish_late(is_safe).await.filter(|_| !is_told) }))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // The client went away, or had what it wanted: the commit is made all the same.
        drop(self.commit());
    }
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut this = self.project();
        loop {
            match this.end {
                End::Open(open) => match ready!(this.body.as_mut().poll_frame(cx)) {
                    Some(frame) => return Poll::Ready(Some(frame)),
                    None => *this.end = open.commit().map_or(End::Done, End::Commit),
                },
                End::Commit(commit) => {
                    let failure = ready!(commit.poll(cx));
                    *this.end = End::Done;
                    // The client sees that the answer is not whole.
                    return Poll::Ready(failure.map(|error| Err(Error::new(error))));
                }
                End::Done => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, End::Done) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
