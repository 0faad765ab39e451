//! Load: requests at fixed times whatever becomes of them, and as many as will go with a fixed number of connections.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::http::{Connection, post};
use crate::stats::Times;
use crate::streams::millis;

/// Connections of the open loop, each with a thread that sleeps most of the time.
const CONNECTIONS: usize = 48;
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends `rate` requests a second for `duration`, each at its own time, and tells how long after that time its answer was
/// there: a request that had to wait for its turn has waited.
pub(super) fn open_loop(
    address: SocketAddr,
    request: &[u8],
    rate: f64,
    duration: Duration,
) -> anyhow::Result<Times> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A few thousand.
    let total = (rate * duration.as_secs_f64()) as usize;
    let next = AtomicUsize::new(0);
    let begin = Instant::now() + Duration::from_millis(100);
    let client = || -> anyhow::Result<Vec<f64>> {
        let mut connection = Connection::open(address, PATIENCE)?;
        let mut latencies = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= total {
                return Ok(latencies);
            }
            let scheduled = begin + Duration::from_secs_f64(number as f64 / rate);
            thread::sleep(scheduled.saturating_duration_since(Instant::now()));
            let answer = connection.call(request)?;
            latencies.push(millis(scheduled.elapsed()));
            ensure!(
                answer.status() == 200 && answer.body.len() > 10_000,
                "expected a picture, got {:?} with {}",
                answer.line,
                String::from_utf8_lossy(&answer.body[..answer.body.len().min(300)])
            );
            connection.reuse(answer);
        }
    };
    let latencies = thread::scope(|scope| -> anyhow::Result<Vec<f64>> {
        let clients: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(client)).collect();
        let mut all = Vec::with_capacity(total);
        for client in clients {
            all.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        Ok(all)
    })?;
    Ok(Times::new(latencies))
}

/// Requests a second that `wrk` completes with `connections` connections.
pub(super) fn closed_loop(
    address: SocketAddr,
    (path, body): (&str, &str),
    connections: usize,
    duration: Duration,
    folder: &Path,
) -> anyhow::Result<f64> {
    let script = folder.join("post.lua");
    let words = format!(
        "wrk.method = \"POST\"\nwrk.headers[\"content-type\"] = \"application/json\"\nwrk.body = [==[{body}]==]\n"
    );
    std::fs::write(&script, words)?;
    let output = Command::new("wrk")
        .args([
            "-t1",
            &format!("-c{connections}"),
            &format!("-d{}s", duration.as_secs()),
            "--timeout",
            "30s",
            "-s",
        ])
        .arg(&script)
        .arg(format!("http://{address}{path}"))
        .output()
        .context(
            "expected `wrk` on the path as the load, found none: install it (Debian: apt install wrk)",
        )?;
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "wrk ended with {}:\n{words}", output.status);
    requests_per_second(&words)
}

/// The rate that `wrk` reports, if every answer was a good one.
fn requests_per_second(report: &str) -> anyhow::Result<f64> {
    let value = |name: &str| report.lines().find_map(|line| line.trim().strip_prefix(name));
    if let Some(bad) = value("Non-2xx or 3xx responses:").or_else(|| value("Socket errors:")) {
        bail!("expected good answers only, got these of another kind:{bad}\n{report}");
    }
    let rate = value("Requests/sec:").and_then(|rate| rate.trim().parse().ok());
    rate.with_context(|| format!("expected a line `Requests/sec:` from wrk, got:\n{report}"))
}

/// A request for one picture in AUTOMATIC1111's dialect: its path and its body.
pub(super) fn picture_request() -> (&'static str, String) {
    let body =
        r#"{"prompt": "a lake between mountains", "seed": 7, "steps": 20, "width": 256, "height": 256}"#;
    ("/sdapi/v1/txt2img", body.to_owned())
}

/// The same as bytes on the wire.
pub(super) fn picture_bytes() -> Vec<u8> {
    let (path, body) = picture_request();
    post(path, "", &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_wrk_is_read_and_failures_are_not_counted_as_requests() {
        let report =
            "Running 1s test\n  3 requests in 1.00s\nRequests/sec:   1234.56\nTransfer/sec:  1.00MB\n";
        assert_eq!(requests_per_second(report).unwrap(), 1234.56);
        let failed = format!("{report}  Non-2xx or 3xx responses: 7\n");
        assert!(requests_per_second(&failed).unwrap_err().to_string().contains('7'));
        assert!(requests_per_second("").is_err());
    }
}
