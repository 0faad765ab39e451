//! The parts of the benchmark as processes of their own, so that the time and the memory of each are its own.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::machine;

/// Word before the address in the first line that a part prints.
const READY: &str = "listening";
/// Word before the kind of a fault in all further lines.
const FAULT: &str = "fault";

/// How often each kind of fault was injected.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults(Arc<Mutex<std::collections::BTreeMap<String, u64>>>);

impl Faults {
    /// Counts one.
    pub(super) fn count(&self, kind: &str) {
        *self.lock().entry(kind.to_owned()).or_default() += 1;
    }

    /// All kinds with their counts.
    pub(super) fn all(&self) -> Vec<(String, u64)> {
        self.lock().iter().map(|(kind, count)| (kind.clone(), *count)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, std::collections::BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part that runs. Killed when it is dropped.
pub(super) struct Part {
    child: Child,
    pub(super) address: SocketAddr,
    /// What ends it, where its own children would outlive a kill.
    stop: Option<Command>,
}

impl Drop for Part {
    fn drop(&mut self) {
        let stopped = self.stop.as_mut().and_then(|stop| stop.status().ok());
        if !stopped.is_some_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

impl Part {
    /// Starts this program as the part `name` with `options`, and waits until it listens. The faults that it tells of go
    /// to `faults`.
    pub(super) fn start(name: &str, options: &impl Serialize, faults: &Faults) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["gateway-part", name, &serde_json::to_string(options)?]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("a part without an output")?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let Some(address) = first.strip_prefix(READY).and_then(|address| address.trim().parse().ok()) else {
            let status = child.wait()?;
            bail!("the part {name} ended with {status} before it listened");
        };
        let faults = faults.clone();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(kind) = line.strip_prefix(FAULT) {
                    faults.count(kind.trim());
                }
            }
        });
        Ok(Self { child, address, stop: None })
    }

    /// Wraps a process that is no part of this program and that `stop` ends.
    pub(super) fn of(child: Child, address: SocketAddr, stop: Command) -> Self {
        Self { child, address, stop: Some(stop) }
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Time of the processor that it and its children have used, in milliseconds.
    pub(super) fn processor_ms(&self) -> f64 {
        let own = machine::processor_ms_of(self.id());
        own + children(self.id()).into_iter().map(machine::processor_ms_of).sum::<f64>()
    }

    /// Memory in use, in MiB.
    pub(super) fn resident_mb(&self) -> anyhow::Result<f64> {
        machine::resident_mb_of(self.id())
    }
}

/// The processes that `parent` has started and that still run.
fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// A listener on a free port of loopback, or on the given one.
pub(super) fn listen(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("listening on port {port} of loopback"))
}

/// Says to the process that started this part where it listens, and ends this process with that one.
pub(super) fn say_ready(address: SocketAddr) -> anyhow::Result<()> {
    tell(&format!("{READY} {address}"));
    thread::spawn(|| {
        // Ends where the other end of the pipe does.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    Ok(())
}

/// Says that a fault of this kind was injected.
pub(super) fn tell_fault(kind: &str) {
    tell(&format!("{FAULT} {kind}"));
}

fn tell(line: &str) {
    // Nobody may listen any more.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
