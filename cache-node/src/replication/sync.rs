//! What a replica says of itself and asks for, before it is one.

use std::net::IpAddr;

/// What REPLCONF told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    pub(crate) listening_port: u16,
    pub(crate) ip_address: Option<String>,
    /// It reads a snapshot whose length is not known before.
    pub(crate) reads_eof: bool,
    /// It understands `+CONTINUE` with a name.
    pub(crate) has_psync2: bool,
    /// It confirms what it applied without being asked.
    pub(crate) confirms: bool,
    /// It is the controller of the cluster that this node belongs to.
    pub(crate) is_supervisor: bool,
}

impl Hints {
    /// The address under which others reach it.
    pub(crate) fn address(&self, peer: IpAddr) -> String {
        self.ip_address.clone().unwrap_or_else(|| peer.to_canonical().to_string())
    }
}

/// PSYNC, or SYNC of old versions.
#[derive(Clone, Debug)]
pub(crate) struct SyncRequest {
    pub(crate) hints: Hints,
    /// Name and offset from which the replica could go on.
    pub(crate) wanted: Option<(String, u64)>,
    /// SYNC knows no answer but the snapshot.
    pub(crate) is_old: bool,
}
