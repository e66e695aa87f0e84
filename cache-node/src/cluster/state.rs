//! What must survive the controller: who is the primary, and which processes are the cluster's.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    cluster::{process::ProcessId, report::Report, settings::Kept},
    persistence::{remove_temporaries, replace},
};

/// The form of the file; another one is not read.
const VERSION: u32 = 1;

/// The cluster as it is recorded. Whoever is named `primary` here is the only node that may be one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// 40 hexadecimal digits: the controller's run id, which Sentinel clients see.
    pub(super) id: String,
    /// Counts the changes of the primary.
    pub(super) epoch: u64,
    /// Name of the node that may serve writes.
    pub(super) primary: String,
    /// Replication id of the primary's data as it was last seen: only a replica with the same one has followed it.
    pub(super) replication_id: Option<String>,
    /// Start of the machine that the processes belong to.
    pub(super) boot_id: String,
    /// Whether the primary may acknowledge what is on its own disk alone. While it may, no replica succeeds it.
    pub(super) is_primary_alone: bool,
    pub(super) members: Vec<MemberState>,
    /// Ports of the endpoints, which stay.
    pub(super) ports: Ports,
    /// `maxmemory` of every node, in the words of the directive.
    pub(super) maxmemory: Option<String>,
    /// What else the nodes were started with. Nothing of it was recorded by an earlier version.
    #[serde(default)]
    pub(super) kept: Kept,
}

/// One node as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemberState {
    pub(super) name: String,
    pub(super) port: u16,
    /// Port of `/metrics`; none of a node that was never started with one.
    #[serde(default)]
    pub(super) metrics_port: Option<u16>,
    pub(super) process: Option<ProcessId>,
    /// Whether that process was seen to follow the primary, or to serve as one. Not said by a controller that did not record it.
    #[serde(default = "yes")]
    pub(super) has_followed: bool,
}

/// Else nobody could succeed a primary that was lost together with a controller that did not record who had followed.
fn yes() -> bool {
    true
}

/// Ports of the endpoints. 0: not chosen yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) primary: u16,
    pub(super) reader: u16,
    pub(super) sentinel: u16,
    pub(super) http: u16,
}

impl State {
    /// A cluster that has never run and has no nodes yet; the one of that name is to be its primary.
    pub(super) fn new(primary: String) -> State {
        let id = format!("{:032x}{:08x}", rand::random::<u128>(), rand::random::<u32>());
        State {
            version: VERSION,
            id,
            epoch: 0,
            primary,
            replication_id: None,
            boot_id: boot_id(),
            is_primary_alone: true,
            members: Vec::new(),
            ports: Ports::default(),
            maxmemory: None,
            kept: Kept::default(),
        }
    }

    /// Nodes whose processes run, with a controller or without.
    pub(super) fn running(&self) -> usize {
        let processes = self.members.iter().filter_map(|member| member.process);
        if self.boot_id == boot_id() { processes.filter(|process| process.is_running()).count() } else { 0 }
    }

    /// Whether a node holds the primary's history, up to its offset.
    pub(super) fn is_followed_by(&self, report: &Report) -> bool {
        self.replication_id.as_deref().is_some_and(|id| report.follows(id))
    }
}

/// The start of this machine, as the kernel names it; empty where it does not say.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The cluster's folder, held by this controller alone.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes and locks the folder. The lock ends with the process, however it ends.
    pub(super) fn open(path: &Path) -> io::Result<Folder> {
        let told = |what: &str, error: io::Error| io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()));
        fs::create_dir_all(path).map_err(|error| told("cannot make the cluster's folder", error))?;
        let path = path.canonicalize()?;
        let lock = File::create(path.join("lock")).map_err(|error| told("cannot write in the cluster's folder", error))?;
        match lock.try_lock() {
            Ok(()) => {
                // Of a controller that was killed.
                remove_temporaries(&path)?;
                Ok(Folder { path, _lock: lock })
            }
            Err(TryLockError::WouldBlock) => {
                let text =
                    format!("another controller runs this cluster: {}; see: cache-node cluster status --dir {0}", path.display());
                Err(io::Error::new(io::ErrorKind::AddrInUse, text))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What an earlier controller recorded.
    pub(super) fn load(&self) -> io::Result<Option<State>> {
        read(&self.path)
    }

    /// Leaves no cluster in the folder.
    pub(super) fn forget(&self) -> io::Result<()> {
        fs::remove_file(self.path.join(STATE_FILE))
    }

    /// Records the state. When this returns, it is on disk: no step that depends on it may be taken before.
    pub(super) fn store(&self, state: &State) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(state)?;
        replace(&self.path.join(STATE_FILE), &bytes, None)
    }
}

const STATE_FILE: &str = "state.json";

/// Reads the state of the cluster in `folder`, whose controller may be running.
pub(super) fn read(folder: &Path) -> io::Result<Option<State>> {
    let path = folder.join(STATE_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))),
    };
    let told = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()));
    let state: State = serde_json::from_slice(&bytes)
        .map_err(|error| told(format!("{error}; nothing is started, since it is not known which node has the data")))?;
    if state.version != VERSION {
        return Err(told(format!("written by another version of cache-node (form {}, this one reads {VERSION})", state.version)));
    }
    Ok(Some(state))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::{Folder, MemberState, State};

    #[test]
    fn what_is_stored_is_loaded_and_the_folder_is_held_once() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("cluster")).unwrap();
        assert_eq!(folder.load().unwrap(), None);
        let mut state = State::new("node-1".to_owned());
        state.members.push(MemberState {
            name: "node-1".to_owned(),
            port: 7000,
            metrics_port: Some(7001),
            process: None,
            has_followed: false,
        });
        assert_eq!(state.id.len(), 40);
        folder.store(&state).unwrap();
        assert_eq!(folder.load().unwrap(), Some(state));
        let error = Folder::open(&place.path().join("cluster")).unwrap_err();
        assert!(error.to_string().contains("another controller"), "{error}");
        std::fs::write(place.path().join("cluster/state.json"), "{").unwrap();
        assert!(folder.load().unwrap_err().to_string().contains("nothing is started"));
    }
}
