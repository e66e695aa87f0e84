//! Real processes of Redis or Valkey that work together: a primary with replicas and Sentinels, or a cluster.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub use super::port::free_port;
use super::{Engine, PATIENCE};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// What the user of a shop may do: what the library needs, and nothing that reaches other users' keys, connections or scripts.
pub const RIGHTS: &str = "~shop:* -@all +@read +@write +@scripting +@connection +time -@dangerous -scan -randomkey -function \
                          -script|flush -script|kill";

/// What it also needs under Sentinels and in a cluster.
const RIGHTS_IN_FLEETS: &str = "+role +cluster|slots +cluster|info +asking +readonly";

/// How nodes are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    Plain,
    /// TLS with a client's certificate, and a user with few rights.
    TlsAndAcl,
}

/// Certificates of an authority of our own, in files.
pub struct Certificates {
    pub folder: PathBuf,
}

impl Certificates {
    pub fn make(folder: &Path) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.distinguished_name.push(DnType::CommonName, "the authority of a test");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
            let mut certificate = CertificateParams::new(names).unwrap();
            // OpenSSL takes one whose name is its issuer's for self-signed.
            certificate.distinguished_name.push(DnType::CommonName, name);
            let certificate = certificate.signed_by(&key, &authority).unwrap();
            std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self { folder: folder.to_path_buf() }
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Settings of a server.
    pub fn server_args(&self) -> Vec<String> {
        ["tls-cert-file", "server.pem", "tls-key-file", "server.key", "tls-ca-cert-file", "ca.pem"]
            .chunks_exact(2)
            .flat_map(|pair| [format!("--{}", pair[0]), self.path(pair[1])])
            .collect()
    }

    /// Settings of a client, for the query of a URL.
    pub fn query(&self) -> String {
        format!("ca={}&cert={}&key={}", self.path("ca.pem"), self.path("client.pem"), self.path("client.key"))
    }
}

pub fn new_folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("session-store-{name}-{}-{}", std::process::id(), free_port()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A server or a Sentinel.
pub struct Process {
    /// Without TLS, for the test itself.
    pub port: u16,
    /// What the store is to use.
    pub store_port: u16,
    program: String,
    pub args: Vec<String>,
    folder: PathBuf,
    child: Option<Child>,
}

impl Process {
    fn new(program: String, folder: &Path) -> Self {
        let port = free_port();
        let folder = folder.join(port.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        Self { port, store_port: port, program, args: Vec::new(), folder, child: None }
    }

    pub fn start(&mut self) {
        assert!(self.child.is_none());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).unwrap();
        let child = Command::new(&self.program)
            .args(&self.args)
            .current_dir(&self.folder)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("{} is needed: {error}", self.program)));
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            if !std::thread::panicking() {
                let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                assert!(matches!(child.try_wait(), Ok(None)), "{} had ended by itself: {log}", self.program);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn signal(&self, signal: &str) {
        super::server::signal(self.child.as_ref().unwrap().id(), signal);
    }

    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let began = Instant::now();
        loop {
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await
                && redis::cmd("PING").exec_async(&mut connection).await.is_ok()
            {
                return connection;
            }
            assert!(began.elapsed() < PATIENCE, "{} does not come up", self.program);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let began = Instant::now();
        loop {
            match command.query_async(&mut self.connection().await).await {
                Ok(answer) => return answer,
                // A Sentinel that gives a node another role has it close its connections.
                Err(error) if error.is_io_error() && began.elapsed() < PATIENCE => {}
                Err(error) => panic!("{words:?}: {error}"),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn server(engine: Engine, folder: &Path, security: Security, certificates: Option<&Certificates>) -> Process {
    let mut server = Process::new(engine.program("server"), folder);
    let acl = server.folder.join("users.acl");
    std::fs::write(
        &acl,
        format!("user default on nopass ~* &* +@all\nuser shop on >sesame resetchannels {RIGHTS} {RIGHTS_IN_FLEETS}\n"),
    )
    .unwrap();
    let port = server.port.to_string();
    server.args = [
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--repl-diskless-sync-delay",
        "0",
        "--aclfile",
    ]
    .map(str::to_owned)
    .to_vec();
    server.args.push(acl.display().to_string());
    if let (Security::TlsAndAcl, Some(certificates)) = (security, certificates) {
        server.store_port = free_port();
        server.args.extend(["--tls-port".to_owned(), server.store_port.to_string()]);
        server.args.extend(["--tls-replication", "yes"].map(str::to_owned));
        server.args.extend(certificates.server_args());
    }
    server
}

/// One node, with TLS and ACL.
pub struct Secured {
    pub node: Process,
    pub certificates: Certificates,
    folder: PathBuf,
}

impl Secured {
    pub async fn start() -> Self {
        let folder = new_folder("tls");
        let certificates = Certificates::make(&folder);
        let mut node = server(Engine::usual(), &folder, Security::TlsAndAcl, Some(&certificates));
        node.start();
        node.connection().await;
        Self { node, certificates, folder }
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        self.node.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A primary, two replicas and three Sentinels.
pub struct Sentinels {
    pub nodes: Vec<Process>,
    pub sentinels: Vec<Process>,
    pub url: String,
    folder: PathBuf,
}

impl Sentinels {
    pub async fn start(security: Security) -> Self {
        Self::start_of(Engine::usual(), security).await
    }

    pub async fn start_of(engine: Engine, security: Security) -> Self {
        let folder = new_folder("sentinels");
        let certificates = (security == Security::TlsAndAcl).then(|| Certificates::make(&folder));
        let mut nodes: Vec<_> = (0..3).map(|_| server(engine, &folder, security, certificates.as_ref())).collect();
        let primary_port = nodes[0].store_port;
        for (i, node) in nodes.iter_mut().enumerate() {
            if i > 0 {
                node.args.extend(["--replicaof".to_owned(), format!("127.0.0.1 {primary_port}")]);
            }
            node.start();
        }
        for node in &nodes[1..] {
            until(PATIENCE, "a replica is in step", async || {
                node.ask::<String>(&["INFO", "replication"]).await.contains("master_link_status:up")
            })
            .await;
        }
        let mut sentinels: Vec<_> = (0..3).map(|_| Process::new(engine.program("sentinel"), &folder)).collect();
        for sentinel in &mut sentinels {
            let mut config = format!("port {}\nbind 127.0.0.1\n", sentinel.port);
            if let Some(certificates) = &certificates {
                sentinel.store_port = free_port();
                config += &format!("tls-port {}\ntls-replication yes\n", sentinel.store_port);
                for pair in certificates.server_args().chunks_exact(2) {
                    config += &format!("{} {}\n", &pair[0][2..], pair[1]);
                }
            }
            config += &format!("sentinel monitor main 127.0.0.1 {primary_port} 2\n");
            config += "sentinel down-after-milliseconds main 700\nsentinel failover-timeout main 5000\n";
            if security == Security::TlsAndAcl {
                config += "user default on nopass ~* &* +@all\nuser watch on >er ~* &* +@all\n";
            }
            let path = sentinel.folder.join("sentinel.conf");
            std::fs::write(&path, config).unwrap();
            sentinel.args = vec![path.display().to_string()];
            sentinel.start();
        }
        for sentinel in &sentinels {
            until(PATIENCE, "the Sentinels know each other and the replicas", async || {
                let info: String = sentinel.ask(&["INFO", "sentinel"]).await;
                info.contains("slaves=2,sentinels=3")
            })
            .await;
        }
        let ports: Vec<_> = sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.store_port)).collect();
        let url = match &certificates {
            None => format!("redis+sentinel://{}/main", ports.join(",")),
            Some(certificates) => format!(
                "rediss+sentinel://shop:sesame@{}/main?sentinel_user=watch&sentinel_password=er&{}",
                ports.join(","),
                certificates.query()
            ),
        };
        Self { nodes, sentinels, url, folder }
    }

    /// The node that the Sentinels take for the primary.
    pub async fn primary(&mut self) -> &mut Process {
        let (_, port): (String, u16) = self.sentinels[0].ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]).await;
        self.nodes.iter_mut().find(|node| node.store_port == port).unwrap()
    }
}

impl Sentinels {
    /// Asks for a failover, until a Sentinel is ready for one.
    pub async fn fail_over(&self) {
        until(PATIENCE, "a Sentinel begins a failover", async || {
            let command = redis::cmd("SENTINEL").arg(&["FAILOVER", "main"]).clone();
            command.exec_async(&mut self.sentinels[1].connection().await).await.is_ok()
        })
        .await;
    }

    /// After a failover: the old primary follows the new one, as the other replica does.
    pub async fn until_settled(&self) {
        until(PATIENCE, "both others follow the primary", async || {
            let mut following = 0;
            for node in self.nodes.iter().filter(|node| node.child.is_some()) {
                following += usize::from(node.ask::<String>(&["INFO", "replication"]).await.contains("master_link_status:up"));
            }
            following == 2
        })
        .await;
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        self.sentinels.clear();
        self.nodes.clear();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Three primaries with a replica each.
pub struct Cluster {
    pub nodes: Vec<Process>,
    pub url: String,
    /// `redis-cli` or `valkey-cli`.
    cli: String,
    /// How that speaks to it: nodes of a cluster with TLS move keys over it, and need each other's port for that.
    cli_args: Vec<String>,
    folder: PathBuf,
}

/// A slot on its way from one of a cluster's nodes to another.
pub struct MovingSlot {
    slot: String,
    from: usize,
    to: usize,
}

impl Cluster {
    pub async fn start(security: Security) -> Self {
        Self::start_of(Engine::usual(), security).await
    }

    pub async fn start_of(engine: Engine, security: Security) -> Self {
        let folder = new_folder("cluster");
        let certificates = (security == Security::TlsAndAcl).then(|| Certificates::make(&folder));
        let mut nodes: Vec<_> = (0..6).map(|_| server(engine, &folder, security, certificates.as_ref())).collect();
        for node in &mut nodes {
            let settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port"];
            node.args.extend(settings.map(str::to_owned));
            node.args.push(free_port().to_string());
            if security == Security::TlsAndAcl {
                node.args.extend(["--tls-cluster", "yes"].map(str::to_owned));
            }
            node.start();
        }
        for node in &nodes {
            node.connection().await;
        }
        let cli_args = certificates.as_ref().map_or_else(Vec::new, |certificates| {
            let path = |name| certificates.path(name);
            ["--tls", "--cacert", &path("ca.pem"), "--cert", &path("client.pem"), "--key", &path("client.key")]
                .map(str::to_owned)
                .to_vec()
        });
        let mut cluster = Self { nodes, url: String::new(), cli: engine.program("cli"), cli_args, folder };
        let addresses: Vec<_> = cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.store_port)).collect();
        let mut create = vec!["create"];
        create.extend(addresses.iter().map(String::as_str));
        create.extend(["--cluster-replicas", "1"]);
        cluster.cli(&create).await;
        cluster.until_ok().await;
        let ports: Vec<_> = cluster.nodes[..3].iter().map(|node| format!("127.0.0.1:{}", node.store_port)).collect();
        cluster.url = match &certificates {
            None => format!("redis+cluster://{}", ports.join(",")),
            Some(certificates) => {
                format!("rediss+cluster://shop:sesame@{}?{}", ports.join(","), certificates.query())
            }
        };
        cluster
    }

    /// What `redis-cli --cluster` does.
    pub async fn cli(&self, words: &[&str]) {
        let output = self.try_cli(words).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    async fn try_cli(&self, words: &[&str]) -> std::process::Output {
        let run = tokio::process::Command::new(&self.cli)
            .args(&self.cli_args)
            .arg("--cluster")
            .args(words)
            .arg("--cluster-yes")
            .kill_on_drop(true)
            .output();
        tokio::time::timeout(2 * PATIENCE, run).await.unwrap_or_else(|_| panic!("{} does not end", self.cli)).unwrap()
    }

    /// Moves slots from one node to another.
    pub async fn reshard(&self, from: usize, to: usize, slots: usize) {
        let address = format!("127.0.0.1:{}", self.nodes[from].store_port);
        until(PATIENCE, "the nodes agree", async || self.try_cli(&["check", &address]).await.status.success()).await;
        let (from, to, slots) = (self.id(from).await, self.id(to).await, slots.to_string());
        self.cli(&["reshard", &address, "--cluster-from", &from, "--cluster-to", &to, "--cluster-slots", &slots]).await;
    }

    /// From now on the slot of this key is on its way from one node to another.
    pub async fn begin_move(&self, from: usize, key: &str) -> MovingSlot {
        let to = self.primaries().await.into_iter().find(|node| *node != from).unwrap();
        let slot = self.nodes[from].ask::<i64>(&["CLUSTER", "KEYSLOT", key]).await.to_string();
        let (from_id, to_id) = (self.id(from).await, self.id(to).await);
        self.nodes[to].ask::<String>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
        self.nodes[from].ask::<String>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;
        MovingSlot { slot, from, to }
    }

    /// It has arrived, with its keys.
    pub async fn end_move(&self, MovingSlot { slot, from, to }: &MovingSlot) {
        let keys = self.nodes[*from].ask::<Vec<String>>(&["CLUSTER", "GETKEYSINSLOT", slot, "1000"]).await;
        let port = self.nodes[*to].store_port.to_string();
        if !keys.is_empty() {
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys.iter().map(String::as_str));
            assert_eq!(self.nodes[*from].ask::<String>(&migrate).await, "OK");
        }
        let to_id = self.id(*to).await;
        for node in [*to, *from] {
            self.nodes[node].ask::<String>(&["CLUSTER", "SETSLOT", slot, "NODE", &to_id]).await;
        }
    }

    pub async fn until_ok(&self) {
        for node in &self.nodes {
            if node.child.is_some() {
                until(PATIENCE, "the cluster is whole", async || {
                    let info: String = node.ask(&["CLUSTER", "INFO"]).await;
                    let nodes: String = node.ask(&["CLUSTER", "NODES"]).await;
                    info.contains("cluster_state:ok") && !nodes.contains("fail?") && !nodes.contains("handshake")
                })
                .await;
            }
        }
    }

    pub async fn id(&self, node: usize) -> String {
        self.nodes[node].ask(&["CLUSTER", "MYID"]).await
    }

    /// Indices of nodes that are primaries, as they see themselves.
    pub async fn primaries(&self) -> Vec<usize> {
        let mut primaries = Vec::new();
        for (i, node) in self.nodes.iter().enumerate() {
            if node.child.is_some() && node.ask::<String>(&["INFO", "replication"]).await.contains("role:master") {
                primaries.push(i);
            }
        }
        primaries
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub async fn until(within: Duration, what: &str, is_so: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < within, "after {within:?} it is not so that {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
