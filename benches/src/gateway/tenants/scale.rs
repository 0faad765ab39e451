//! Start, memory and reload with many tenants.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluegate_server::keys::Role;
use cluegate_store::{Expect, Store, TenantState};

use super::TenantsArgs;
use super::database::{AUTHOR, Place, fill, key, policy, tenant};
use super::gate::{ADMIN_ADDRESS, Options};
use crate::gateway::http::{Connection, get, post};
use crate::gateway::load::picture_request;
use crate::gateway::process::{Faults, Part};
use crate::gateway::upstream;
use crate::page::{Page, doing};
use crate::stats::Times;
use crate::streams::millis;
use crate::table::{Table, ms};

/// Requests a second while one tenant after the other is changed.
const RATE: f64 = 100.0;
/// Clients, each with tenants of its own.
const CLIENTS: usize = 16;
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is said at the end.
pub(super) struct Scale {
    pub(super) start_s: f64,
    pub(super) rss_mb: f64,
    pub(super) reload_ms: f64,
}

/// Measures.
pub(super) fn measure(arguments: &TenantsArgs, folder: &Path, page: &mut Page) -> anyhow::Result<Scale> {
    let folder = folder.join("scale");
    std::fs::create_dir(&folder)?;
    let (tenants, constitutions) = (arguments.tenants, arguments.constitutions);
    doing(&format!("writing {tenants} tenants and {constitutions} constitutions"));
    let place = Place::sqlite(&folder, "gate.db")?;
    fill(&place, tenants, constitutions)?;
    let drawer = upstream::Options::Prepared { pictures: 16, side: 64, takes_ms: 0 };
    let drawer = Part::start("upstream", &drawer, &Faults::default())?;
    let config = config(&folder, drawer.address)?;
    let options = Options { folder: folder.clone(), url: place.url.clone(), config };

    let rounds = if arguments.quick { 1 } else { 3 };
    let (mut starts, mut sizes) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        doing(&format!("start {} of {rounds}", round + 1));
        let begun = Instant::now();
        let gate = Part::start("tenants-gate", &options, &Faults::default())?;
        starts.push(begun.elapsed().as_secs_f64());
        // Some of everybody, so that judges are prepared and buffers are there.
        for number in (0..tenants).step_by(tenants.div_ceil(200).max(1)) {
            let name = tenant(number);
            let mut connection = Connection::open(gate.address, PATIENCE)?;
            ensure!(connection.call(&picture(&name))?.status() == 200, "{name} gets no picture");
        }
        sizes.push(gate.resident_mb()?);
    }
    let gate = Part::start("tenants-gate", &options, &Faults::default())?;
    let reloads = reload_under_load(&place, &gate, &folder, arguments)?;
    let scale = Scale {
        start_s: Times::new(starts).max(),
        rss_mb: Times::new(sizes).max(),
        reload_ms: reloads.reload.max(),
    };
    page.heading("Start and reload")?;
    page.text(&format!(
        "{tenants} tenants with a key each, {constitutions} different constitutions, in SQLite. Start: from the start of the \
         process until it listens, every policy and constitution checked, the longest of {rounds}. Memory after a picture for \
         200 tenants. Reload: one tenant is changed in the store, and the gateway told to read it, while {RATE} requests a \
         second of other tenants and that one are served; {} requests, none of them lost.",
        reloads.served.len()
    ))?;
    let mut table = Table::new(&["what", "median", "p99", "longest"]);
    table.row("start, s", [String::new(), String::new(), format!("{:.2}", scale.start_s)]);
    table.row("memory in use, MB", [String::new(), String::new(), format!("{:.0}", scale.rss_mb)]);
    for (name, times) in
        [("reload of one, ms", &reloads.reload), ("a request meanwhile, ms", &reloads.served)]
    {
        table.row(name, [ms(times.median()), ms(times.percentile(0.99)), ms(times.max())]);
    }
    page.table(table)?;
    Ok(scale)
}

struct Reloads {
    reload: Times,
    served: Times,
}

/// The configuration, with an administration that has one key.
fn config(folder: &Path, upstream: SocketAddr) -> anyhow::Result<String> {
    let key = cluegate_server::NewKey::generate();
    std::fs::write(folder.join("admin.keys"), key.of_admin("benchmark", Role::Write, None).entry())?;
    std::fs::write(folder.join("admin.key"), key.reveal())?;
    Ok(format!(
        "[upstream]\nkind = \"a1111\"\nurl = \"http://{upstream}\"\n[admin]\nlisten = \"127.0.0.1:0\"\nkey_file = \"admin.keys\"\n"
    ))
}

/// A tenant's request for a picture.
pub(super) fn picture(tenant: &str) -> Vec<u8> {
    let (path, body) = picture_request();
    post(path, &format!("authorization: Bearer {}\r\n", key(tenant)), &body)
}

/// Changes one tenant after the other while all are served.
fn reload_under_load(
    place: &Place,
    gate: &Part,
    folder: &Path,
    arguments: &TenantsArgs,
) -> anyhow::Result<Reloads> {
    let store = Store::new(place.open()?);
    let admin: SocketAddr = std::fs::read_to_string(folder.join(ADMIN_ADDRESS))?.parse()?;
    let secret = std::fs::read_to_string(folder.join("admin.key"))?;
    let bearer = format!("authorization: Bearer {secret}\r\n");
    let mut admin = Connection::open(admin, PATIENCE)?;
    let changes = if arguments.quick { 5 } else { 25 };
    let done = AtomicBool::new(false);
    let (reload, served) = thread::scope(|scope| -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
        let done = &done;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || serve(gate.address, client, arguments.tenants, done)))
            .collect();
        let reload = (|| {
            let mut times = Vec::new();
            for change in 0..changes {
                doing(&format!("change {} of {changes}", change + 1));
                times.push(change_one(place, &store, &mut admin, &bearer, change)?);
                suspend_and_resume(place, &store, (&mut admin, &bearer), gate.address)?;
            }
            Ok::<_, anyhow::Error>(times)
        })();
        done.store(true, Ordering::Relaxed);
        let mut served = Vec::new();
        for client in clients {
            served.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        Ok((reload?, served))
    })?;
    Ok(Reloads { reload: Times::new(reload), served: Times::new(served) })
}

/// Sends requests of several tenants at fixed times until it is told to end.
fn serve(address: SocketAddr, client: usize, tenants: usize, done: &AtomicBool) -> anyhow::Result<Vec<f64>> {
    let mut connection = Connection::open(address, PATIENCE)?;
    let (begin, mut latencies) = (Instant::now(), Vec::new());
    let pause = CLIENTS as f64 / RATE;
    for turn in 0.. {
        let due = begin + Duration::from_secs_f64((turn as f64 + client as f64 / CLIENTS as f64) * pause);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if done.load(Ordering::Relaxed) {
            break;
        }
        // The first is the one that is changed; the second, which is suspended now and then, is left out.
        let number = (client + turn * CLIENTS) % tenants;
        let number = if number == SUSPENDED { 0 } else { number };
        let answer = connection.call(&picture(&tenant(number)))?;
        latencies.push(millis(due.elapsed()));
        ensure!(
            answer.status() == 200,
            "a request was dropped: {} {}",
            answer.line,
            String::from_utf8_lossy(&answer.body[..answer.body.len().min(300)])
        );
        connection.reuse(answer);
    }
    Ok(latencies)
}

/// The tenant that is suspended and resumed to see that a reload has an effect.
const SUSPENDED: usize = 1;

/// Changes the constitution and the tries of one tenant and has the gateway read it: milliseconds from the request to
/// reload until its answer.
fn change_one(
    place: &Place,
    store: &Store,
    admin: &mut Connection,
    bearer: &str,
    change: usize,
) -> anyhow::Result<f64> {
    place.runtime.block_on(async {
        let mut edit = store.edit(AUTHOR).await?;
        edit.put_tenant(&tenant(0), &policy(change % 7, 1 + change % 5), Expect::Any).await?;
        edit.commit().await
    })?;
    reload(admin, bearer)
}

fn reload(admin: &mut Connection, bearer: &str) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let answer = admin.call(&post("/admin/v1/reload", bearer, "{}"))?;
    let took = millis(begun.elapsed());
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    ensure!(answer.status() == 200, "the reload was refused: {text}");
    admin.reuse(answer);
    Ok(took)
}

/// Looks that what is read again is in use.
fn suspend_and_resume(
    place: &Place,
    store: &Store,
    (admin, bearer): (&mut Connection, &str),
    address: SocketAddr,
) -> anyhow::Result<()> {
    let mut client = Connection::open(address, PATIENCE)?;
    for (state, expected) in [(TenantState::Suspended, 403), (TenantState::Active, 200)] {
        place.runtime.block_on(async {
            let mut edit = store.edit(AUTHOR).await?;
            edit.set_state(&tenant(SUSPENDED), state, Expect::Any).await?;
            edit.commit().await
        })?;
        reload(admin, bearer)?;
        let status = client.call(&picture(&tenant(SUSPENDED)))?.status();
        ensure!(status == expected, "expected {expected} of a tenant that is {}, got {status}", state.name());
    }
    let generation = admin.call(&get("/admin/v1/status", bearer)).context("the state of the gateway")?;
    ensure!(generation.status() == 200, "the gateway does not say where it stands: {}", generation.line);
    Ok(())
}
