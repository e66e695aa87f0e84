//! Where a node is.

use std::{fmt, path::PathBuf};

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
    #[cfg(feature = "testing")]
    Memory,
}

impl Address {
    pub(crate) fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp { host: host.into(), port }
    }

    /// `host:port` as nodes write it in their answers, an IPv6 address without brackets. No host means that of the node
    /// which answered.
    pub(crate) fn of_answer(text: &str, answered_by: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Self::of_parts(host, port.parse().ok()?, answered_by)
    }

    pub(crate) fn of_parts(host: &str, port: u16, answered_by: &Self) -> Option<Self> {
        match (host, answered_by) {
            ("" | "?", Self::Tcp { host, .. }) => Some(Self::tcp(host, port)),
            ("" | "?", _) => None,
            _ => Some(Self::tcp(host, port)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
            #[cfg(feature = "testing")]
            Self::Memory => f.write_str("memory"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn an_address_is_read_as_nodes_write_it() {
        let asked = Address::tcp("node-1", 7000);
        for (text, written) in [
            ("10.0.0.1:6379", Some("10.0.0.1:6379")),
            ("node-2:7000", Some("node-2:7000")),
            ("::1:7000", Some("[::1]:7000")),
            (":7001", Some("node-1:7001")),
            ("", None),
            ("host", None),
            ("host:", None),
            ("host:70000", None),
        ] {
            let address = Address::of_answer(text, &asked).map(|address| address.to_string());
            assert_eq!(address.as_deref(), written, "{text}");
        }
    }
}
