//! A bare nginx as a proxy, to compare with: the system's own, with a configuration that spills nothing to disk.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::process::Part;

/// What is said where there is none.
const MISSING: &str = "expected `nginx` on the path to compare with, found none: install it (Debian: apt install \
                       nginx-light)";

/// The version of the system's nginx.
///
/// # Errors
/// If there is none.
pub(super) fn version() -> anyhow::Result<String> {
    let output = Command::new("nginx").arg("-v").output().context(MISSING)?;
    ensure!(output.status.success(), "{MISSING}");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(words.trim().trim_start_matches("nginx version: ").to_owned())
}

/// Starts a proxy to `upstream` with its files in `folder`.
pub(super) fn start(upstream: SocketAddr, folder: &Path) -> anyhow::Result<Part> {
    // Free a moment ago; nginx takes no listener over.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let file = folder.join("nginx.conf");
    std::fs::write(&file, configuration(address, upstream))?;
    let command = || {
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder).arg("-c").arg(&file).args(["-e", "stderr"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    let mut child = command().spawn().context(MISSING)?;
    let begin = Instant::now();
    while TcpStream::connect(address).is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("nginx ended with {status} at its start; its words are above");
        }
        ensure!(begin.elapsed() < Duration::from_secs(20), "nginx does not listen on {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut stop = command();
    stop.args(["-s", "stop"]);
    Ok(Part::of(child, address, stop))
}

/// Two workers, connections to the upstream kept open, a whole answer in memory.
fn configuration(listen: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "daemon off;
pid nginx.pid;
worker_processes 2;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  tcp_nodelay on;
  keepalive_requests 100000000;
  client_body_temp_path client_temp;
  proxy_temp_path proxy_temp;
  fastcgi_temp_path fastcgi_temp;
  uwsgi_temp_path uwsgi_temp;
  scgi_temp_path scgi_temp;
  upstream pictures {{
    server {upstream};
    keepalive 64;
    keepalive_requests 100000000;
  }}
  server {{
    listen {listen};
    client_max_body_size 64m;
    client_body_buffer_size 1m;
    location / {{
      proxy_pass http://pictures;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffer_size 16k;
      proxy_buffers 16 64k;
      proxy_busy_buffers_size 256k;
      proxy_max_temp_file_size 0;
    }}
  }}
}}
"
    )
}
