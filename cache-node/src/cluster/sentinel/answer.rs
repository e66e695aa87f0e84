//! The commands of a Sentinel, answered from the controller's view.

use std::sync::Arc;

use crate::{
    cluster::{
        sentinel::{
            Sentinel,
            channel::Subscriptions,
            instance::{primary_fields, replica_fields, write_instance},
        },
        view::View,
    },
    protocol::{Args, Protocol, Reply},
};

/// One client of the Sentinel port.
#[derive(Debug)]
pub(super) struct Session {
    sentinel: Sentinel,
    pub(super) subscriptions: Subscriptions,
    /// Whether the connection is to be closed once its answers are sent.
    pub(super) is_over: bool,
}

impl Session {
    pub(super) fn new(sentinel: Sentinel) -> Session {
        Session { sentinel, subscriptions: Subscriptions::default(), is_over: false }
    }

    pub(super) fn view(&self) -> Arc<View> {
        self.sentinel.desk.seen()
    }

    /// Answers one request.
    pub(super) async fn run(&mut self, args: Args<'_>, reply: &mut Reply) {
        let Some(name) = args.get(0) else { return };
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        if !self.subscriptions.is_empty() && reply.protocol() == Protocol::Resp2 {
            const ALLOWED: [&str; 6] = ["subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ping", "quit"];
            if !ALLOWED.contains(&name.as_str()) {
                return reply.error(&format!(
                    "ERR Can't execute '{name}': only (P)SUBSCRIBE / (P)UNSUBSCRIBE / PING / QUIT are allowed in this context"
                ));
            }
        }
        match name.as_str() {
            "ping" => self.ping(args, reply),
            "sentinel" => self.sentinel(args, reply).await,
            "subscribe" | "psubscribe" if args.len() > 1 => self.subscriptions.add(name == "psubscribe", args.from(1).iter(), reply),
            "unsubscribe" | "punsubscribe" => self.subscriptions.remove(name == "punsubscribe", args.from(1).iter(), reply),
            "hello" => hello(args, reply),
            "info" => reply.verbatim(&self.info()),
            "role" => {
                reply.array(2);
                reply.bulk(b"sentinel");
                reply.array(1);
                reply.bulk(self.view().name.as_bytes());
            }
            "client" if args.len() > 1 => client(args, reply),
            "command" => reply.array(0),
            "auth" => reply.error("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"),
            "quit" => {
                reply.ok();
                self.is_over = true;
            }
            "subscribe" | "psubscribe" | "client" => wrong_arity(&name, reply),
            _ => reply.error(&format!("ERR unknown command '{name}': this is a Sentinel port; the data is at the primary that SENTINEL GET-MASTER-ADDR-BY-NAME {} tells", self.view().name)),
        }
    }

    fn ping(&self, args: Args<'_>, reply: &mut Reply) {
        if !self.subscriptions.is_empty() && reply.protocol() == Protocol::Resp2 {
            reply.array(2);
            reply.bulk(b"pong");
            return reply.bulk(args.get(1).unwrap_or_default());
        }
        match args.get(1) {
            Some(text) => reply.bulk(text),
            None => reply.simple("PONG"),
        }
    }

    async fn sentinel(&self, args: Args<'_>, reply: &mut Reply) {
        let Some(verb) = args.get(1) else { return wrong_arity("sentinel", reply) };
        let verb = String::from_utf8_lossy(verb).to_ascii_lowercase();
        let (view, down_after) = (self.view(), self.sentinel.desk.settings.down_after);
        match verb.as_str() {
            "masters" => {
                reply.array(1);
                return write_instance(&primary_fields(&view, down_after), reply);
            }
            "myid" => return reply.bulk(view.id.as_bytes()),
            "help" => return help(reply),
            "get-master-addr-by-name"
            | "master"
            | "replicas"
            | "slaves"
            | "sentinels"
            | "ckquorum"
            | "failover"
            | "reset"
            | "is-master-down-by-addr" => {}
            _ => return reply.error(&format!("ERR unknown subcommand '{verb}'. Try SENTINEL HELP.")),
        }
        let Some(name) = args.get(2) else { return wrong_arity(&format!("sentinel|{verb}"), reply) };
        let is_known = name == view.name.as_bytes();
        match verb.as_str() {
            "get-master-addr-by-name" if is_known && args.len() == 3 => match view.primary_node() {
                Some(node) => {
                    reply.array(2);
                    reply.bulk(node.address.ip().to_string().as_bytes());
                    reply.bulk(node.address.port().to_string().as_bytes());
                }
                None => reply.null_array(),
            },
            "get-master-addr-by-name" if args.len() == 3 => reply.null_array(),
            "reset" => reply.flag(crate::keyspace::glob_matches(name, view.name.as_bytes())),
            "is-master-down-by-addr" => is_down(&view, args, reply),
            _ if !is_known => reply.error("ERR No such master with that name"),
            "master" => write_instance(&primary_fields(&view, down_after), reply),
            "replicas" | "slaves" => {
                let replicas: Vec<_> = view.replicas().collect();
                reply.array(replicas.len());
                for replica in replicas {
                    write_instance(&replica_fields(&view, replica, down_after), reply);
                }
            }
            // The controller is the only one: there are no others to tell of.
            "sentinels" => reply.array(0),
            "ckquorum" if view.primary.is_some() => {
                reply.simple("OK 1 usable Sentinels. Quorum and failover authorization can be reached");
            }
            "ckquorum" => reply.error("NOQUORUM the cluster has no primary at the moment"),
            "failover" => self.fail_over(reply).await,
            _ => wrong_arity(&format!("sentinel|{verb}"), reply),
        }
    }

    async fn fail_over(&self, reply: &mut Reply) {
        match self.sentinel.desk.fail_over().await {
            Some(Ok(_)) => reply.ok(),
            Some(Err(why)) => reply.error(&format!("NOGOODSLAVE {why}")),
            None => reply.error("INPROG Failover already in progress"),
        }
    }

    fn info(&self) -> String {
        let view = self.view();
        let status = if view.primary.is_some() { "ok" } else { "odown" };
        let address = view.primary_node().map_or_else(String::new, |node| node.address.to_string());
        format!(
            "# Server\r\nredis_version:{}\r\nredis_mode:sentinel\r\nprocess_id:{}\r\nrun_id:{}\r\ntcp_port:{}\r\n\r\n\
             # Sentinel\r\nsentinel_masters:1\r\nsentinel_tilt:0\r\nsentinel_running_scripts:0\r\nsentinel_scripts_queue_length:0\r\n\
             sentinel_simulate_failure_flags:0\r\nmaster0:name={},status={status},address={address},slaves={},sentinels=1\r\n",
            crate::REDIS_VERSION,
            std::process::id(),
            view.id,
            self.sentinel.address.port(),
            view.name,
            view.replicas().count(),
        )
    }
}

/// Another Sentinel's question. This one votes for nobody: it decides alone.
fn is_down(view: &View, args: Args<'_>, reply: &mut Reply) {
    let asked = (args.get(2), args.get(3));
    let is_down = view.primary.is_none()
        && view.primary_node().is_some_and(|node| {
            asked == (Some(node.address.ip().to_string().as_bytes()), Some(node.address.port().to_string().as_bytes()))
        });
    reply.array(3);
    reply.flag(is_down);
    reply.bulk(b"*");
    reply.integer(0);
}

fn hello(args: Args<'_>, reply: &mut Reply) {
    match args.get(1) {
        None => {}
        Some(b"2") => reply.set_protocol(Protocol::Resp2),
        Some(b"3") => reply.set_protocol(Protocol::Resp3),
        Some(_) => return reply.error("NOPROTO unsupported protocol version"),
    }
    let version = if reply.protocol() == Protocol::Resp3 { 3 } else { 2 };
    reply.map(7);
    for (name, value) in [("server", "redis"), ("version", crate::REDIS_VERSION)] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(version);
    reply.bulk(b"id");
    reply.integer(1);
    reply.bulk(b"mode");
    reply.bulk(b"sentinel");
    reply.bulk(b"role");
    reply.bulk(b"sentinel");
    reply.bulk(b"modules");
    reply.array(0);
}

fn client(args: Args<'_>, reply: &mut Reply) {
    let verb = String::from_utf8_lossy(args.at(1)).to_ascii_lowercase();
    match verb.as_str() {
        "setname" | "setinfo" | "no-evict" | "no-touch" => reply.ok(),
        "getname" => reply.null(),
        "id" => reply.integer(1),
        "list" => reply.verbatim(""),
        _ => reply.error(&format!("ERR unknown subcommand '{verb}'. Try CLIENT HELP.")),
    }
}

fn help(reply: &mut Reply) {
    const LINES: [&str; 10] = [
        "SENTINEL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "GET-MASTER-ADDR-BY-NAME <name>",
        "MASTERS",
        "MASTER <name>",
        "REPLICAS <name>",
        "SENTINELS <name>",
        "CKQUORUM <name>",
        "FAILOVER <name>",
        "MYID",
        "HELP",
    ];
    reply.array(LINES.len());
    for line in LINES {
        reply.simple(line);
    }
}

fn wrong_arity(name: &str, reply: &mut Reply) {
    reply.error(&format!("ERR wrong number of arguments for '{name}' command"));
}
