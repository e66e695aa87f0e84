//! Where a node stands in replication, read from its INFO.

/// A node's own words about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) is_primary: bool,
    /// Port of the node that it follows.
    pub(super) primary_port: Option<u16>,
    /// Whether its link to the primary is up, which is so only after the first full copy.
    pub(super) is_link_up: bool,
    /// Whether it is receiving or loading a full copy.
    pub(super) is_syncing: bool,
    /// Whether a full copy is on its way or came to no end: what it had is gone from memory.
    pub(super) lacks_data: bool,
    /// Whether it is reading its own data at its start.
    pub(super) is_loading: bool,
    /// Names the history that `offset` counts in.
    pub(super) replication_id: String,
    /// Bytes of that history which it has applied.
    pub(super) offset: u64,
    /// Replicas attached to it.
    pub(super) replicas: usize,
}

impl Report {
    /// From the text of `INFO replication`, and of `INFO persistence` for `loading`.
    pub(super) fn parse(info: &str) -> Report {
        let field = |name: &str| field(info, name);
        let number = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok());
        let is_primary = field("role") == Some("master");
        Report {
            is_primary,
            primary_port: field("master_port").and_then(|port| port.parse().ok()),
            is_link_up: field("master_link_status") == Some("up"),
            is_syncing: field("master_sync_in_progress") == Some("1"),
            lacks_data: field("master_sync_incomplete") == Some("1"),
            is_loading: field("loading") == Some("1"),
            replication_id: field("master_replid").unwrap_or_default().to_owned(),
            offset: number(if is_primary { "master_repl_offset" } else { "slave_repl_offset" }).unwrap_or(0),
            replicas: number("connected_slaves").map_or(0, |count| count as usize),
        }
    }

    /// Whether this node holds, up to `offset`, the history of the primary with this replication id. A node whose full copy is not
    /// complete holds none.
    pub(super) fn follows(&self, replication_id: &str) -> bool {
        !self.is_primary
            && !self.is_syncing
            && !self.is_loading
            && !replication_id.is_empty()
            && self.replication_id == replication_id
    }
}

/// The value of a field of INFO.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use super::Report;

    const REPLICA: &str = "# Replication\r\nrole:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:7001\r\nmaster_link_status:up\r\n\
        master_sync_in_progress:0\r\nslave_repl_offset:990\r\nconnected_slaves:0\r\nmaster_replid:aa\r\nmaster_repl_offset:1000\r\n";

    #[test]
    fn a_replica_counts_what_it_has_applied() {
        let report = Report::parse(REPLICA);
        assert_eq!((report.offset, report.primary_port, report.is_link_up), (990, Some(7001), true));
        assert!(report.follows("aa") && !report.follows("bb"));
    }

    #[test]
    fn half_a_copy_is_no_copy() {
        let syncing = REPLICA.replace("in_progress:0", "in_progress:1");
        assert!(!Report::parse(&syncing).follows("aa"));
        assert!(!Report::parse("role:master\r\nmaster_replid:aa\r\nmaster_repl_offset:5\r\n").follows("aa"));
        assert!(!Report::parse("").follows(""));
    }
}
