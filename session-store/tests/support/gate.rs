//! A primary, and a replica that hears of it through a gate: while it is shut, the replica serves what it had.

use std::path::PathBuf;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use super::{
    Engine, PATIENCE,
    fleet::{Process, Security, new_folder, server, until},
};

pub struct Pair {
    pub primary: Process,
    pub replica: Process,
    open: watch::Sender<bool>,
    folder: PathBuf,
}

impl Pair {
    pub async fn start() -> Self {
        let folder = new_folder("pair");
        let [mut primary, mut replica] = [(); 2].map(|()| server(Engine::usual(), &folder, Security::Plain, None));
        primary.start();
        primary.connection().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (gate, port) = (listener.local_addr().unwrap().port(), primary.port);
        let open = watch::Sender::new(true);
        let is_open = open.subscribe();
        tokio::spawn(async move {
            while let Ok((replica, _)) = listener.accept().await {
                let primary = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (from_replica, to_replica) = replica.into_split();
                let (from_primary, to_primary) = primary.into_split();
                tokio::spawn(pass(from_replica, to_primary, is_open.clone()));
                tokio::spawn(pass(from_primary, to_replica, is_open.clone()));
            }
        });
        replica.args.extend(["--replicaof".to_owned(), format!("127.0.0.1 {gate}")]);
        replica.start();
        let pair = Self { primary, replica, open, folder };
        pair.until_in_step().await;
        pair
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}?reader=127.0.0.1:{}", self.primary.port, self.replica.port)
    }

    pub fn shut(&self) {
        self.open.send_replace(false);
    }

    pub async fn open(&self) {
        self.open.send_replace(true);
        self.until_in_step().await;
    }

    /// The replica has all that the primary has.
    pub async fn until_in_step(&self) {
        until(PATIENCE, "the replica is in step", async || {
            let (primary, replica) = (
                self.primary.ask::<String>(&["INFO", "replication"]).await,
                self.replica.ask::<String>(&["INFO", "replication"]).await,
            );
            let field = |info: &str, name: &str| {
                info.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
            };
            replica.contains("master_link_status:up")
                && field(&primary, "master_repl_offset:") == field(&replica, "slave_repl_offset:")
        })
        .await;
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.replica.kill();
        self.primary.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut is_open: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if is_open.wait_for(|is_open| *is_open).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
