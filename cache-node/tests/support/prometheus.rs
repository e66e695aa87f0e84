//! The real Prometheus.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use super::{PATIENCE, free_port, http};

/// A server that scrapes each second; dropping it ends it.
#[derive(Debug)]
pub struct Prometheus {
    process: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one with these `scrape_configs` (YAML) and the rules of a file.
    pub fn start(scrape_configs: &str, rules: &Path) -> Prometheus {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: ['{}']\nscrape_configs:\n{scrape_configs}",
            rules.display()
        );
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start prometheus: {error}; run: apt-get install --no-install-recommends prometheus")
            });
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(process.try_wait().unwrap().is_none(), "prometheus ended: promtool check config says why");
            assert!(started.elapsed() < PATIENCE, "prometheus does not answer on {address}");
            thread::sleep(Duration::from_millis(20));
        }
        Prometheus { process, address, _folder: folder }
    }

    /// The `data` of an answer of its API; null while it is not ready.
    pub fn api(&self, path: &str) -> Json {
        let answer = http::get(self.address, path, &[]);
        let body: Json = serde_json::from_str(&http::unchunked(&answer)).unwrap_or_default();
        body["data"].clone()
    }

    /// The series of a query and their values now.
    pub fn query(&self, query: &str) -> Vec<(Json, f64)> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.api(&format!("/api/v1/query?query={encoded}"));
        let series = data["result"].as_array().into_iter().flatten();
        series.map(|series| (series["metric"].clone(), series["value"][1].as_str().unwrap().parse().unwrap())).collect()
    }

    /// Whether an alert of this name fires.
    pub fn fires(&self, name: &str) -> bool {
        let data = self.api("/api/v1/alerts");
        let alerts = data["alerts"].as_array().into_iter().flatten();
        alerts.filter(|alert| alert["state"] == "firing").any(|alert| alert["labels"]["alertname"] == name)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let ended = self.process.kill().and_then(|()| self.process.wait());
        drop(ended);
    }
}

/// Runs promtool, with `input` on its standard input; gives whether it is content, and all that it says.
pub fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut process = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run promtool: {error}; run: apt-get install --no-install-recommends prometheus"));
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), said)
}
