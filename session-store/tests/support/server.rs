//! Servers of the Redis protocol: each test has its own, on a free port, and ends it.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{Engine, PATIENCE, port::free_port};

/// What a test is run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `redis-server` or `valkey-server`, a process that can be killed and stopped, with its data on disk.
    Real(Engine),
    /// Our own node, in this process.
    CacheNode,
    /// Our own node, as `redis-server` is here. The test needs `mod node_process`.
    CacheNodeProcess,
}

/// The environment variable that makes a node of a test.
pub const NODE_ARGUMENTS: &str = "SESSION_STORE_TEST_NODE_ARGUMENTS";

/// Runs the test once on every kind of backend.
pub async fn each_backend(test: impl AsyncFn(Server)) {
    on(&[Backend::Real(Engine::usual()), Backend::CacheNode], test).await;
}

/// As [`each_backend`], on both real servers: for what depends most on how they answer.
pub async fn each_server(test: impl AsyncFn(Server)) {
    on(&[Backend::Real(Engine::Redis), Backend::Real(Engine::Valkey), Backend::CacheNode], test).await;
}

/// Runs the test on every kind of backend that is a process of its own and keeps its data. The test needs `mod node_process`.
pub async fn each_process(test: impl AsyncFn(Server)) {
    on(&[Backend::Real(Engine::usual()), Backend::CacheNodeProcess], test).await;
}

/// Runs the test on a real server alone: for what no other can be made to do.
pub async fn on_redis(test: impl AsyncFn(Server)) {
    on(&[Backend::Real(Engine::usual())], test).await;
}

async fn on(backends: &[Backend], test: impl AsyncFn(Server)) {
    for &backend in backends {
        println!("on {backend:?}");
        test(Server::start(backend).await).await;
    }
}

pub struct Server {
    pub backend: Backend,
    pub port: u16,
    process: Option<Child>,
    node: Option<cache_node::Node>,
    folder: PathBuf,
}

impl Server {
    pub async fn start(backend: Backend) -> Self {
        let folder = std::env::temp_dir();
        if backend == Backend::CacheNode {
            let node = cache_node::Node::spawn(cache_node::Config::for_test()).await.unwrap();
            return Self { backend, port: node.addr().port(), process: None, node: Some(node), folder };
        }
        let port = free_port();
        let folder = folder.join(format!("session-store-test-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut server = Self { backend, port, process: None, node: None, folder };
        server.restart().await;
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts the process on the same port and the same data.
    pub async fn restart(&mut self) {
        assert!(self.process.is_none(), "it is running");
        self.process = Some(self.spawn(&[]));
        let began = Instant::now();
        while self.try_connection().await.is_err() {
            assert!(began.elapsed() < PATIENCE, "{:?} does not come up", self.backend);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// As [`restart`](Self::restart), without waiting, and slow to load what it has.
    pub fn restart_slowly(&mut self, us_per_key: u32) {
        assert!(self.process.is_none(), "it is running");
        self.process =
            Some(self.spawn(&["--key-load-delay", &us_per_key.to_string(), "--loading-process-events-interval-bytes", "1024"]));
    }

    fn spawn(&self, more: &[&str]) -> Child {
        let (port, folder) = (self.port.to_string(), self.folder.display().to_string());
        let mut arguments = vec!["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir", &folder];
        arguments.extend(["--appendonly", "yes", "--appendfsync", "no"]);
        arguments.extend(more);
        let mut command = match self.backend {
            Backend::CacheNodeProcess => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(["--exact", "node_process::this_test_is_a_node_when_it_is_started_as_one"]);
                arguments.extend(["--loglevel", "warning"]);
                command.env(NODE_ARGUMENTS, arguments.join("\n"));
                command
            }
            Backend::Real(engine) => {
                let mut command = Command::new(engine.program("server"));
                command.args(arguments).args(["--enable-debug-command", "local"]);
                command
            }
            Backend::CacheNode => panic!("a node of this process is not started anew"),
        };
        command.stdout(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{:?} is needed: {error}", command.get_program()))
    }

    async fn try_connection(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        let mut connection = redis::Client::open(self.url())?.get_multiplexed_async_connection().await?;
        redis::cmd("PING").exec_async(&mut connection).await?;
        Ok(connection)
    }

    /// A connection beside the store's.
    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        self.try_connection().await.unwrap()
    }

    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut self.connection().await).await.unwrap();
        keys.sort();
        keys
    }

    /// Ms that the only session has left.
    pub async fn session_ttl(&self) -> i64 {
        let keys = self.keys("*:session:*").await;
        assert_eq!(keys.len(), 1, "{keys:?}");
        redis::cmd("PTTL").arg(&keys[0]).query_async(&mut self.connection().await).await.unwrap()
    }

    /// Calls of each command since the last reset, those of this helper left out.
    pub async fn commands(&self) -> Vec<(String, u64)> {
        let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut self.connection().await).await.unwrap();
        let mut calls: Vec<_> = info
            .lines()
            .filter_map(|line| {
                let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
                Some((name.to_owned(), rest.split(',').next()?.parse().unwrap()))
            })
            .filter(|(name, _)| {
                // Subcommands are counted by themselves on some servers.
                !["info", "ping", "config", "client"].contains(&name.split('|').next().unwrap())
            })
            .collect();
        calls.sort();
        calls
    }

    pub async fn reset_commands(&self) {
        redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut self.connection().await).await.unwrap();
    }

    /// Waits until somebody has sent this command since the last reset.
    pub async fn until_asked(&self, command: &str) {
        let began = Instant::now();
        while !self.commands().await.iter().any(|(name, _)| name == command) {
            assert!(began.elapsed() < PATIENCE, "nobody sends {command}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub fn signal(&self, signal: &str) {
        self::signal(self.process.as_ref().unwrap().id(), signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Sends a signal. A process that is stopped does nothing more when this returns.
pub fn signal(id: u32, signal: &str) {
    let id = id.to_string();
    assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    // The threads of a process stop one by one, and on a busy machine some serve a little longer.
    while signal == "-STOP" && !is_stopped(&id) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_stopped(id: &str) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let state = |folder: PathBuf| std::fs::read_to_string(folder.join("stat")).unwrap_or_default();
    tasks.map(|task| state(task.unwrap().path())).all(|stat| stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with('T')))
}
