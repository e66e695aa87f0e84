//! nginx as the balancer.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::port::free_port;
use crate::program;
use crate::server::Server;

/// An nginx that spreads requests over replicas without affinity.
#[derive(Debug)]
pub struct Nginx {
    /// The guard of the process.
    pub server: Server,
    url: String,
    _folder: TempDir,
}

impl Nginx {
    /// Starts one in front of `replicas` (`host:port` each).
    ///
    /// # Errors
    /// When nginx is not installed or does not start.
    pub async fn start(replicas: &[String]) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let port = free_port();
        let path = folder.path();
        fs::write(path.join("nginx.conf"), configuration(port, replicas))?;
        fs::create_dir(path.join("logs"))?;
        let mut command = Command::new(program::installed("nginx", "nginx")?);
        command.arg("-p").arg(path).args(["-c", "nginx.conf", "-e", "stderr"]);
        let mut server = Server::spawn("nginx", command)?;
        let address = format!("127.0.0.1:{port}");
        server.listens_on(&address).await?;
        Ok(Self { server, url: format!("http://{address}"), _folder: folder })
    }

    /// `http://host:port`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn configuration(port: u16, replicas: &[String]) -> String {
    let mut upstream = String::new();
    for replica in replicas {
        writeln!(upstream, "        server {replica} max_fails=1 fail_timeout=1s;").expect("writing to a string cannot fail");
    }
    // One worker process, no daemon: the guard then ends all of nginx with one signal.
    format!(
        r"daemon off;
master_process off;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream shop {{
{upstream}        keepalive 32;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://shop;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_connect_timeout 250ms;
            proxy_next_upstream error timeout http_502 http_503;
        }}
    }}
}}
"
    )
}
