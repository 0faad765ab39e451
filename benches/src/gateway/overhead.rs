//! What the gate costs beside the upstream alone and beside a bare proxy, without a judge: latency at a fixed rate, and
//! the rate that is reached.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::load::{closed_loop, open_loop, picture_bytes, picture_request};
use super::process::{Faults, Part};
use super::{GatewayArgs, gate, nginx, stages, upstream};
use crate::machine::Machine;
use crate::page::{Page, doing};
use crate::stats::Times;
use crate::table::{Table, ms, times};

/// Requests a second of the open loop.
const RATE: f64 = 300.0;
/// Connections of the closed loop.
const CONNECTIONS: usize = 32;
/// Different pictures: more than any cache of a few would hold, and few enough to be prepared.
const PICTURES: usize = 256;
/// Width and height: about 100 kB as PNG.
const SIDE: u32 = 256;

/// What a fast picture takes to draw in milliseconds, for the second comparison.
const DRAWING_MS: u64 = 100;

/// What is said at the end.
pub(super) struct Overhead {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) ratio_to_nginx: f64,
}

/// Measures.
pub(super) fn measure(arguments: &GatewayArgs, folder: &Path, page: &mut Page) -> anyhow::Result<Overhead> {
    let (rounds, open, closed) = if arguments.quick { (1, 5, 3) } else { (3, 10, 10) };
    let version = nginx::version()?;
    let chain = Chain::start(0, &below(folder, "at-once")?)?;
    let ways = chain.ways();
    let mut latencies = [const { Vec::new() }; 3];
    let mut cpu = [[0.0; 2]; 3];
    for round in 0..=rounds {
        for (way, (name, address, part)) in ways.iter().enumerate() {
            doing(&format!("{RATE} requests a second, {name}"));
            let seconds = if round == 0 { 2 } else { open };
            let before = part.map_or(0.0, Part::processor_ms);
            let measured = open_loop(*address, &picture_bytes(), RATE, Duration::from_secs(seconds))?;
            // The first round warms everything up.
            if round > 0 {
                cpu[way][0] += part.map_or(0.0, Part::processor_ms) - before;
                cpu[way][1] += measured.len() as f64;
                latencies[way].push(measured);
            }
        }
    }
    let mut rates = [const { Vec::new() }; 3];
    let (path, body) = picture_request();
    for _ in 0..rounds {
        for (way, (name, address, _)) in ways.iter().enumerate() {
            doing(&format!("{CONNECTIONS} connections, {name}"));
            let seconds = Duration::from_secs(closed);
            rates[way].push(closed_loop(*address, (path, &body), CONNECTIONS, seconds, folder)?);
        }
    }

    page.heading("Overhead without the judge")?;
    page.text(&format!(
        "{PICTURES} different PNG files of {SIDE} x {SIDE} pixels and about 100 kB as base64 in AUTOMATIC1111's JSON, in \
         turns; {version} with 2 workers; load, upstream, proxy and gate share the cores. Latency: {RATE} requests a second, \
         {rounds} x {open} s a way in turns, from the time that a request was due. Rate: wrk, {CONNECTIONS} connections, \
         median of {rounds} x {closed} s."
    ))?;
    let all: Vec<Times> = latencies.into_iter().map(join).collect();
    let rates: Vec<f64> = rates.into_iter().map(|rates| Times::new(rates).median()).collect();
    let mut table =
        Table::new(&["way", "p50 ms", "p90 ms", "p99 ms", "CPU ms a request", "requests a second"]);
    for (way, (name, _, _)) in ways.iter().enumerate() {
        let [used, requests] = cpu[way];
        let used = if used > 0.0 { format!("{:.2}", used / requests) } else { "-".to_owned() };
        let at = |share| ms(all[way].percentile(share));
        table.row(*name, [at(0.5), at(0.9), at(0.99), used, format!("{:.0}", rates[way])]);
    }
    let over = |share| all[2].percentile(share) - all[0].percentile(share);
    let overhead = Overhead { p50_ms: over(0.5), p99_ms: over(0.99), ratio_to_nginx: rates[2] / rates[1] };
    table.row("gate minus upstream", [ms(overhead.p50_ms), ms(over(0.9)), ms(overhead.p99_ms)]);
    table.row(
        "gate over nginx",
        [String::new(), String::new(), String::new(), String::new(), times(overhead.ratio_to_nginx)],
    );
    page.table(table)?;
    drop(chain);
    let (seconds, slow) =
        (Duration::from_secs(closed), Chain::start(DRAWING_MS, &below(folder, "drawing")?)?);
    doing(&format!("an upstream that takes {DRAWING_MS} ms"));
    let [_, proxy, gate] = slow.ways();
    let rate = |address| closed_loop(address, (path, &body), CONNECTIONS, seconds, folder);
    let (proxy, gate) = (rate(proxy.1)?, rate(gate.1)?);
    page.text(&format!(
        "That is an upstream that draws in no time. With one that takes {DRAWING_MS} ms a picture, {CONNECTIONS} \
         connections get {proxy:.0} requests a second through nginx and {gate:.0} through the gate: {}.",
        times(gate / proxy)
    ))?;
    drop(slow);
    shares(folder, page)?;
    Ok(overhead)
}

/// An upstream with a proxy and a gate before it.
struct Chain {
    upstream: Part,
    proxy: Part,
    gate: Part,
}

impl Chain {
    fn start(takes_ms: u64, folder: &Path) -> anyhow::Result<Self> {
        let drawing = upstream::Options::Prepared { pictures: PICTURES, side: SIDE, takes_ms };
        let upstream = Part::start("upstream", &drawing, &Faults::default())?;
        let proxy = nginx::start(upstream.address, &below(folder, "nginx")?)?;
        let gate = start_gate(upstream.address, &below(folder, "gate")?)?;
        Ok(Self { upstream, proxy, gate })
    }

    /// The ways to a picture, with the process in between.
    fn ways(&self) -> [(&'static str, SocketAddr, Option<&Part>); 3] {
        [
            ("upstream alone", self.upstream.address, None),
            ("nginx", self.proxy.address, Some(&self.proxy)),
            ("gate", self.gate.address, Some(&self.gate)),
        ]
    }
}

/// What the stages of one picture cost, none of which a proxy has.
fn shares(folder: &Path, page: &mut Page) -> anyhow::Result<()> {
    doing("single stages");
    let (table, decoding) = stages::table(SIDE, &below(folder, "stages")?)?;
    page.heading("Where the gate's time goes")?;
    page.table(table)?;
    let cores = Machine::here().cores;
    page.text(&format!(
        "A proxy copies bytes and does none of this. Decoding is part of judging: nobody can judge what was not decoded. It \
         counts in all figures here, and alone lets {cores} cores do no more than {:.0} pictures of this size a second.",
        cores as f64 * 1e3 / decoding
    ))
}

fn start_gate(upstream: SocketAddr, folder: &Path) -> anyhow::Result<Part> {
    let config = format!(
        "fronts = [\"a1111\"]\n[keys]\nanonymous = \"t\"\n[upstream]\nkind = \"a1111\"\nurl = \"http://{upstream}\"\n\
         [limits]\nin_work = 64\nqueue = 256\n"
    );
    let options = gate::Options {
        folder: folder.to_path_buf(),
        config,
        policy: "[tenant.t]\nconstitution = \"world.toml\"\n".to_owned(),
        faults: None,
    };
    Part::start("gate", &options, &Faults::default())
}

/// A folder of that name, which is made.
pub(super) fn below(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

/// All times of all rounds.
fn join(rounds: Vec<Times>) -> Times {
    rounds.iter().flat_map(Times::iter).collect()
}
