//! Directives of the append-only log.

use crate::Config;

/// When the log is brought to disk: `appendfsync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppendFsync {
    /// Before a write is acknowledged.
    Always,
    /// Once a second.
    EverySecond,
    /// When the system likes.
    No,
}

impl AppendFsync {
    pub(crate) const NAMES: [(&'static str, AppendFsync); 3] =
        [("always", AppendFsync::Always), ("everysec", AppendFsync::EverySecond), ("no", AppendFsync::No)];

    pub(crate) fn parse(name: &str) -> Option<AppendFsync> {
        AppendFsync::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    pub(crate) fn name(self) -> &'static str {
        AppendFsync::NAMES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// What an acknowledgement promises: `durability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DurabilityMode {
    /// Nothing: the log is written and never waited for.
    None,
    /// What `appendfsync` says: the death of the machine may take the last second, nothing with `always`.
    Async,
    /// The write is on disk or on a second node.
    Sync,
}

impl DurabilityMode {
    pub(crate) const NAMES: [(&'static str, DurabilityMode); 3] =
        [("none", DurabilityMode::None), ("async", DurabilityMode::Async), ("sync", DurabilityMode::Sync)];

    pub(crate) fn parse(name: &str) -> Option<DurabilityMode> {
        DurabilityMode::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    pub(crate) fn name(self) -> &'static str {
        DurabilityMode::NAMES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// Where the log lies and how it is kept.
#[derive(Clone, Debug)]
pub(crate) struct AofConfig {
    pub(crate) dirname: String,
    pub(crate) filename: String,
    pub(crate) fsync: AppendFsync,
    pub(crate) durability: DurabilityMode,
    /// Growth since the last rewrite, in percent, after which the next one begins; 0: never by itself.
    pub(crate) rewrite_percentage: u32,
    /// Bytes below which no rewrite begins by itself.
    pub(crate) rewrite_min_bytes: u64,
    pub(crate) has_rdb_preamble: bool,
    pub(crate) loads_truncated: bool,
    pub(crate) no_fsync_on_rewrite: bool,
}

impl Default for AofConfig {
    fn default() -> Self {
        AofConfig {
            dirname: "appendonlydir".to_owned(),
            filename: "appendonly.aof".to_owned(),
            fsync: AppendFsync::EverySecond,
            durability: DurabilityMode::Async,
            rewrite_percentage: 100,
            rewrite_min_bytes: 64 * 1024 * 1024,
            has_rdb_preamble: true,
            loads_truncated: true,
            no_fsync_on_rewrite: false,
        }
    }
}

impl AofConfig {
    /// Whether every batch is brought to disk before its replies. `has_second_node`: `durability sync` has another place to be safe.
    pub(crate) fn syncs_each_batch(&self, has_second_node: bool) -> bool {
        match self.durability {
            DurabilityMode::None => false,
            DurabilityMode::Sync if !has_second_node => true,
            DurabilityMode::Async | DurabilityMode::Sync => self.fsync == AppendFsync::Always,
        }
    }

    /// Whether it is brought to disk once a second.
    pub(crate) fn syncs_every_second(&self, has_second_node: bool) -> bool {
        let follows_directive = self.durability != DurabilityMode::None && !self.syncs_each_batch(has_second_node);
        follows_directive && self.fsync == AppendFsync::EverySecond
    }
}

impl Config {
    /// Whether `durability sync` means a replica for certain: where `min-replicas-to-write` asks for one, a copy on this node's own disk
    /// is not enough at any moment, since a replica that takes over would lack it.
    pub(crate) fn waits_for_replica(&self) -> bool {
        self.aof.durability == DurabilityMode::Sync && self.min_replicas_to_write > 0
    }
}
