//! kill -9 at random moments: whatever was acknowledged is there, and the chain verifies.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use cluegate_audit::{Query, VerifyOptions};
use proptest::prelude::*;

use crate::support::{append, find, open, places, record, runtime, settings};

/// The variable that makes this test program a writer in a folder.
const FOLDER: &str = "CLUEGATE_TEST_WRITER_FOLDER";

/// Not a test of its own: the process that is killed. It says the number of every decision once it is logged.
#[test]
fn writer_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = std::path::PathBuf::from(folder);
    let runtime = runtime();
    let log = open(&runtime, &settings(&folder), None);
    let first = log.last_seq() * 100;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let log = &log;
            scope.spawn(move || {
                for number in 0_u64.. {
                    let number = first + number * 4 + thread;
                    append(log, &record("kids", number)).unwrap();
                    // One write, so that lines of threads do not mix.
                    println!("logged {number}");
                }
            });
        }
    });
}

#[test]
fn nothing_that_was_acknowledged_is_lost_by_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..25_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crashes::writer_that_is_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed in the middle of its work, after another number of decisions each time.
        let mut heard = 0;
        while heard < 1 + round * 7 % 60 {
            let line = lines.next().expect("the writer ended by itself").unwrap();
            if let Some(number) = line.rsplit("logged ").next().and_then(|number| number.parse::<u64>().ok())
            {
                acknowledged.push(number);
                heard += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts too.
        for line in lines.map_while(Result::ok) {
            acknowledged.extend(line.strip_prefix("logged ").and_then(|number| number.parse::<u64>().ok()));
        }
    }
    let (runtime, settings) = (runtime(), settings(folder.path()));
    drop(open(&runtime, &settings, None));
    let places = places(&runtime, &settings, None);
    let verified = places.verify(&VerifyOptions::default(), &mut |_| {}).unwrap();
    assert_eq!(verified.broken.map(|broken| broken.to_string()), None);
    let logged: HashSet<String> =
        find(&places, &Query::for_tenant("kids")).into_iter().map(|entry| entry.decision_id).collect();
    assert!(acknowledged.len() > 500, "{}", acknowledged.len());
    for number in acknowledged {
        assert!(
            logged.contains(&record("kids", number).decision_id),
            "{number} was acknowledged and is lost"
        );
    }
}

/// A crash of the machine may leave any beginning of what was being written.
#[test]
fn a_file_that_ends_at_any_byte_behind_its_head_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, settings) = (runtime(), settings(folder.path()));
    let path = folder.path().join("decisions.jsonl");
    let head = folder.path().join("decisions.jsonl.head");
    let log = open(&runtime, &settings, None);
    append(&log, &record("kids", 1)).unwrap();
    let (one, head_of_one) = (std::fs::read(&path).unwrap(), std::fs::read(&head).unwrap());
    append(&log, &record("kids", 2)).unwrap();
    drop(log);
    let two = std::fs::read(&path).unwrap();
    for end in (one.len()..=two.len()).step_by(37).chain([two.len() - 1, two.len()]) {
        std::fs::write(&path, &two[..end]).unwrap();
        std::fs::write(&head, &head_of_one).unwrap();
        let log = open(&runtime, &settings, None);
        append(&log, &record("kids", 3)).unwrap();
        drop(log);
        let places = places(&runtime, &settings, None);
        let verified = places.verify(&VerifyOptions::default(), &mut |_| {}).unwrap();
        assert_eq!(verified.broken.map(|broken| broken.to_string()), None, "{end}");
        let expected = if end == two.len() { 3 } else { 2 };
        assert_eq!(find(&places, &Query::for_tenant("kids")).len(), expected, "{end}");
    }
}

/// What happens to a log in its life.
#[derive(Debug, Clone)]
enum Event {
    Append(u64),
    /// The machine stops in the middle of a line, and the gateway starts again.
    Tear(usize),
    Restart,
    Rotate,
    Erase(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1_u64..6).prop_map(Event::Append),
        1 => (1_usize..2000).prop_map(Event::Tear),
        1 => Just(Event::Restart),
        1 => Just(Event::Rotate),
        1 => (0_u64..5).prop_map(Event::Erase),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_a_log_it_verifies_and_has_all_that_was_acknowledged(
        events in prop::collection::vec(event(), 1..24),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (runtime, settings) = (runtime(), settings(folder.path()));
        let path = folder.path().join("decisions.jsonl");
        let places = places(&runtime, &settings, None);
        let mut log = Some(open(&runtime, &settings, None));
        let (mut next, mut rotations, mut erased) = (0, 0, HashSet::new());
        for event in events {
            match event {
                Event::Append(count) => {
                    for _ in 0..count {
                        next += 1;
                        append(log.as_ref().unwrap(), &record("kids", next)).unwrap();
                    }
                }
                Event::Tear(bytes) => {
                    drop(log.take());
                    let half = format!("{{\"decision_id\":\"{}", "x".repeat(bytes));
                    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
                    std::io::Write::write_all(&mut file, half.as_bytes()).unwrap();
                    log = Some(open(&runtime, &settings, None));
                }
                Event::Restart => {
                    drop(log.take());
                    log = Some(open(&runtime, &settings, None));
                }
                // An empty file is rotated by nobody.
                Event::Rotate if std::fs::metadata(&path).is_ok_and(|found| found.len() > 0) => {
                    rotations += 1;
                    std::fs::rename(&path, folder.path().join(format!("decisions.jsonl.{rotations}"))).unwrap();
                }
                Event::Rotate => {}
                Event::Erase(user) => {
                    let subject = format!("user-{user}");
                    let expected =
                        (1..=next).filter(|number| number % 5 == user && erased.insert(*number)).count();
                    let erasure = cluegate_audit::Erasure::Subject { tenant: "kids".into(), subject };
                    prop_assert_eq!(places.erase(&erasure).unwrap().entries, expected as u64);
                }
            }
        }
        drop(log.take());
        let verified = places.verify(&VerifyOptions::default(), &mut |_| {}).unwrap();
        prop_assert_eq!(verified.broken.map(|broken| broken.to_string()), None);
        let found = find(&places, &Query::for_tenant("kids"));
        let numbers: Vec<u64> = found.iter().map(|entry| entry.record().unwrap().attempts[0].seed).collect();
        prop_assert_eq!(numbers, (1..=next).collect::<Vec<_>>());
        for entry in found {
            let record = entry.record().unwrap();
            prop_assert_eq!(record.request.prompt.is_none(), erased.contains(&record.attempts[0].seed));
        }
    }
}
