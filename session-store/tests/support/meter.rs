//! A wire between a store and its server that counts round trips: each time something arrives from the store.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

pub struct Meter {
    url: String,
    count: Arc<AtomicU64>,
}

impl Meter {
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let count = Arc::new(AtomicU64::new(0));
        tokio::spawn({
            let count = Arc::clone(&count);
            async move {
                loop {
                    let (store, _) = listener.accept().await.unwrap();
                    let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    tokio::spawn(wire(store, server, Arc::clone(&count)));
                }
            }
        });
        Self { url, count }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Round trips since the last call.
    pub fn take(&self) -> u64 {
        self.count.swap(0, Ordering::SeqCst)
    }
}

async fn wire(store: TcpStream, server: TcpStream, count: Arc<AtomicU64>) {
    let (mut from_store, mut to_store) = store.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_store).await });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from_store.read(&mut buffer).await {
        count.fetch_add(1, Ordering::SeqCst);
        if to_server.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    back.abort();
}
