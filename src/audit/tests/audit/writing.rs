//! Writing entries, and reading them back.

use cluegate_audit::{AuditError, AuditLog, Query};

use crate::support::{append, find, open, places, record, runtime, settings, write};

#[test]
fn a_record_comes_back_as_it_was_given_but_for_what_is_hidden() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, settings) = (runtime(), settings(folder.path()));
    let log = open(&runtime, &settings, None);
    let given = record("kids", 7);
    append(&log, &given).unwrap();
    let without_prompt = {
        let mut record = record("kids", 8);
        record.request.prompt = None;
        record
    };
    append(&log, &without_prompt).unwrap();
    drop(log);
    let found = find(&places(&runtime, &settings, None), &Query::for_tenant("kids"));
    assert_eq!(found.len(), 2);
    let first = &found[0];
    assert_eq!(first.fault().unwrap(), None);
    assert_eq!((first.chain.seq, first.chain.prev.as_str()), (1, "0".repeat(64).as_str()));
    assert_eq!(found[1].chain.prev, first.chain.hash);
    assert_eq!(first.masked, ["/input/subject"]);
    assert!(first.erased.is_empty());
    assert_eq!(found[1].erased, ["/input/request/prompt"]);
    let mut back = first.record().unwrap();
    let subject = back.subject.take().unwrap();
    assert!(subject.starts_with("hmac-sha256:k1:") && !subject.contains("user"), "{subject}");
    back.subject = given.subject.clone();
    assert_eq!(back, given);
    let text = std::fs::read_to_string(folder.path().join("decisions.jsonl")).unwrap();
    assert!(!text.contains("user-2"));
    assert!(find(&places(&runtime, &settings, None), &Query::for_tenant("news")).is_empty());
}

#[test]
fn the_chain_goes_on_after_a_restart_a_torn_line_and_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, settings) = (runtime(), settings(folder.path()));
    let path = folder.path().join("decisions.jsonl");
    let log = open(&runtime, &settings, None);
    append(&log, &record("kids", 1)).unwrap();
    let second = runtime.block_on(AuditLog::open(&settings, None)).unwrap_err();
    assert!(matches!(second, AuditError::Locked { .. }), "{second}");
    drop(log);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&whole[..], b"{\"decision_id\":\"0000"].concat()).unwrap();
    let log = open(&runtime, &settings, None);
    append(&log, &record("kids", 2)).unwrap();
    std::fs::rename(&path, folder.path().join("decisions.jsonl.1")).unwrap();
    append(&log, &record("kids", 3)).unwrap();
    std::fs::rename(&path, folder.path().join("decisions.jsonl-20261122")).unwrap();
    drop(log);
    // Rotated away while nobody wrote: the head says where to go on.
    let log = open(&runtime, &settings, None);
    append(&log, &record("kids", 4)).unwrap();
    drop(log);
    let places = places(&runtime, &settings, None);
    let all = find(&places, &Query::for_operator().with_log_entries());
    let seqs: Vec<u64> = all.iter().map(|entry| entry.chain.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
    assert_eq!(all[1].path, cluegate_audit::entry::RECOVERED);
    assert_eq!(all[1].input["torn_bytes"], 20);
    assert!(all.windows(2).all(|pair| pair[1].chain.prev == pair[0].chain.hash));
    assert!(all.iter().all(|entry| entry.fault().unwrap().is_none()));
    let ids: Vec<_> =
        find(&places, &Query::for_tenant("kids")).into_iter().map(|entry| entry.decision_id).collect();
    assert_eq!(ids, [1, 2, 3, 4].map(|number| record("kids", number).decision_id));
}

#[test]
fn a_log_whose_end_was_cut_off_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, settings) = (runtime(), settings(folder.path()));
    let path = folder.path().join("decisions.jsonl");
    write(&runtime, &settings, 3);
    let text = std::fs::read_to_string(&path).unwrap();
    let two: String = text.lines().take(2).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(&path, two).unwrap();
    let error = runtime.block_on(AuditLog::open(&settings, None)).unwrap_err();
    assert!(matches!(&error, AuditError::CutOff { found: 2, .. }), "{error}");
}

#[test]
fn a_log_has_one_writer_and_a_lock_let_go_at_once_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, settings) = (runtime(), settings(folder.path()));
    let log = open(&runtime, &settings, None);
    let error = runtime.block_on(AuditLog::open(&settings, None)).unwrap_err();
    assert!(matches!(error, AuditError::Locked { .. }), "{error}");
    drop(log);
    // As by a child between its fork and its exec.
    let held = std::fs::File::open(folder.path().join("decisions.jsonl.lock")).unwrap();
    held.lock().unwrap();
    let opened = std::thread::scope(|scope| {
        let opened = scope.spawn(|| open(&runtime, &settings, None));
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(held);
        opened.join().unwrap()
    });
    append(&opened, &record("kids", 1)).unwrap();
}
