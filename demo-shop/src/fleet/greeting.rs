//! What `demo-shop up` says when everything is ready.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use crate::balancer::FleetStatus;

/// The first line is for scripts, the rest is for people.
///
/// `warnings`: what will not work although all is ready.
pub(crate) fn greeting(address: SocketAddr, status: &FleetStatus, data: &Path, program: &str, warnings: &[String]) -> String {
    let url = format!("http://{}", reachable(address));
    let mut text = format!("shop ready on {url} (pid {})\n\n", std::process::id());
    for warning in warnings {
        let _ = writeln!(text, "  WARNING: {warning}\n");
    }
    let rows = status
        .replicas
        .iter()
        .map(|replica| (format!("replica {}", replica.name), replica.pid, &replica.address))
        .chain(status.nodes.iter().map(|node| (format!("cache {}", node.name), node.pid, &node.address)));
    let _ = writeln!(text, "  {:<14} {:>8}   address", "process", "pid");
    for (name, pid, address) in rows {
        let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let _ = writeln!(text, "  {name:<14} {pid:>8}   {address}");
    }
    let victim = status.replicas.first().and_then(|replica| Some((replica.pid?, &replica.name)));
    let _ = writeln!(text, "\n  Try this:");
    let _ = writeln!(text, "    1. Open {url} and put something into the cart.");
    if let Some((pid, name)) = victim {
        let _ = writeln!(text, "    2. kill -9 {pid}    (that is replica {name}; every page tells which one served it)");
    }
    let _ = writeln!(text, "    3. Reload: the same cart, from another replica. The dead one is back in a moment.");
    let _ = writeln!(text, "    4. The proof, with a few hundred shoppers and a kill every few seconds:");
    let _ = writeln!(text, "       {program} load-test --target {url} --kill-replica-every 5s");
    let _ = writeln!(text, "    What runs, as JSON: {url}/fleet.json");
    let _ = writeln!(text, "\n  Data and logs: {}\n  Stop: Ctrl-C", data.display());
    text
}

/// The unspecified address is for listening; a browser on this machine wants the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut reachable = address;
    if address.ip().is_unspecified() {
        reachable.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    reachable
}
