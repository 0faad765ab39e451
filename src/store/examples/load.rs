//! How long a store with many tenants takes: `load [TENANTS] [CONSTITUTIONS] [URL]` (10,000 with 1,000 in a SQLite file of
//! its own unless told otherwise; the database has to be empty). Prints a table.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use cluegate_store::{
    Author, Consumed, Database, DatabaseOptions, Expect, KeyHash, Measure, NewKey, Period, Store, StoreError,
    Want,
};

/// How often each small call is measured.
const REPEATS: usize = 200;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let tenants: usize = arguments.next().map_or(Ok(10_000), |number| number.parse())?;
    let constitutions: usize = arguments.next().map_or(Ok(1_000), |number| number.parse())?;
    let folder = tempfile::tempdir()?;
    let url =
        arguments.next().unwrap_or_else(|| format!("sqlite:{}", folder.path().join("gate.db").display()));

    let begun = Instant::now();
    let store = Store::new(Database::open(&url, DatabaseOptions::default()).await?);
    row("open an empty database, make its tables", begun.elapsed());
    let begun = Instant::now();
    fill(&store, tenants, constitutions.max(1)).await?;
    row(&format!("write {tenants} tenants with a key each, {constitutions} constitutions"), begun.elapsed());
    store.database().close().await;

    let begun = Instant::now();
    let store = Store::new(Database::open(&url, DatabaseOptions::default()).await?);
    row("open it again", begun.elapsed());
    let begun = Instant::now();
    let all = store.load().await?;
    row(&format!("load all {} tenants and keys", all.tenants.len()), begun.elapsed());

    let mut times = Times::default();
    for number in 0..REPEATS {
        let begun = Instant::now();
        let mut edit = store.edit(Author { by: "example", at_ms: 0 }).await?;
        edit.put_tenant("tenant-00007", &format!("constitution = \"c{number}\""), Expect::Any).await?;
        let generation = edit.commit().await?;
        times.edit.push(begun.elapsed());
        let begun = Instant::now();
        store.changes_since(generation - 1).await?;
        times.changes.push(begun.elapsed());
        let begun = Instant::now();
        store.generation().await?;
        times.generation.push(begun.elapsed());
        let begun = Instant::now();
        let want = |period| Want { measure: Measure::Pictures, period, quota: Want::UNLIMITED, amount: 1 };
        let Consumed::Counted(_) =
            store.consume("tenant-00007", &[want(Period::Day), want(Period::Month)], 0).await?
        else {
            return Err("an unlimited quota was used up".into());
        };
        times.consume.push(begun.elapsed());
    }
    row("change one tenant (median)", median(times.edit));
    row("read what changed (median)", median(times.changes));
    row("ask for the number (median)", median(times.generation));
    row("count a picture in two quotas (median)", median(times.consume));
    store.database().close().await;
    Ok(())
}

#[derive(Default)]
struct Times {
    edit: Vec<Duration>,
    changes: Vec<Duration>,
    generation: Vec<Duration>,
    consume: Vec<Duration>,
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

async fn fill(store: &Store, tenants: usize, constitutions: usize) -> Result<(), StoreError> {
    let mut edit = store.edit(Author { by: "example", at_ms: 0 }).await?;
    for number in 0..constitutions {
        let name = format!("rules-{number:05}");
        let text = format!("name = \"{name}\"\n{}", "# What a rule says.\n".repeat(100));
        edit.add_revision(&name, "r1", &text).await?;
        edit.set_current(&name, "r1", Expect::Absent).await?;
    }
    for number in 0..tenants {
        let name = format!("tenant-{number:05}");
        let policy = format!("constitution = \"rules-{:05}\"\ntries = 3\n", number % constitutions);
        edit.put_tenant(&name, &policy, Expect::Absent).await?;
        let sha256 = KeyHash::of(&name);
        let key =
            NewKey { id: "main".into(), sha256, note: String::new(), not_before_ms: None, expires_ms: None };
        edit.add_key(&name, &key).await?;
    }
    edit.commit().await.map(drop)
}

fn row(what: &str, time: Duration) {
    println!("{what:<72} {:>10.2} ms", time.as_secs_f64() * 1_000.0);
}
