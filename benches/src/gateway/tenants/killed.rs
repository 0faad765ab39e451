//! Gateways that are killed under load: every picture that reached a client has its decision, and the chain is whole.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluegate_audit::{LogPlaces, Query, VerifyOptions};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng};

use super::TenantsArgs;
use super::database::{Place, fill, tenant};
use super::gate::{Options, log_settings};
use super::scale::picture;
use crate::gateway::http::Connection;
use crate::gateway::process::{Faults, Part};
use crate::gateway::upstream;
use crate::page::{Page, doing};
use crate::table::Table;

/// Clients at once.
const CLIENTS: usize = 8;
/// Tenants.
const TENANTS: usize = 4;
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Kills gateways and gives the number of decisions that are lost.
pub(super) fn run(arguments: &TenantsArgs, folder: &Path, page: &mut Page) -> anyhow::Result<u64> {
    let folder = folder.join("killed");
    std::fs::create_dir(&folder)?;
    let kills = if arguments.quick { arguments.kills.div_ceil(10) } else { arguments.kills };
    page.heading("Killed under load")?;
    page.text(&format!(
        "A gateway serves {CLIENTS} clients of {TENANTS} tenants and is killed (SIGKILL) after some number of answers, {kills} \
         times in all, over the same store and log. Every picture that reached a client has to have its decision, and the \
         chain of hashes has to be whole."
    ))?;
    let mut table = Table::new(&["database", "kills", "pictures released", "decisions in the log", "lost"]);
    let mut lost = 0;
    for (place, kills) in
        [(Place::sqlite(&folder, "gate.db")?, kills.div_ceil(2)), (Place::postgres()?, kills / 2)]
    {
        let released = kill_often(&place, &folder, kills)?;
        let places = LogPlaces::open(&log_settings(), Some((place.open()?, place.runtime.handle().clone())))?;
        let mut logged = HashSet::new();
        places.query(&Query::for_operator(), &mut |entry| {
            if entry.record()?.outcome == cluegate_gate::Outcome::Released {
                logged.insert(entry.record()?.decision_id);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let verified = places.verify(&VerifyOptions::default(), &mut |_| {})?;
        ensure!(verified.broken.is_none(), "the chain in {} is broken: {:?}", place.name, verified.broken);
        let missing = released.iter().filter(|id| !logged.contains(*id)).count();
        lost += missing as u64;
        let counts = [kills, released.len(), logged.len(), missing].map(|count| count.to_string());
        table.row(place.name, counts);
    }
    page.table(table)?;
    Ok(lost)
}

/// The decisions of the pictures that reached clients.
fn kill_often(place: &Place, folder: &Path, kills: usize) -> anyhow::Result<HashSet<String>> {
    fill(place, TENANTS, TENANTS)?;
    let drawer = upstream::Options::Prepared { pictures: 16, side: 64, takes_ms: 0 };
    let drawer = Part::start("upstream", &drawer, &Faults::default())?;
    let config = format!("[upstream]\nkind = \"a1111\"\nurl = \"http://{}\"\n", drawer.address);
    let options = Options { folder: folder.to_owned(), url: place.url.clone(), config };
    let mut chance = SmallRng::seed_from_u64(1);
    let released = Mutex::new(HashSet::new());
    for kill in 0..kills {
        doing(&format!("kill {} of {kills} over {}", kill + 1, place.name));
        let gate = Part::start("tenants-gate", &options, &Faults::default())?;
        let (address, answers, ended) = (gate.address, AtomicUsize::new(0), AtomicUsize::new(0));
        let most = chance.random_range(1..200);
        let problems = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let (released, answers, ended) = (&released, &answers, &ended);
                    scope.spawn(move || {
                        let problem = ask(address, client % TENANTS, released, answers);
                        ended.fetch_add(1, Ordering::Relaxed);
                        problem
                    })
                })
                .collect();
            while answers.load(Ordering::Relaxed) < most && ended.load(Ordering::Relaxed) == 0 {
                thread::sleep(Duration::from_micros(200));
            }
            let early = ended.load(Ordering::Relaxed) > 0;
            // Dropped: killed.
            drop(gate);
            let problems: Vec<_> = clients.into_iter().filter_map(|client| client.join().ok()).collect();
            early.then_some(problems)
        });
        ensure!(problems.is_none(), "clients ended before the gateway was killed: {problems:?}");
    }
    released.into_inner().map_err(|_| anyhow::anyhow!("a client panicked"))
}

/// Asks for pictures until the gateway is gone, and gives what ended it.
fn ask(
    address: SocketAddr,
    number: usize,
    released: &Mutex<HashSet<String>>,
    answers: &AtomicUsize,
) -> anyhow::Result<()> {
    let request = picture(&tenant(number));
    let mut connection = Connection::open(address, PATIENCE)?;
    loop {
        let answer = connection.call(&request)?;
        let decision = answer
            .header("x-cluegate-decision")
            .with_context(|| format!("an answer without a decision: {}", answer.line))?;
        if answer.status() == 200 && decision.contains("outcome=released") {
            let id = decision.split(';').next().unwrap_or_default().to_owned();
            released.lock().map_err(|_| anyhow::anyhow!("a client panicked"))?.insert(id);
        }
        answers.fetch_add(1, Ordering::Relaxed);
        connection.reuse(answer);
    }
}
