//! Snapshots: a replica writes one, it is copied into the cluster's folder, old ones go.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{
    cluster::{
        controller::Outcome,
        events::EventKind,
        limits::{CALL_MAX, SNAPSHOT_MAX, SNAPSHOTS_KEPT},
        link::{Link, LinkError},
        operation::{Desk, Progress},
        report::field,
        view::{NodeState, NodeView},
    },
    events::unix_ms,
    persistence::{copy, remove_temporaries},
};

impl Desk {
    pub(super) async fn backup(&self, keep: Option<usize>, progress: &Progress) -> Outcome {
        let outcome = self.snapshot(keep.unwrap_or(SNAPSHOTS_KEPT), progress).await;
        match &outcome {
            Ok(text) => self.events.add(EventKind::SnapshotComplete, None, text),
            Err(text) => self.events.add(EventKind::SnapshotFailed, None, text),
        }
        outcome
    }

    async fn snapshot(&self, keep: usize, progress: &Progress) -> Outcome {
        let seen = self.seen();
        // A replica, so that the primary goes on undisturbed.
        let node = seen.readers().next().or_else(|| seen.primary_node().filter(|node| node.state == NodeState::Serving));
        let node = node.ok_or("no node serves")?;
        let told = |error: LinkError| format!("{} does not take a snapshot: {error}", node.name);
        let written = self.write_snapshot(node, progress).await.map_err(told)??;
        let folder = self.folder.join("backups");
        let copied = tokio::task::spawn_blocking(move || keep_snapshot(&written, &folder, keep)).await;
        let path = copied.map_err(|error| error.to_string())?.map_err(|error| format!("cannot keep the snapshot: {error}"))?;
        Ok(format!("{} wrote {}", node.name, path.display()))
    }

    /// Lets the node write its snapshot, and gives the path of it.
    async fn write_snapshot(&self, node: &NodeView, progress: &Progress) -> Result<Result<PathBuf, String>, LinkError> {
        let mut link = Link::open(node.address).await?;
        let name = link.directive("dbfilename").await?;
        link.call(&["BGSAVE"], CALL_MAX).await?;
        let deadline = Instant::now() + SNAPSHOT_MAX;
        loop {
            let info = link.text(&["INFO", "persistence"], CALL_MAX).await?;
            let number = |name: &str| field(&info, name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            if number("rdb_bgsave_in_progress") == 0 {
                return Ok(match field(&info, "rdb_last_bgsave_status") {
                    Some("ok") => Ok(self.folder.join(&node.name).join(name)),
                    status => {
                        Err(format!("{} could not write it (rdb_last_bgsave_status:{})", node.name, status.unwrap_or_default()))
                    }
                });
            }
            if Instant::now() >= deadline {
                return Ok(Err(format!("{} did not write it within {SNAPSHOT_MAX:?}", node.name)));
            }
            let text = format!("{} writes a snapshot", node.name);
            progress.tell(number("current_save_keys_processed"), number("current_save_keys_total"), text);
            tokio::time::sleep(crate::cluster::limits::PROGRESS_PERIOD).await;
        }
    }
}

/// Copies a snapshot, whole or not at all, under a name that sorts by time, and removes the oldest above `keep`.
fn keep_snapshot(written: &Path, folder: &Path, keep: usize) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("snapshot-{}.rdb", unix_ms()));
    remove_temporaries(folder)?;
    copy(written, &path)?;
    let mut kept: Vec<PathBuf> =
        fs::read_dir(folder)?.flatten().map(|entry| entry.path()).filter(|path| is_snapshot(path)).collect();
    kept.sort();
    let old = kept.len().saturating_sub(keep.max(1));
    for path in kept.iter().take(old) {
        fs::remove_file(path)?;
    }
    Ok(path)
}

fn is_snapshot(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("snapshot-") && name.ends_with(".rdb"))
}
