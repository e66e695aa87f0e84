//! The accept loop of the ports beside the data: those of the controller, and `/metrics`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long a connection that found no place may take to be told so.
const REFUSAL_MAX: Duration = Duration::from_millis(100);

/// Wait before the next accept when one failed: out of file descriptors, most likely, and a pause lets some close.
const PAUSE: Duration = Duration::from_millis(20);

/// Room for so many connections at once; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Places(Arc<Semaphore>);

impl Places {
    pub(crate) fn new(connections_max: usize) -> Places {
        Places(Arc::new(Semaphore::new(connections_max)))
    }
}

/// Serves each connection in a task of its own, as many at once as there are `places`, until the caller's task is aborted; the
/// connections end with it. One that finds no place is told `full` and closed.
pub(crate) async fn accept<Served>(
    listener: TcpListener,
    places: Places,
    full: &'static [u8],
    serve: impl Fn(TcpStream, SocketAddr) -> Served,
) where
    Served: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Finished tasks are collected as they end, or the set would grow for ever.
            Some(_) = connections.join_next() => continue,
        };
        match (accepted, Arc::clone(&places.0).try_acquire_owned()) {
            (Ok((client, peer)), Ok(place)) => {
                let served = serve(client, peer);
                connections.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            // Here and not in a task, of which there would be no limit. A new connection has room for so few bytes.
            (Ok((mut client, _)), Err(_)) => drop(timeout(REFUSAL_MAX, client.write_all(full)).await),
            (Err(error), _) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::{Places, accept};

    #[tokio::test]
    async fn one_too_many_is_told_so_and_takes_the_place_of_one_that_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, Places::new(1), b"full", |mut client, _| async move {
            client.write_all(b"in").await.unwrap();
            let left = client.read(&mut [0]).await;
            drop(left);
        }));
        let mut first = TcpStream::connect(address).await.unwrap();
        let mut said = [0; 2];
        first.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"in");
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut said = Vec::new();
        second.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"full");
        drop(first);
        loop {
            let mut next = TcpStream::connect(address).await.unwrap();
            let mut said = [0; 2];
            next.read_exact(&mut said).await.unwrap();
            if &said == b"in" {
                return;
            }
        }
    }
}
