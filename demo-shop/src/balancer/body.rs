//! A body on its way: with a limit on its silence, and with what must live as long as it does.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::balancer::limits::BODY_STALL_TIMEOUT;

/// A streamed body that ends with an error when nothing arrives for [`BODY_STALL_TIMEOUT`].
pub(crate) struct HeldBody<B> {
    inner: B,
    stall: Pin<Box<Sleep>>,
    /// The exchange ends with its body and not with its head.
    _exchange: Option<OwnedSemaphorePermit>,
}

/// Nothing arrived for [`BODY_STALL_TIMEOUT`].
#[derive(Debug)]
struct Stalled;

impl std::fmt::Display for Stalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no part of the body arrived for {BODY_STALL_TIMEOUT:?}")
    }
}

impl std::error::Error for Stalled {}

impl<B> HeldBody<B> {
    pub(crate) fn new(inner: B, exchange: Option<OwnedSemaphorePermit>) -> Self {
        Self { inner, stall: Box::pin(tokio::time::sleep(BODY_STALL_TIMEOUT)), _exchange: exchange }
    }
}

impl<B> HttpBody for HeldBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(frame) => {
                this.stall.as_mut().reset(Instant::now() + BODY_STALL_TIMEOUT);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => match this.stall.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(Err(Stalled.into()))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
