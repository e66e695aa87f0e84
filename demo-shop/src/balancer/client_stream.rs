//! The socket of a client, with a limit on how long it may leave what was written to it unread.
//!
//! hyper has a limit for a head that does not come, and none for an answer that is not taken: a client that asks and
//! never reads would keep its connection, and a streamed answer its place at the replica, for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// A client's connection whose writes fail after a while without progress.
pub(crate) struct ClientStream {
    inner: TcpStream,
    stall_max: Duration,
    /// Runs while the socket takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
}

impl ClientStream {
    pub(crate) fn new(inner: TcpStream, stall_max: Duration) -> Self {
        Self { inner, stall_max, stall: None }
    }

    fn bounded<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.stall_max)));
        match stall.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.bounded(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(context, slices);
        this.bounded(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::ErrorKind;
    use std::time::{Duration, Instant};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::ClientStream;

    const STALL_MAX: Duration = Duration::from_millis(300);
    /// More than the buffers of two sockets hold.
    const ANSWER: usize = 64 * 1024 * 1024;

    async fn pair() -> (ClientStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ClientStream::new(listener.accept().await.unwrap().0, STALL_MAX), client)
    }

    #[tokio::test]
    async fn a_client_that_never_reads_is_given_up() {
        let (mut stream, _client) = pair().await;
        let began = Instant::now();
        let written = tokio::time::timeout(Duration::from_secs(60), stream.write_all(&vec![b'x'; ANSWER])).await;
        assert_eq!(written.expect("it ends by itself").unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(began.elapsed() >= STALL_MAX);
    }

    /// A busy machine may make one of the pauses longer than the limit.
    #[tokio::test]
    async fn a_client_that_reads_slowly_gets_everything() {
        const TRIES_MAX: usize = 10;
        for _ in 0..TRIES_MAX {
            if reads_slowly().await == ANSWER {
                return;
            }
        }
        panic!("in {TRIES_MAX} tries no client got everything");
    }

    /// How much a client gets that pauses again and again.
    async fn reads_slowly() -> usize {
        let (mut stream, mut client) = pair().await;
        let reading = tokio::spawn(async move {
            let (mut buffer, mut total) = (vec![0; 8 * 1024 * 1024], 0);
            loop {
                // Pauses below the limit, far more of them than the limit is long.
                tokio::time::sleep(STALL_MAX / 4).await;
                let mut round = 0;
                while round < buffer.len() {
                    match client.read(&mut buffer[round..]).await {
                        Ok(0) | Err(_) => return total + round,
                        Ok(read) => round += read,
                    }
                }
                total += round;
            }
        });
        // Who is given up gets less.
        let written = stream.write_all(&vec![b'x'; ANSWER]).await;
        drop((written, stream));
        reading.await.unwrap()
    }
}
