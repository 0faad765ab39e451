//! Processes that start together, and processes that are killed while they write. This program is its own child.
#![allow(clippy::print_stdout)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use cluegate_store::migrate::MIGRATIONS;
use cluegate_store::testing::each;
use cluegate_store::{
    Author, Consumed, Database, DatabaseOptions, Expect, KeyHash, Measure, NewKey, Period, Store, Want, args,
};

const URL: &str = "CLUEGATE_CHILD_URL";
const STEPS: &str = "CLUEGATE_CHILD_STEPS";

const QUOTA: [Want; 1] =
    [Want { measure: Measure::Pictures, period: Period::Day, quota: 100_000, amount: 1 }];

fn child(test: &str, url: &str, steps: usize) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(URL, url).env(STEPS, steps.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// The numbers that a child said before `most` or its end.
fn said(child: &mut Child, most: usize) -> Vec<i64> {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("done ")?.parse().ok())
        .take(most)
        .collect()
}

#[tokio::test]
#[ignore = "a child process of the tests below"]
async fn child_opens() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let database = Database::open(&std::env::var(URL).unwrap(), DatabaseOptions::default()).await.unwrap();
    database.close().await;
    println!("\ndone 1");
}

/// Writes tenants with a key and a count each, until it is killed or has done its steps; after those it dies at once.
#[tokio::test]
#[ignore = "a child process of the tests below"]
async fn child_writes() {
    let mut steps: usize = std::env::var(STEPS).unwrap().parse().unwrap();
    let mut step = || {
        if steps == 0 {
            std::process::abort();
        }
        steps -= 1;
    };
    let database = Database::open(&std::env::var(URL).unwrap(), DatabaseOptions::default()).await.unwrap();
    let store = Store::new(database);
    loop {
        let mut edit = store.edit(Author { by: "child", at_ms: 0 }).await.unwrap();
        step();
        let number = store.generation().await.unwrap() + 1;
        let name = format!("tenant-{number}");
        edit.put_tenant(&name, &"# a line\n".repeat(100), Expect::Absent).await.unwrap();
        step();
        let sha256 = KeyHash::of(&name);
        let key =
            NewKey { id: "key".into(), sha256, note: String::new(), not_before_ms: None, expires_ms: None };
        edit.add_key(&name, &key).await.unwrap();
        step();
        edit.commit().await.unwrap();
        step();
        let Consumed::Counted(_) = store.consume("all", &QUOTA, 0).await.unwrap() else { panic!("no quota") };
        step();
        println!("\ndone {number}");
    }
}

/// What was said to be done is there, whole, and nothing is half there.
async fn check(url: &str, done: &[i64]) {
    let store = Store::new(Database::open(url, DatabaseOptions::default()).await.unwrap());
    let all = store.load().await.unwrap();
    let last = done.last().copied().unwrap_or(0);
    assert!(all.generation >= last, "{} of {last}", all.generation);
    assert_eq!(all.tenants.len(), usize::try_from(all.generation).unwrap());
    for number in 1..=all.generation {
        let name = format!("tenant-{number}");
        assert!(all.tenants.contains_key(&name) && all.keys.contains_key(&(name, "key".into())), "{number}");
    }
    let used = store.usage("all", 0).await.unwrap().first().map_or(0, |usage| usage.used);
    // One may have died between its edit and its count.
    let counted = i64::try_from(done.len()).unwrap();
    assert!(used >= counted && used <= all.generation, "{used} of {counted} to {}", all.generation);
    if url.starts_with("sqlite:") {
        let mut read = store.database().read().await.unwrap();
        let row = read.fetch_one("PRAGMA integrity_check", args![]).await.unwrap();
        assert_eq!(row.get::<&str>("integrity_check").unwrap(), "ok");
    }
    store.database().close().await;
}

#[tokio::test]
async fn programs_that_start_together_migrate_once() {
    each(|place| async move {
        let mut children: Vec<Child> = (0..4).map(|_| child("killed::child_opens", &place.url, 0)).collect();
        for child in &mut children {
            child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        }
        for child in &mut children {
            assert_eq!(said(child, 1), [1]);
            child.wait().unwrap();
        }
        let database = place.open().await.unwrap();
        let mut read = database.read().await.unwrap();
        let count = "SELECT COUNT(*) AS n FROM cluegate_migrations";
        let count: i64 = read.fetch_one(count, args![]).await.unwrap().get("n").unwrap();
        assert_eq!(count, MIGRATIONS.len() as i64);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_writer_that_dies_after_any_step_leaves_whole_writes() {
    each(|place| async move {
        let mut done = Vec::new();
        for steps in 0..12 {
            let mut child = child("killed::child_writes", &place.url, steps);
            done.extend(said(&mut child, usize::MAX));
            assert!(!child.wait().unwrap().success());
            check(&place.url, &done).await;
        }
        assert!(done.len() >= 7, "{done:?}");
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_writer_that_is_killed_anywhere_leaves_whole_writes() {
    each(|place| async move {
        let mut done = Vec::new();
        for round in 1..=12_usize {
            let mut child = child("killed::child_writes", &place.url, usize::MAX);
            // It goes on writing while this line is read, and is killed wherever it then is.
            done.extend(said(&mut child, round));
            child.kill().unwrap();
            child.wait().unwrap();
            check(&place.url, &done).await;
        }
        assert_eq!(done.len(), 78);
    })
    .await
    .unwrap();
}
