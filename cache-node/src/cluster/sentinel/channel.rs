//! Subscriptions of one client, and Sentinel's messages.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{
    cluster::{
        events::{Event, EventKind},
        view::View,
    },
    protocol::Reply,
};

/// Channels and patterns that one client may have.
const SUBSCRIPTIONS_MAX: usize = 256;

/// What a client has subscribed to.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    channels: BTreeSet<Vec<u8>>,
    patterns: BTreeSet<Vec<u8>>,
}

impl Subscriptions {
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty()
    }

    /// SUBSCRIBE and PSUBSCRIBE: one answer for each name.
    pub(super) fn add<'a>(&mut self, is_pattern: bool, names: impl Iterator<Item = &'a [u8]>, reply: &mut Reply) {
        for name in names {
            let count = self.channels.len() + self.patterns.len();
            let set = if is_pattern { &mut self.patterns } else { &mut self.channels };
            if count >= SUBSCRIPTIONS_MAX && !set.contains(name) {
                reply.error(&format!("ERR a client may have {SUBSCRIPTIONS_MAX} subscriptions on this port"));
                continue;
            }
            set.insert(name.to_vec());
            self.confirm(if is_pattern { "psubscribe" } else { "subscribe" }, Some(name), reply);
        }
    }

    /// UNSUBSCRIBE and PUNSUBSCRIBE; without names, all.
    pub(super) fn remove<'a>(&mut self, is_pattern: bool, names: impl Iterator<Item = &'a [u8]>, reply: &mut Reply) {
        let set = if is_pattern { &mut self.patterns } else { &mut self.channels };
        let mut names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
        if names.is_empty() {
            names = set.iter().cloned().collect();
        }
        let verb = if is_pattern { "punsubscribe" } else { "unsubscribe" };
        if names.is_empty() {
            return self.confirm(verb, None, reply);
        }
        for name in names {
            let set = if is_pattern { &mut self.patterns } else { &mut self.channels };
            set.remove(&name);
            self.confirm(verb, Some(&name), reply);
        }
    }

    fn confirm(&self, verb: &str, name: Option<&[u8]>, reply: &mut Reply) {
        reply.push(3);
        reply.bulk(verb.as_bytes());
        reply.bulk_or_null(name);
        reply.count(self.channels.len() + self.patterns.len());
    }

    /// Writes a message once for the channel and once for each pattern that fits, as Redis does.
    pub(super) fn publish(&self, channel: &str, text: &str, reply: &mut Reply) {
        if self.channels.contains(channel.as_bytes()) {
            reply.push(3);
            reply.bulk(b"message");
            reply.bulk(channel.as_bytes());
            reply.bulk(text.as_bytes());
        }
        for pattern in self.patterns.iter().filter(|pattern| crate::keyspace::glob_matches(pattern, channel.as_bytes())) {
            reply.push(4);
            reply.bulk(b"pmessage");
            reply.bulk(pattern);
            reply.bulk(channel.as_bytes());
            reply.bulk(text.as_bytes());
        }
    }
}

/// Turns the controller's events into Sentinel's messages.
#[derive(Debug)]
pub(super) struct Messages {
    /// The last known primary, whether it serves or not.
    primary: Option<SocketAddr>,
}

impl Messages {
    pub(super) fn new(view: &View) -> Messages {
        Messages { primary: view.primary_node().map(|node| node.address) }
    }

    /// The messages that follow from an event and from where the primary is now.
    pub(super) fn after(&mut self, event: Option<&Event>, view: &View) -> Vec<(&'static str, String)> {
        let mut messages = Vec::new();
        let name = &view.name;
        if let Some(event) = event {
            let channel = match event.kind {
                EventKind::FailoverStarted => Some("+odown"),
                EventKind::NodeFailed => Some("+sdown"),
                EventKind::CacheNodeReplaceComplete => Some("-sdown"),
                _ => None,
            };
            let node = event.node.as_deref().and_then(|node| view.nodes.iter().find(|seen| seen.name == node));
            if let (Some(channel), Some(node)) = (channel, node) {
                messages.push((channel, instance(name, node.address, self.primary)));
            }
        }
        // Told only once the new one serves, so that nobody is sent to a node that would refuse him.
        if let Some(now) = view.primary {
            if let Some(before) = self.primary
                && before != now
            {
                let text = format!("{name} {} {} {} {}", before.ip(), before.port(), now.ip(), now.port());
                messages.push(("+switch-master", text));
            }
            self.primary = Some(now);
        }
        messages
    }
}

/// An instance in Sentinel's words: `master NAME IP PORT`, or `slave IP:PORT IP PORT @ NAME IP PORT`.
fn instance(name: &str, address: SocketAddr, primary: Option<SocketAddr>) -> String {
    match primary {
        Some(primary) if primary != address => {
            format!("slave {address} {} {} @ {name} {} {}", address.ip(), address.port(), primary.ip(), primary.port())
        }
        _ => format!("master {name} {} {}", address.ip(), address.port()),
    }
}
