//! The log in a database: with and without a file beside it, gone and back, and what a tenant can find in it.

use cluegate_audit::{AuditError, AuditLog, LogPlaces, LogSettings, Place, Query, VerifyOptions};
use cluegate_gate::DecisionLog as _;
use cluegate_store::testing::{Durability, PostgresServer, SKIP_VARIABLE, each};
use cluegate_store::{Database, DatabaseOptions, args};
use tokio::runtime::Handle;

use crate::support::{append, find, open, places, record, runtime, settings};

fn verifies(places: &LogPlaces) {
    let verified = places.verify(&VerifyOptions::default(), &mut |_| {}).unwrap();
    assert_eq!(verified.broken.map(|broken| broken.to_string()), None);
}

/// Runs `test` on each database, on a thread that may block.
fn on_each(test: fn(Database, Handle)) {
    let runtime = runtime();
    runtime
        .block_on(each(async |empty| {
            let (database, handle) = (empty.open().await.unwrap(), Handle::current());
            tokio::task::spawn_blocking(move || test(database, handle)).await.unwrap();
        }))
        .unwrap();
}

#[test]
fn queries_find_what_is_asked_for_page_by_page_and_nothing_of_others() {
    on_each(|database, handle| {
        let folder = tempfile::tempdir().unwrap();
        let both = LogSettings { database: true, ..settings(folder.path()) };
        let log = handle.block_on(AuditLog::open(&both, Some(database.clone()))).unwrap();
        for number in 1..=30 {
            append(&log, &record(if number % 2 == 0 { "kids" } else { "news" }, number)).unwrap();
        }
        drop(log);
        let in_database = LogPlaces::open(&both, Some((database, handle))).unwrap();
        let in_file = LogPlaces::of_file(folder.path().join("decisions.jsonl"));
        verifies(&in_database);
        for places in [&in_database, &in_file] {
            let numbers = |query: Query| -> Vec<u64> {
                find(places, &query)
                    .iter()
                    .map(|entry| u64::MAX - entry.record().unwrap().request.seed)
                    .collect()
            };
            let kids = || Query::for_tenant("kids");
            assert_eq!(numbers(Query::for_operator()), (1..=30).collect::<Vec<_>>());
            assert_eq!(numbers(kids()), (2..=30).step_by(2).collect::<Vec<_>>());
            assert_eq!(numbers(Query { rule: Some("beer".into()), ..kids() }), [6, 12, 18, 24, 30]);
            assert_eq!(numbers(Query { outcome: Some("withheld".into()), ..kids() }), [6, 12, 18, 24, 30]);
            assert_eq!(
                numbers(Query { reason: Some("violation".into()), limit: Some(2), ..kids() }),
                [6, 12]
            );
            assert_eq!(numbers(Query { request: Some("request-4".into()), ..kids() }), [4]);
            assert_eq!(numbers(Query { model: Some("sdxl".into()), ..kids() }).len(), 15);
            assert_eq!(numbers(Query { model: Some("flux".into()), ..kids() }), [0_u64; 0]);
            let id = record("news", 5).decision_id;
            assert_eq!(numbers(Query { decision: Some(id.clone()), ..Query::for_tenant("news") }), [5]);
            assert_eq!(
                numbers(Query { decision: Some(id), ..kids() }),
                [0_u64; 0],
                "an id of another tenant's"
            );
            let at = |number: i64| Some((1_790_000_000 + number) * 1_000_000);
            assert_eq!(numbers(Query { since: at(10), until: at(14), ..kids() }), [10, 12]);
            let (mut cursor, mut all) = (None, Vec::new());
            loop {
                let page = find(places, &Query { cursor: cursor.clone(), limit: Some(4), ..kids() });
                all.extend(page.iter().map(|entry| u64::MAX - entry.record().unwrap().request.seed));
                let Some(last) = page.last() else { break };
                cursor = Some(Place::of(last));
            }
            assert_eq!(all, numbers(kids()));
            let quoted = Query::for_tenant("kids' OR '1'='1");
            assert_eq!(numbers(quoted), [0_u64; 0]);
        }
    });
}

#[test]
fn what_only_one_place_has_is_brought_to_the_other() {
    on_each(|database, handle| {
        let folder = tempfile::tempdir().unwrap();
        let both = LogSettings { database: true, ..settings(folder.path()) };
        let path = folder.path().join("decisions.jsonl");
        let open = || handle.block_on(AuditLog::open(&both, Some(database.clone()))).unwrap();
        let log = open();
        for number in 1..=3 {
            append(&log, &record("kids", number)).unwrap();
        }
        let (file, head) = (
            std::fs::read(&path).unwrap(),
            std::fs::read(folder.path().join("decisions.jsonl.head")).unwrap(),
        );
        append(&log, &record("kids", 4)).unwrap();
        drop(log);
        // As if the process had died when the database had the entry and the file had not.
        std::fs::write(&path, file).unwrap();
        std::fs::write(folder.path().join("decisions.jsonl.head"), head).unwrap();
        drop(open());
        let places = LogPlaces::open(&both, Some((database.clone(), handle.clone()))).unwrap();
        verifies(&places);
        let of_file = LogPlaces::of_file(&path);
        assert_eq!(find(&of_file, &Query::for_tenant("kids")).len(), 4);
        // The other way round.
        handle.block_on(async {
            let mut write = database.write().await.unwrap();
            write.execute("DELETE FROM log_entry WHERE seq > $1", args![2_i64]).await.unwrap();
            let third = find(&of_file, &Query::for_tenant("kids"))[1].chain.position();
            write
                .execute("UPDATE log_head SET seq = $1, hash = $2", args![2_i64, &third.hash])
                .await
                .unwrap();
            write.commit().await.unwrap();
        });
        let log = open();
        append(&log, &record("kids", 5)).unwrap();
        drop(log);
        let unsigned = places.verify(&VerifyOptions::default(), &mut |_| {}).unwrap();
        assert_eq!(unsigned.broken.map(|broken| broken.to_string()), None);
        assert_eq!(find(&places, &Query::for_tenant("kids")).len(), 5);
    });
}

#[test]
fn two_gateways_of_one_name_do_not_mix_their_chains() {
    on_each(|database, handle| {
        let folder = tempfile::tempdir().unwrap();
        let settings = LogSettings { file: None, database: true, ..settings(folder.path()) };
        let open = |settings: &LogSettings| {
            handle.block_on(AuditLog::open(settings, Some(database.clone()))).unwrap()
        };
        let (one, two) = (open(&settings), open(&settings));
        append(&one, &record("kids", 1)).unwrap();
        let error = append(&two, &record("kids", 2)).unwrap_err().to_string();
        assert!(error.contains("log.instance"), "{error}");
        append(&one, &record("kids", 3)).unwrap();
        let other = LogSettings { instance: Some("gate-2".into()), ..settings.clone() };
        append(&open(&other), &record("kids", 4)).unwrap();
        let places = LogPlaces::open(&settings, Some((database.clone(), handle.clone()))).unwrap();
        verifies(&places);
        assert_eq!(find(&places, &Query::for_tenant("kids")).len(), 3);
    });
}

#[test]
fn a_database_that_goes_and_comes_back_loses_nothing_and_names_what_was_withheld() {
    if std::env::var_os(SKIP_VARIABLE).is_some_and(|value| value == "skip") {
        return;
    }
    let runtime = runtime();
    let server = PostgresServer::start(Durability::Off).unwrap();
    let options =
        DatabaseOptions { connect: std::time::Duration::from_millis(500), ..DatabaseOptions::default() };
    let url = runtime.block_on(server.database()).unwrap();
    let database = runtime.block_on(Database::open(&url, options)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = LogSettings { database: true, ..settings(folder.path()) };
    let log = open(&runtime, &settings, Some(&database));
    append(&log, &record("kids", 1)).unwrap();
    server.stop().unwrap();
    let mut failed = Vec::new();
    for number in 2..=4 {
        let record = record("kids", number);
        assert!(append(&log, &record).is_err());
        failed.push(record.decision_id);
    }
    server.resume().unwrap();
    // The pool may hold a connection that is dead.
    let back = (0..50).find(|_| append(&log, &record("kids", 5)).is_ok());
    assert!(back.is_some());
    drop(log);
    let places = places(&runtime, &settings, Some(&database));
    verifies(&places);
    let all = find(&places, &Query::for_operator().with_log_entries());
    let withdrawn: Vec<String> = all
        .iter()
        .filter(|entry| entry.path == cluegate_audit::entry::WITHDRAWN)
        .flat_map(|entry| serde_json::from_value::<Vec<String>>(entry.input["decisions"].clone()).unwrap())
        .collect();
    // Whatever failed and stands in the log all the same is named; what could not even be begun is not there.
    for id in &failed {
        let there = all.iter().any(|entry| entry.decision_id == *id);
        assert_eq!(there, withdrawn.contains(id), "{id}");
    }
    assert!(withdrawn.contains(&failed[0]));
}

#[test]
fn a_database_that_is_asked_for_and_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let settings = LogSettings { database: true, ..settings(folder.path()) };
    let error = runtime().block_on(AuditLog::open(&settings, None)).unwrap_err();
    assert!(matches!(error, AuditError::Setting { key: "database", .. }), "{error}");
}

#[test]
fn a_full_disk_withholds_and_what_was_written_stays_whole() {
    // A device that takes no byte.
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    drop(full);
    let folder = tempfile::tempdir().unwrap();
    let (runtime, settings) = (runtime(), settings(folder.path()));
    let path = folder.path().join("decisions.jsonl");
    let log = open(&runtime, &settings, None);
    append(&log, &record("kids", 1)).unwrap();
    std::fs::rename(&path, folder.path().join("decisions.jsonl.1")).unwrap();
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let failed = record("kids", 2);
    let policy = crate::support::policy();
    let decision = cluegate_gate::Decision { record: &failed, judged: None, released: None, policy: &policy };
    assert!(log.append(&decision).is_err());
    std::fs::remove_file(&path).unwrap();
    append(&log, &record("kids", 3)).unwrap();
    drop(log);
    let places = places(&runtime, &settings, None);
    verifies(&places);
    let all = find(&places, &Query::for_operator().with_log_entries());
    let paths: Vec<&str> = all.iter().map(|entry| entry.path.rsplit('/').next().unwrap()).collect();
    assert_eq!(paths, ["decision", "decision", "withdrawn", "decision"]);
    assert_eq!(all[2].input["decisions"][0], failed.decision_id);
}
