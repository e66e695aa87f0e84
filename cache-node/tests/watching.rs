//! The files of `watching/`, with the real Prometheus: rules, scrapes, service discovery, an alert that fires, a dashboard whose figures exist.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde_json::Value as Json;
use support::{
    Cluster, Value, Wire, http,
    prometheus::{Prometheus, promtool},
    wait_until, watched,
};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("watching").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

/// The names of metrics in a text of `/metrics`, those of families included.
fn names(metrics: &str) -> BTreeSet<String> {
    let series = metrics.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split([' ', '{']).next());
    let families = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    series.chain(families).map(str::to_owned).collect()
}

/// The names of our metrics in a text with queries.
fn asked(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let ours = ["cache_node_", "cache_cluster_", "process_"];
    words.filter(|word| ours.iter().any(|prefix| word.starts_with(prefix))).map(str::to_owned).collect()
}

#[test]
fn promtool_takes_rules_tests_and_configuration() {
    let (is_good, said) = promtool(&["check", "rules", file("alerts.yml").to_str().unwrap()], "");
    assert!(is_good && said.contains("SUCCESS"), "{said}");
    let (is_good, said) = promtool(&["test", "rules", file("alerts.test.yml").to_str().unwrap()], "");
    assert!(is_good, "{said}");
    let (is_good, said) = promtool(&["check", "config", file("prometheus.yml").to_str().unwrap()], "");
    assert!(is_good, "{said}");
    // Every rule is one that somebody can act on.
    let rules = text("alerts.yml");
    let count = |word: &str| rules.matches(word).count();
    assert!(count("- alert:") >= 15);
    assert_eq!([count("severity:"), count("summary:"), count("description:")], [count("- alert:"); 3]);
}

#[test]
fn promtool_takes_the_names_and_units_of_the_metrics() {
    let (node, metrics) = watched(&[("maxmemory", "64mb")]);
    let mut wire = Wire::connect(node.addr());
    wire.run("SET k v");
    wire.run("GET k");
    let (_, said) = promtool(&["check", "metrics"], &http::get(metrics, "/metrics", &[]).body);
    // max_fds and the like are named by Prometheus itself; a linter that finds nothing says nothing.
    assert_eq!(said, "");
}

#[test]
fn an_alert_fires_when_memory_passes_eighty_percent() {
    let (node, metrics) = watched(&[("maxmemory", "8mb")]);
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("alerts.yml");
    // As they are, but at once.
    let at_once: Vec<String> =
        text("alerts.yml").lines().filter(|line| !line.trim_start().starts_with("for:")).map(str::to_owned).collect();
    std::fs::write(&rules, at_once.join("\n")).unwrap();
    let prometheus =
        Prometheus::start(&format!("  - {{ job_name: cache-node, static_configs: [{{ targets: ['{metrics}'] }}] }}\n"), &rules);
    let mut wire = Wire::connect(node.addr());
    let mut fill = |from: usize, until: f64| {
        let mut number = from;
        while memory(&mut wire) < until {
            assert_eq!(wire.run(&format!("SET k{number} {}", "v".repeat(50_000))), Value::Simple("OK".into()));
            number += 1;
        }
        number
    };
    let number = fill(0, 0.7);
    wait_until("a scrape at 70 %", || prometheus.query("cache_node_memory_used_ratio > 0.7").len() == 1);
    wait_until("it is up", || prometheus.query("up == 1").len() == 1);
    // Two evaluations later there is still nothing to tell.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(!prometheus.fires("CacheNodeMemoryHigh"));
    fill(number, 0.85);
    wait_until("the alert fires", || prometheus.fires("CacheNodeMemoryHigh"));
    // A scrape that a busy machine was too late for is mended by the next one.
    wait_until("the node is not down", || !prometheus.fires("CacheNodeDown"));
    // The figures came in the form that keeps their types.
    let types = prometheus.api("/api/v1/targets/metadata?metric=cache_node_evicted_keys");
    assert_eq!(types[0]["type"], "counter", "{types}");
    let histogram = prometheus.api("/api/v1/targets/metadata?metric=cache_node_command_duration_seconds");
    assert_eq!((&histogram[0]["type"], &histogram[0]["unit"]), (&Json::from("histogram"), &Json::from("seconds")));
}

fn memory(wire: &mut Wire) -> f64 {
    let Value::Bulk(text) = wire.run("INFO memory") else { panic!("INFO is a text") };
    let text = String::from_utf8(text).unwrap();
    let field = |name: &str| -> f64 {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().parse().unwrap()
    };
    field("used_memory") / field("maxmemory")
}

#[test]
fn prometheus_finds_all_nodes_of_a_cluster() {
    // Only the node that is killed is to fail, however busy the machine is.
    let cluster = Cluster::start(&["--replicas", "1", "--down-after", "60000"]);
    cluster.wait_whole();
    let job = format!(
        "  - {{ job_name: cache-cluster, http_sd_configs: [{{ url: 'http://{}/v1/targets', refresh_interval: 1s }}] }}\n",
        cluster.http
    );
    let prometheus = Prometheus::start(&job, &file("alerts.yml"));
    wait_until("all three are scraped", || prometheus.query("up == 1").len() == 3);
    let mut seen: Vec<String> =
        prometheus.query("up").iter().map(|(labels, _)| labels["node"].as_str().unwrap().to_owned()).collect();
    seen.sort();
    assert_eq!(seen, ["controller", "node-1", "node-2"]);
    wait_until("one primary and one replica", || {
        let roles = prometheus.query("cache_node_is_primary");
        roles.len() == 2 && roles.iter().map(|(_, value)| value).sum::<f64>() == 1.0
    });
    wait_until("two nodes serve", || prometheus.query("cache_cluster_nodes_serving == 2").len() == 1);
    wait_until("no failover is counted", || prometheus.query("cache_cluster_failovers_total == 0").len() == 1);

    // Addresses of metrics are told, and stay when a node is replaced.
    let nodes = cluster.get("/v1/nodes");
    let told = |nodes: &Json| -> BTreeMap<String, String> {
        let nodes = nodes["nodes"].as_array().unwrap();
        nodes.iter().map(|node| (node["name"].to_string(), node["metrics"].as_str().unwrap().to_owned())).collect()
    };
    let before = told(&nodes);
    for address in before.values() {
        assert_eq!(http::get(address.parse().unwrap(), "/readyz", &[]).status, 200, "{address}");
    }
    cluster.node("primary").signal("KILL");
    wait_until("a failover and a replacement", || {
        cluster.count("FailoverComplete") == 1 && cluster.count("CacheNodeReplaceComplete") == 1
    });
    wait_until("they are counted", || {
        let value = |query: &str| prometheus.query(query).first().map(|(_, value)| *value);
        value("cache_cluster_failovers_total") == Some(1.0) && value("cache_cluster_node_replacements_total") == Some(1.0)
    });
    assert_eq!(told(&cluster.get("/v1/nodes")), before);
    let controller = http::get(cluster.http, "/metrics", &["Accept: application/openmetrics-text; version=1.0.0"]);
    assert!(
        controller.body.ends_with("# EOF\n") && controller.body.contains("cache_cluster_events_total{kind=\"NodeFailed\"} 1")
    );
    let (_, said) = promtool(&["check", "metrics"], &http::get(cluster.http, "/metrics", &[]).body);
    assert_eq!(said, "");

    // What rules, dashboard and page speak of is there.
    let node = http::get(before.values().next().unwrap().parse().unwrap(), "/metrics", &[]).body;
    let known: BTreeSet<String> = names(&node).union(&names(&http::get(cluster.http, "/metrics", &[]).body)).cloned().collect();
    // Those that a node has only as a replica, or after a snapshot.
    let at_times = [
        "cache_node_primary_link_up",
        "cache_node_primary_link_down_seconds",
        "cache_node_replication_lag_seconds",
        "cache_node_rdb_last_save_duration_seconds",
    ];
    let (limited, metrics) = watched(&[("maxmemory", "64mb")]);
    let mut wire = Wire::connect(limited.addr());
    wire.run("GET k");
    let known: BTreeSet<String> = known.union(&names(&http::get(metrics, "/metrics", &[]).body)).cloned().collect();
    for name in ["alerts.yml", "dashboard.json", "metrics.md", "events.md"] {
        let unknown: Vec<String> =
            asked(&text(name)).into_iter().filter(|word| !known.contains(word) && !at_times.contains(&word.as_str())).collect();
        assert!(unknown.is_empty(), "{name} speaks of {unknown:?}");
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_can_load() {
    let dashboard: Json = serde_json::from_str(&text("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 20);
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "an id stands twice");
    assert!(dashboard["uid"].is_string() && dashboard["schemaVersion"].is_u64());
    let variables: BTreeSet<&str> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    let (_node, metrics) = watched(&[]);
    let prometheus = Prometheus::start(
        &format!("  - {{ job_name: cache-node, static_configs: [{{ targets: ['{metrics}'] }}] }}\n"),
        &file("alerts.yml"),
    );
    wait_until("a scrape", || prometheus.query("up == 1").len() == 1);
    let mut taken: Vec<(u64, u64, u64, u64)> = Vec::new();
    for panel in panels {
        let grid = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        let (x, y, w, h) = (grid("x"), grid("y"), grid("w"), grid("h"));
        assert!(x + w <= 24, "{} is too wide", panel["title"]);
        let overlaps = taken.iter().any(|(ox, oy, ow, oh)| x < ox + ow && ox < &(x + w) && y < oy + oh && oy < &(y + h));
        assert!(!overlaps, "{} lies over another panel", panel["title"]);
        taken.push((x, y, w, h));
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            for variable in query.split('$').skip(1) {
                let name = variable.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next().unwrap();
                assert!(variables.contains(name) || name == "__rate_interval", "{query}: no variable {name}");
            }
            // Prometheus understands it, with what Grafana would put in place of the variables.
            let query = query.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*");
            let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
            assert!(prometheus.api(&format!("/api/v1/query?query={encoded}"))["result"].is_array(), "{query}");
        }
    }
}
