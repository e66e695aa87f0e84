//! How a cluster is run: what the command line says, and the command line of a node that follows from it.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{logging::LogFormat, webhook::WebhookSettings};

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Durability {
    /// At once; nothing is written to disk.
    None,
    /// At once; the log reaches the disk within a second, the replicas as fast as they can.
    #[default]
    Async,
    /// Once a second node has it.
    Sync,
}

impl Durability {
    pub(super) fn name(self) -> &'static str {
        match self {
            Durability::None => "none",
            Durability::Async => "async",
            Durability::Sync => "sync",
        }
    }
}

/// Ports as they were asked for: `None` takes the recorded one, or else the default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AskedPorts {
    pub(super) primary: Option<u16>,
    pub(super) reader: Option<u16>,
    pub(super) sentinel: Option<u16>,
    pub(super) http: Option<u16>,
}

/// What stays from one start to the next: `None` where the command line does not say it, or an earlier controller did not record it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) name: Option<String>,
    pub(super) durability: Option<Durability>,
    /// Further directives for every node.
    pub(super) directives: Option<Vec<String>>,
}

/// Everything that the controller is told at its start.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) kept: Kept,
    pub(super) folder: PathBuf,
    /// `None`: as many as the cluster had, or 2.
    pub(super) replicas: Option<u8>,
    pub(super) ports: AskedPorts,
    pub(super) maxmemory: Option<String>,
    pub(super) down_after: Duration,
    /// The program of a node, and what stands before the directives.
    pub(super) program: PathBuf,
    pub(super) program_arguments: Vec<String>,
    /// Whether the program is this one, which knows `durability`.
    pub(super) is_own_program: bool,
    /// Of the controller and its nodes.
    pub(super) log_format: LogFormat,
    /// `None`: events are told by no webhook.
    pub(super) webhooks: Option<WebhookSettings>,
}

/// The name among Sentinel clients, when nobody says one (Sentinel's own examples: the same).
const NAME_DEFAULT: &str = "mymaster";

/// Directives that nodes of a cluster cannot have behind `--`, and what to do instead.
const REFUSED: [(&str, &str); 16] = [
    ("requirepass", "the controller and the replicas have no password; the nodes listen on loopback alone"),
    ("masterauth", "the nodes have no password; they listen on loopback alone"),
    ("masteruser", "the nodes have no users but the default one; they listen on loopback alone"),
    ("aclfile", "the controller and the replicas have no password; the nodes listen on loopback alone"),
    ("user", "the controller and the replicas have no password; the nodes listen on loopback alone"),
    ("acl-changes", "each node has its own users, and the next primary none of those of this one"),
    ("port", "each node has a port of its own; clients take the endpoints: --port, --reader-port"),
    ("metrics-port", "each node has one of its own, which /v1/targets tells Prometheus"),
    ("bind", "the nodes listen on loopback alone"),
    ("dir", "each node has a folder in that of the cluster: --dir in front of --"),
    ("replicaof", "the controller says who follows whom"),
    ("role-changes", "the controller says who follows whom"),
    ("slaveof", "the controller says who follows whom"),
    ("durability", "the controller has a part in it: --durability in front of --"),
    ("maxmemory", "cluster scale-memory changes it later: --maxmemory in front of --"),
    ("daemonize", "the controller would take the node for dead"),
];

/// A port that nothing can listen on: a node that follows it is fenced.
const NOWHERE: &str = "0";

impl Settings {
    /// Takes from the record what the command line leaves open, and the defaults where that has nothing either.
    pub(super) fn keep(&mut self, recorded: &Kept) {
        self.kept = Kept {
            name: Some(self.kept.name.as_ref().or(recorded.name.as_ref()).map_or(NAME_DEFAULT, String::as_str).to_owned()),
            durability: Some(self.kept.durability.or(recorded.durability).unwrap_or_default()),
            directives: Some(self.kept.directives.as_ref().or(recorded.directives.as_ref()).cloned().unwrap_or_default()),
        };
    }

    /// What of this no cluster can be, whether it is asked for or was recorded.
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.is_own_program && self.is_sync() {
            return Err("--durability sync needs nodes that hold an acknowledgement back until a second one has the write, which another \
                        --node-program does not; take async and send WAIT 1 behind each write"
                .to_owned());
        }
        match REFUSED.iter().find(|(name, _)| self.directive(name).is_some()) {
            Some((name, instead)) => Err(format!("the nodes of a cluster do not take {name} behind --: {instead}")),
            None => Ok(()),
        }
    }

    /// The cluster's name among Sentinel clients.
    pub(super) fn name(&self) -> &str {
        self.kept.name.as_deref().unwrap_or(NAME_DEFAULT)
    }

    pub(super) fn durability(&self) -> Durability {
        self.kept.durability.unwrap_or_default()
    }

    fn directives(&self) -> &[String] {
        self.kept.directives.as_deref().unwrap_or_default()
    }

    /// Whether the nodes hold acknowledgements back, so that the controller must say until when.
    pub(super) fn is_sync(&self) -> bool {
        self.durability() == Durability::Sync
    }

    /// Whether a node that starts again has all that it had written.
    pub(super) fn has_log(&self) -> bool {
        match self.directive("appendonly") {
            Some(value) => value.eq_ignore_ascii_case("yes"),
            None => self.durability() != Durability::None,
        }
    }

    /// The value of a further directive that takes one, the last when it is given again.
    pub(super) fn directive(&self, name: &str) -> Option<&str> {
        let mut found = None;
        let mut words = self.directives().iter();
        while let Some(word) = words.next() {
            let Some(word) = word.strip_prefix("--") else { continue };
            match word.split_once('=') {
                Some((given, value)) if given.eq_ignore_ascii_case(name) => found = Some(value),
                None if word.eq_ignore_ascii_case(name) => found = Some(words.next().map_or("", String::as_str)),
                _ => {}
            }
        }
        found
    }

    /// The arguments of the node that holds a snapshot to be restored: it serves all that it loads, and writes nothing. It has the
    /// further directives too, since a key or a module among them may be what reads the snapshot; what it must be stands behind them.
    pub(super) fn source_arguments(&self, port: u16, folder: &str) -> Vec<String> {
        let (host, port) = (Ipv4Addr::LOCALHOST.to_string(), port.to_string());
        let mut words = vec!["--bind", &host, "--port", &port, "--dir", folder, "--dbfilename", "dump.rdb"];
        // A limit would evict while it loads, and what is evicted would be lost without a word.
        words.extend(["--save", "", "--appendonly", "no", "--maxmemory", "0"]);
        words.extend(self.copying());
        let words = words.into_iter().map(str::to_owned);
        self.program_arguments.iter().chain(self.directives()).cloned().chain(words).collect()
    }

    /// A copy of the data must not wait for more replicas to come; ours never does.
    fn copying(&self) -> &'static [&'static str] {
        const WORDS: [&str; 4] = ["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"];
        if self.is_own_program { &WORDS[..2] } else { &WORDS }
    }

    /// The arguments of a node's process. Every node starts fenced, as a replica of nobody: it takes no write until the controller, which
    /// alone knows that no other primary lives, says `REPLICAOF NO ONE`.
    pub(super) fn node_arguments(
        &self,
        port: u16,
        metrics_port: Option<u16>,
        folder: &str,
        maxmemory: Option<&str>,
    ) -> Vec<String> {
        let host = Ipv4Addr::LOCALHOST.to_string();
        let metrics_port = metrics_port.map(|port| port.to_string());
        let port = port.to_string();
        let mut words: Vec<&str> = vec!["--bind", &host, "--port", &port, "--dir", folder, "--replicaof", &host, NOWHERE];
        words.extend(self.copying());
        // A short absence must not cost a copy of the data.
        words.extend(["--repl-backlog-size", "64mb"]);
        // Clients reach a node through the endpoints, which listen on loopback as well.
        words.extend(["--protected-mode", "no", "--save", ""]);
        words.extend(match self.durability() {
            Durability::None => ["--appendonly", "no"].as_slice(),
            Durability::Async | Durability::Sync => ["--appendonly", "yes", "--appendfsync", "everysec"].as_slice(),
        });
        if self.is_own_program {
            words.extend(["--log-format", self.log_format.name()]);
            // It would hold on one node, and be gone with the next primary. A password would keep out the controller, which has none.
            words.extend(["--acl-changes", "no"]);
            // The controller would undo it, but what the node has copied by then has taken the place of the data.
            words.extend(["--role-changes", "no"]);
            words.extend(["--durability", self.durability().name(), "--min-replicas-max-lag", "0"]);
        }
        if let Some(port) = &metrics_port {
            words.extend(["--metrics-port", port]);
        }
        if let Some(maxmemory) = maxmemory {
            words.extend(["--maxmemory", maxmemory]);
        }
        let words = words.into_iter().map(str::to_owned);
        self.program_arguments.iter().cloned().chain(words).chain(self.directives().iter().cloned()).collect()
    }
}
