//! A managed cluster as processes of its own.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Instant,
};

use serde_json::Value as Json;

use super::{PATIENCE, Wire, free_port, wait_until};

/// A controller and its nodes; dropping it ends them all, those whose controller was killed too.
#[derive(Debug)]
pub struct Cluster {
    controller: Option<Child>,
    folder: tempfile::TempDir,
    /// Of the endpoints, for the first start: those that come behind it take the same ones.
    ports: [u16; 4],
    /// Of every start.
    pub arguments: Vec<String>,
    pub primary: SocketAddr,
    pub reader: SocketAddr,
    pub sentinel: SocketAddr,
    pub http: SocketAddr,
}

impl Cluster {
    /// Starts one whose nodes are `redis-server` processes, and waits until it takes writes.
    pub fn start_redis(arguments: &[&str]) -> Cluster {
        let program = "/usr/bin/redis-server";
        assert!(PathBuf::from(program).exists(), "run: apt-get install --no-install-recommends redis-server");
        let all: Vec<&str> = ["--node-program", program].iter().chain(arguments).copied().collect();
        Cluster::start(&all)
    }

    /// Starts one and waits until it takes writes.
    pub fn start(arguments: &[&str]) -> Cluster {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut cluster = Cluster {
            controller: None,
            folder: tempfile::tempdir().unwrap(),
            ports: [(); 4].map(|()| free_port()),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            primary: nowhere,
            reader: nowhere,
            sentinel: nowhere,
            http: nowhere,
        };
        cluster.start_controller();
        cluster
    }

    /// Starts a controller in the cluster's folder and waits for its ready line.
    pub fn start_controller(&mut self) {
        let mut command = self.command();
        for (option, port) in
            ["--port", "--reader-port", "--sentinel-port", "--http-port"].iter().zip(std::mem::take(&mut self.ports))
        {
            command.arg(option).arg(port.to_string());
        }
        command.args(&self.arguments);
        let mut controller = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(controller.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.controller = Some(controller);
        let address = |name: &str| -> SocketAddr {
            let (_, rest) = line.split_once(name).unwrap_or_else(|| panic!("no {name:?} in the ready line {line:?}"));
            rest.trim_start().split([' ', ',']).next().unwrap().parse().unwrap()
        };
        self.primary = address("ready on");
        self.reader = address("reader");
        self.sentinel = address("sentinel");
        self.http = address("http");
    }

    /// A command of `cache-node cluster` in this cluster's folder.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cache-node"));
        command.arg("cluster").arg("--dir").arg(self.folder());
        command
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("cluster")
    }

    pub fn kill_controller(&mut self) {
        let mut controller = self.controller.take().unwrap();
        controller.kill().unwrap();
        controller.wait().unwrap();
    }

    /// Ends the cluster as an operator does.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut controller = self.controller.take().unwrap();
        signal("TERM", controller.id());
        let started = Instant::now();
        loop {
            if let Some(status) = controller.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the controller does not end");
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// A GET on the HTTP port.
    pub fn get(&self, path: &str) -> Json {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: cluster\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// The node with this role in `/v1/nodes`, once there is one that runs.
    pub fn node(&self, role: &str) -> Node {
        let mut found = None;
        wait_until(&format!("a running {role}"), || {
            let nodes = self.get("/v1/nodes");
            let node =
                nodes["nodes"].as_array().unwrap().iter().find(|node| node["role"] == role && node["pid"].is_u64()).cloned();
            found = node;
            found.is_some()
        });
        Node::from(&found.unwrap())
    }

    pub fn nodes(&self) -> Vec<Node> {
        self.get("/v1/nodes")["nodes"].as_array().unwrap().iter().map(Node::from).collect()
    }

    /// Waits until the primary serves and every replica follows it.
    pub fn wait_whole(&self) {
        wait_until("every node serves", || self.nodes().iter().all(|node| node.state == "serving"));
    }

    /// Names of the events so far.
    pub fn events(&self) -> Vec<String> {
        let events = self.get("/v1/events");
        events["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
    }

    /// Says how often an event has happened.
    pub fn count(&self, kind: &str) -> usize {
        self.events().iter().filter(|event| *event == kind).count()
    }

    pub fn connect(&self) -> Wire {
        Wire::connect(self.primary)
    }

    /// Pids that the cluster's state has recorded.
    pub fn recorded_pids(&self) -> Vec<u32> {
        let Ok(text) = std::fs::read_to_string(self.folder().join("state.json")) else { return Vec::new() };
        let state: Json = serde_json::from_str(&text).unwrap();
        let members = state["members"].as_array().into_iter().flatten();
        members.filter_map(|member| member["process"]["pid"].as_u64()).map(|pid| pid as u32).collect()
    }

    /// The processes that run in the cluster's folder, as nodes do.
    fn pids_in_folder(&self) -> Vec<u32> {
        let folder = self.folder();
        let is_here = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|path| path.starts_with(&folder));
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        processes.filter(is_here).collect()
    }
}

/// One line of `/v1/nodes`.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub role: String,
    pub state: String,
    pub address: SocketAddr,
    pub pid: Option<u32>,
}

impl From<&Json> for Node {
    fn from(json: &Json) -> Node {
        let text = |name: &str| json[name].as_str().unwrap().to_owned();
        Node {
            name: text("name"),
            role: text("role"),
            state: text("state"),
            address: text("address").parse().unwrap(),
            pid: json["pid"].as_u64().map(|pid| pid as u32),
        }
    }
}

impl Node {
    pub fn signal(&self, name: &str) {
        signal(name, self.pid.unwrap());
    }
}

/// Sends a signal by its name; a process that is gone is fine. One that is stopped does nothing more when this returns.
pub fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).stderr(Stdio::null()).status().unwrap();
    if name == "STOP" && sent.success() {
        // Its threads stop one by one, and on a busy machine some go on for a while.
        wait_until("the process is stopped", || is_stopped(pid));
    }
}

/// Whether no thread of a process runs.
fn is_stopped(pid: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    let stats = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("stat")).unwrap_or_default());
    stats.into_iter().all(|stat| stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'X'])))
}

/// Whether a process exists and is not merely waiting to be collected.
pub fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut controller) = self.controller.take() {
            // First, so that it starts no more nodes.
            let killed = controller.kill().and_then(|()| controller.wait());
            drop(killed);
        }
        let mut pids = self.recorded_pids();
        // A node that was started just before is in no record yet.
        pids.extend(self.pids_in_folder());
        for pid in pids {
            signal("KILL", pid);
        }
    }
}
