//! A real PostgreSQL.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::port::free_port;
use crate::server::{Server, Signal};

/// A PostgreSQL with an empty database named `shop`.
#[derive(Debug)]
pub struct Postgres {
    /// The guard of the process.
    pub server: Server,
    url: String,
    _folder: TempDir,
}

impl Postgres {
    /// Makes a cluster in a temporary folder and starts it on a free port. Durability is off: no test pulls a plug.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let bin = newest_bin_folder()?;
        let owner = unprivileged_owner()?;
        let folder = TempDir::new()?;
        if let Some((user, group)) = owner {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
            chown(folder.path(), Some(user), Some(group))?;
        }
        let data = folder.path().join("data");
        let as_owner = |program: &str| {
            let mut command = Command::new(bin.join(program));
            command.current_dir(folder.path());
            if let Some((user, group)) = owner {
                command.uid(user).gid(group);
            }
            command
        };

        let initdb = as_owner("initdb")
            .args(["--username=shop", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .context("cannot run initdb")?;
        if !initdb.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&initdb.stderr));
        }

        let port = free_port();
        let mut command = as_owner("postgres");
        command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k"]).arg(folder.path()).args([
            "-c",
            "fsync=off",
            "-c",
            "max_connections=100",
        ]);
        let mut server = Server::spawn("postgres", command)?;
        // SIGTERM would wait until the last client has gone.
        server.end_with(Signal::INT);
        server.line_with("ready to accept connections").await?;

        let created = as_owner("createdb")
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "shop", "shop"])
            .output()
            .context("cannot run createdb")?;
        if !created.status.success() {
            bail!("createdb failed: {}", String::from_utf8_lossy(&created.stderr));
        }
        Ok(Self { server, url: format!("postgres://shop@127.0.0.1:{port}/shop"), _folder: folder })
    }

    /// `postgres://user@host:port/database`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn newest_bin_folder() -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    let Some(newest) = newest else {
        bail!("PostgreSQL's server is not installed; run: apt-get install --no-install-recommends postgresql");
    };
    Ok(PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin")))
}

/// PostgreSQL refuses to run as root, so root lends it the user that Debian's package made.
fn unprivileged_owner() -> anyhow::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let user = users
        .lines()
        .find_map(|line| line.strip_prefix("postgres:"))
        .context("no user postgres; run: apt-get install --no-install-recommends postgresql")?;
    let mut fields = user.split(':').skip(1);
    let mut number = || fields.next().and_then(|field| field.parse().ok());
    match (number(), number()) {
        (Some(user), Some(group)) => Ok(Some((user, group))),
        _ => bail!("/etc/passwd: the line of postgres has no user and group number"),
    }
}
