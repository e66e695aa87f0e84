//! Restoring: a node of its own loads the file, and the primary copies from it. A file that cannot be loaded changes nothing.

use std::{
    fs, io,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Instant,
};

use rustix::process::Signal;
use tokio::time::sleep;

use crate::cluster::{
    controller::{Outcome, Task},
    events::EventKind,
    limits::{CALL_MAX, PROGRESS_PERIOD, SYNC_MAX},
    link::{Link, LinkError},
    operation::{Desk, Progress},
    port::free_port,
    process::{NodeProcess, kill_strays},
    report::field,
    view::View,
};

/// Where a restore works, in the cluster's folder.
const FOLDER: &str = "restore";

/// The steps that are told: loading, copying, replicas.
const STEPS: u64 = 3;

impl Desk {
    pub(super) async fn restore(&self, file: &Path, progress: &Progress) -> Outcome {
        let outcome = self.replace_data(file, progress).await;
        match &outcome {
            Ok(text) => self.events.add(EventKind::RestoreComplete, None, text),
            Err(text) => self.events.add(EventKind::RestoreFailed, None, text),
        }
        outcome
    }

    async fn replace_data(&self, file: &Path, progress: &Progress) -> Outcome {
        check(file, self.settings.is_own_program)?;
        if self.seen().primary.is_none() {
            return Err("the cluster has no primary at the moment".to_owned());
        }
        let folder = self.folder.join(FOLDER);
        let copied = prepare(file.to_owned(), folder.clone()).await;
        copied.map_err(|error| format!("cannot copy {} into {}: {error}", file.display(), folder.display()))?;
        let source = self.start_source(&folder).map_err(|error| format!("cannot start a node for the file: {error}"))?;
        let outcome = self.copy(&source, progress).await;
        source.process.kill().await;
        if outcome.is_err() {
            // The primary would wait for the node that is gone.
            let ended = self.order(Task::EndCopy).await;
            drop(ended);
        }
        let log = folder.join("node.log");
        match outcome {
            Ok(()) => {
                if let Err(error) = fs::remove_dir_all(&folder) {
                    tracing::warn!(%error, "cannot remove {}", folder.display());
                }
                Ok(format!("the data is now that of {}", file.display()))
            }
            Err(text) => Err(format!("{text}; see {}", log.display())),
        }
    }

    fn start_source(&self, folder: &Path) -> io::Result<Source> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let folder_text = folder.to_str().ok_or(io::ErrorKind::InvalidInput)?;
        let arguments = self.settings.source_arguments(address.port(), folder_text);
        Ok(Source { address, process: NodeProcess::start(&self.settings.program, &arguments, folder)? })
    }

    async fn copy(&self, source: &Source, progress: &Progress) -> Result<(), String> {
        let Source { address, process } = source;
        tokio::select! {
            () = process.ended() => return Err("the file cannot be loaded; nothing was changed".to_owned()),
            loaded = loaded(*address, progress) => loaded?,
        }
        progress.tell(1, STEPS, "the primary copies the data");
        let epoch = self.seen().epoch;
        self.order(Task::CopyFrom(*address)).await?;
        let is_over = |view: &View| view.primary.is_some() || view.epoch != epoch;
        tokio::select! {
            waited = self.wait("the primary has the data", SYNC_MAX, is_over, |_| {}) => waited?,
            () = process.ended() => return Err("the node with the file's data ended; the old data is put back".to_owned()),
        }
        if self.seen().epoch != epoch {
            return Err("the primary was lost while it copied; restore again".to_owned());
        }
        let tell = |view: &View| {
            progress.tell(2, STEPS, format!("{} of {} replicas have it", view.readers().count(), view.replicas().count()));
        };
        self.wait("the replicas have the data", SYNC_MAX, |view| view.readers().count() == view.replicas().count(), tell).await
    }
}

/// The node that loads the file. Unlike those of the cluster it goes with the restore, which the end of the controller may cut off.
struct Source {
    address: SocketAddr,
    process: NodeProcess,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.process.signal(Signal::KILL);
    }
}

/// Ends and removes what a restore left behind whose controller was killed. The primary sees for itself whether it has all of the data.
pub(in crate::cluster) async fn end_former(folder: &Path) {
    let folder = folder.join(FOLDER);
    kill_strays(&folder, None).await;
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "cannot remove {}", folder.display());
        }
        _ => {}
    }
}

/// Waits until the node has read the file.
async fn loaded(source: SocketAddr, progress: &Progress) -> Result<(), String> {
    let deadline = Instant::now() + SYNC_MAX;
    while Instant::now() < deadline {
        match percent_loaded(source).await {
            Ok(None) => return Ok(()),
            Ok(Some(percent)) => progress.tell(0, STEPS, format!("the file is loaded: {percent} %")),
            // It is not there yet.
            Err(_) => progress.tell(0, STEPS, "a node for the file starts"),
        }
        sleep(PROGRESS_PERIOD).await;
    }
    Err(format!("the file was not loaded within {SYNC_MAX:?}; nothing was changed"))
}

/// How much is loaded; `None` when all is.
async fn percent_loaded(source: SocketAddr) -> Result<Option<String>, LinkError> {
    let mut link = Link::open(source).await?;
    let info = link.text(&["INFO", "persistence"], CALL_MAX).await?;
    let is_loading = field(&info, "loading") == Some("1");
    Ok(is_loading.then(|| field(&info, "loading_loaded_perc").unwrap_or("0").to_owned()))
}

/// What can be seen of a file without loading it. Our own nodes read encrypted ones too.
fn check(file: &Path, is_own_program: bool) -> Result<(), String> {
    let mut magic = [0; 6];
    let read = fs::File::open(file).and_then(|mut opened| opened.read_exact(&mut magic));
    match read {
        Ok(()) if is_own_program && magic == *b"CNSEAL" => Ok(()),
        Ok(()) if magic.starts_with(b"REDIS") || magic == *b"VALKEY" => Ok(()),
        Ok(()) => Err(format!("{} is not a snapshot in Redis's format (RDB)", file.display())),
        Err(error) => Err(format!("cannot read {}: {error}", file.display())),
    }
}

async fn prepare(file: PathBuf, folder: PathBuf) -> io::Result<()> {
    let prepared = tokio::task::spawn_blocking(move || {
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        fs::copy(&file, folder.join("dump.rdb")).map(drop)
    });
    prepared.await.map_err(io::Error::other)?
}
