//! Erasure and expiry: what is gone is gone everywhere, and the chain verifies.

use cluegate_audit::{AuditError, Erasure, LogPlaces, LogSettings, PictureSettings, Query, VerifyOptions};
use cluegate_gate::policy::{RawRetention, RetainedPictures};
use cluegate_gate::{Decision, DecisionLog as _, Policies, fakes};
use cluegate_store::testing::each;

use crate::support::{append, find, open, places, record, runtime, settings, write};

fn verifies(places: &LogPlaces) {
    let verified = places
        .verify(&VerifyOptions { pictures: places.pictures().is_some(), ..Default::default() }, &mut |_| {});
    assert_eq!(verified.unwrap().broken.map(|broken| broken.to_string()), None);
}

fn bytes_below(folder: &std::path::Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for item in std::fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            bytes.extend(bytes_below(&path));
        } else {
            bytes.extend(std::fs::read(path).unwrap());
        }
    }
    bytes
}

#[test]
fn an_end_users_data_is_erased_from_all_files_while_the_gateway_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, settings) = (runtime(), settings(folder.path()));
    let path = folder.path().join("decisions.jsonl");
    let log = open(&runtime, &settings, None);
    for number in 1..=10 {
        append(&log, &record("kids", number)).unwrap();
        append(&log, &record("news", 100 + number)).unwrap();
        if number == 5 {
            std::fs::rename(&path, folder.path().join("decisions.jsonl.1")).unwrap();
        }
    }
    let places = places(&runtime, &settings, None);
    let erasure = Erasure::Subject { tenant: "kids".into(), subject: "user-2".into() };
    let removed = places.erase(&erasure).unwrap();
    assert_eq!((removed.entries, removed.pictures), (2, 0));
    append(&log, &record("kids", 11)).unwrap();
    verifies(&places);
    let text = String::from_utf8(bytes_below(folder.path())).unwrap();
    for number in [2, 7] {
        assert!(!text.contains(&format!("a secret prompt {number}\"")), "{number}");
    }
    assert!(text.contains("a secret prompt 3\"") && text.contains("a secret prompt 102\""));
    let decisions = find(&places, &Query::for_tenant("kids"));
    let erased: Vec<_> = decisions.iter().filter(|entry| entry.erased_parts().next().is_some()).collect();
    assert_eq!(erased.len(), 2);
    let record = erased[0].record().unwrap();
    assert_eq!((record.request.prompt, record.subject, record.message.as_str()), (None, None, ""));
    assert_eq!(record.request.id, "request-2");
    // Again, there is nothing left to erase, and nothing is said.
    assert_eq!(places.erase(&erasure).unwrap().entries, 0);
    let of_log = find(&places, &Query::for_operator().with_log_entries());
    let said: Vec<_> = of_log.iter().filter(|entry| entry.path == cluegate_audit::entry::ERASED).collect();
    assert_eq!(said.len(), 2, "one for each file");
    assert!(!said[0].input.to_string().contains("user-2"));
    drop(log);
    let reopened = open(&runtime, &settings, None);
    append(&reopened, &record_after_reopening()).unwrap();
    drop(reopened);
    verifies(&places);
}

fn record_after_reopening() -> cluegate_gate::DecisionRecord {
    record("kids", 12)
}

#[test]
fn an_erasure_that_was_interrupted_is_finished_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, settings) = (runtime(), settings(folder.path()));
    let path = folder.path().join("decisions.jsonl");
    write(&runtime, &settings, 3);
    let whole = std::fs::read_to_string(&path).unwrap();
    let places = places(&runtime, &settings, None);
    places.erase(&Erasure::Decision { tenant: "kids".into(), id: record("kids", 2).decision_id }).unwrap();
    let erased = std::fs::read_to_string(&path).unwrap();
    assert_eq!(whole.len(), erased.len());
    // As a crash leaves it: the journal is there, half of the line is written, and nothing is said.
    let offset = whole.find('\n').unwrap() + 1;
    let length = whole[offset..].find('\n').unwrap();
    let rest = erased[offset..offset + length].trim_end().to_owned();
    let journal = serde_json::json!({
        "path": "cluegate/log/erased", "tenant": "kids",
        "input": { "scope": {}, "entries": { "gate-1": [[2, 2]] } },
        "lines": [{ "file": path, "offset": offset, "length": length, "instance": "gate-1", "seq": 2, "line": rest }],
    });
    for written in [0, 17, 200, rest.len()] {
        let torn = [&whole[..offset], &rest[..written], &whole[offset + written..]].concat();
        std::fs::write(&path, torn).unwrap();
        std::fs::write(folder.path().join("decisions.jsonl.erasing"), journal.to_string()).unwrap();
        let none = Erasure::Decision { tenant: "kids".into(), id: "none".into() };
        assert_eq!(places.erase(&none).unwrap().entries, 0);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), erased, "{written} bytes");
        assert!(!folder.path().join("decisions.jsonl.erasing").exists());
        verifies(&places);
    }
}

#[test]
fn end_users_cannot_be_erased_where_the_log_holds_none() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let settings = LogSettings { subject_key_file: None, ..settings(folder.path()) };
    let log = open(&runtime, &settings, None);
    append(&log, &record("kids", 1)).unwrap();
    drop(log);
    let places = places(&runtime, &settings, None);
    let found = find(&places, &Query::for_tenant("kids"));
    assert!(found[0].erased.contains(&"/input/subject".to_owned()));
    assert_eq!(found[0].record().unwrap().subject, None);
    let error =
        places.erase(&Erasure::Subject { tenant: "kids".into(), subject: "user-1".into() }).unwrap_err();
    assert!(matches!(error, AuditError::Setting { key: "subject_key_file", .. }), "{error}");
}

#[test]
fn a_database_forgets_what_is_erased_and_what_expires() {
    let runtime = runtime();
    runtime
        .block_on(each(async |test| {
            let database = test.open().await.unwrap();
            let handle = tokio::runtime::Handle::current();
            tokio::task::spawn_blocking(move || {
                let folder = tempfile::tempdir().unwrap();
                let settings = LogSettings { file: None, database: true, ..settings(folder.path()) };
                let log = handle
                    .block_on(cluegate_audit::AuditLog::open(&settings, Some(database.clone())))
                    .unwrap();
                let places = LogPlaces::open(&settings, Some((database, handle.clone()))).unwrap();
                for number in 1..=10 {
                    append(&log, &record("kids", number)).unwrap();
                    append(&log, &record("news", 100 + number)).unwrap();
                }
                let erasure = Erasure::Subject { tenant: "kids".into(), subject: "user-2".into() };
                assert_eq!(places.erase(&erasure).unwrap().entries, 2);
                verifies(&places);
                assert!(
                    find(
                        &places,
                        &Query {
                            subjects: places.subjects("kids", "user-2").unwrap(),
                            ..Query::for_tenant("kids")
                        }
                    )
                    .is_empty()
                );
                // The newest decision counts as today: all others of this tenant are older than its retention allows.
                let retention = RawRetention { decision_days: Some(1), ..RawRetention::default() };
                let mut late = record("news", 999);
                late.timestamp = "2026-11-21T10:00:00Z".into();
                append(&log, &late).unwrap();
                assert_eq!(places.expire("kids", &retention).unwrap().entries, 10);
                verifies(&places);
                assert!(find(&places, &Query::for_tenant("kids")).is_empty());
                assert!(
                    find(&places, &Query { rule: Some("beer".into()), ..Query::for_tenant("kids") })
                        .is_empty()
                );
                assert_eq!(find(&places, &Query::for_tenant("news")).len(), 11);
                append(&log, &record("kids", 12)).unwrap();
                verifies(&places);
            })
            .await
            .unwrap();
        }))
        .unwrap();
}

#[test]
fn pictures_are_kept_as_the_retention_says_and_go_with_their_decisions() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let pictures = PictureSettings {
        folder: folder.path().join("pictures"),
        key_file: Some(folder.path().join("log.key")),
    };
    let settings = LogSettings { pictures: Some(pictures), ..settings(folder.path()) };
    let policy = |tables: &str| {
        let policies = Policies::from_toml(
            &format!("[tenant.kids]\nlog_prompts = true\n[tenant.kids.retention]\n{tables}"),
            "test",
        );
        std::sync::Arc::clone(policies.unwrap().get("kids").unwrap())
    };
    let log = open(&runtime, &settings, None);
    let places = places(&runtime, &settings, None);
    let keep = |tables: &str, number: u64, salt: u8| {
        let (policy, picture) = (policy(tables), fakes::picture(&[1], salt));
        let record = record("kids", number);
        log.append(&Decision { record: &record, judged: Some(&picture), released: None, policy: &policy })
            .unwrap();
        let query = Query { decision: Some(record.decision_id), ..Query::for_tenant("kids") };
        let kept = find(&places, &query)[0].pictures();
        for kept in &kept {
            assert_eq!(places.pictures().unwrap().read("kids", kept).unwrap().hash(), picture.hash());
        }
        kept.len()
    };
    // Every third decision is withheld for the rule beer.
    assert_eq!(keep("pictures = \"none\"", 3, 1), 0);
    assert_eq!(keep("pictures = \"withheld\"", 6, 2), 1);
    assert_eq!(keep("pictures = \"withheld\"", 7, 3), 0);
    assert_eq!(keep("pictures = \"all\"", 8, 4), 1);
    assert_eq!(keep("pictures = \"all\"\nnever = [\"beer\"]", 9, 5), 0);
    assert_eq!(keep("pictures = \"all\"\nnever = [\"beer\"]", 10, 6), 1);
    // The same picture for two decisions: erasing one leaves it to the other.
    assert_eq!(keep("pictures = \"all\"", 11, 7), 1);
    assert_eq!(keep("pictures = \"all\"", 12, 7), 1);
    verifies(&places);
    let erase = |number: u64| {
        let id = record("kids", number).decision_id;
        places.erase(&Erasure::Decision { tenant: "kids".into(), id }).unwrap().pictures
    };
    assert_eq!((erase(11), erase(12), erase(6)), (0, 1, 1));
    verifies(&places);
    let retention = RawRetention { pictures: RetainedPictures::All, ..RawRetention::default() };
    assert_eq!(places.expire("kids", &retention).unwrap().pictures, 0);
    // A picture that somebody takes away is missed.
    let taken =
        find(&places, &Query { decision: Some(record("kids", 8).decision_id), ..Query::for_tenant("kids") })
            [0]
        .pictures();
    let file = folder.path().join("pictures/kids").join(&taken[0].name[..2]).join(&taken[0].name);
    std::fs::remove_file(file).unwrap();
    let options = VerifyOptions { pictures: true, ..VerifyOptions::default() };
    let broken = places.verify(&options, &mut |_| {}).unwrap().broken.unwrap();
    assert!(broken.to_string().contains(&taken[0].name), "{broken}");
    drop(runtime);
}
