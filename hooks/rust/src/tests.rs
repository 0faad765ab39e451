//! Each hook over the gate's scripted world.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluegate_gate::fakes::{CONSTITUTION, FailingLog, Fault, World, picture, violated};
use cluegate_gate::{DecisionLog, Gate, MemberOutcome, MemoryLog, Outcome, Reason, RequestInfo};

use super::notify::Notify;
use super::*;

const SWORD: usize = 2;

type Make = fn(&str, Arc<dyn JudgeProvider>, Arc<dyn DecisionLog>) -> Result<Gate, HookError>;

fn make(hook: Make, log: Arc<dyn DecisionLog>) -> Gate {
    make_over(&World::new([]), hook, log)
}

fn make_over(world: &World, hook: Make, log: Arc<dyn DecisionLog>) -> Gate {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("world.toml");
    std::fs::write(&file, CONSTITUTION).unwrap();
    hook(file.to_str().unwrap(), Arc::new(world.clone()), log).unwrap()
}

/// What becomes of a picture that shows a sword at its first `bad` tries.
fn outcome(hook: Make, bad: u32) -> (MemberOutcome, u32) {
    let gate = make(hook, Arc::new(MemoryLog::new(10)));
    let mut session = gate.session(RequestInfo::new(TENANT, "a shop", 1, 1)).unwrap();
    let mut tries = 0;
    let outcome = until_decided(&mut session, 0, |seed, _| {
        tries += 1;
        Ok(picture(if tries <= bad { &[SWORD] } else { &[3] }, seed as u8))
    });
    (outcome.unwrap(), tries)
}

#[test]
fn each_hook_does_what_its_name_says() {
    let (told, tries) = outcome(block_on_violation::gate, 1);
    assert_eq!((told.decision().reason, tries), (Reason::Violation, 1));
    let (told, tries) = outcome(regenerate_on_violation::gate, 2);
    assert_eq!((told.decision().reason, tries), (Reason::Safe, 3));
    let (told, tries) = outcome(regenerate_on_violation::gate, 3);
    assert_eq!((told.decision().reason, tries), (Reason::TriesExhausted, 3));
    let (told, _) = outcome(redact_on_violation::gate, 1);
    let MemberOutcome::Released(released) = told else { panic!("{told:?}") };
    assert!(released.is_redacted() && violated(released.pixels()).is_empty());
    let (told, _) = outcome(shadow::gate, 1);
    assert_eq!((told.decision().reason, told.decision().outcome), (Reason::Shadow, Outcome::Released));
}

#[test]
fn a_loop_that_fails_gets_nothing_and_a_wrong_constitution_is_named() {
    let gate = make(block_on_violation::gate, Arc::new(MemoryLog::new(10)));
    let mut session = gate.session(RequestInfo::new(TENANT, "a shop", 1, 1)).unwrap();
    let told = until_decided(&mut session, 0, |_, _| Err("out of memory".to_owned())).unwrap();
    assert_eq!(told.decision().reason, Reason::GeneratorFailure);
    assert!(until_decided(&mut session, 0, |_, _| Ok(picture(&[3], 1))).is_err(), "it is decided");
    let log = Arc::new(MemoryLog::new(10));
    let error = block_on_violation::gate("no\"where", Arc::new(World::new([])), log).err().unwrap();
    assert!(error.to_string().contains("no\"where"), "{error}");
}

#[test]
fn whatever_goes_wrong_with_the_judge_releases_nothing() {
    let hooks: [Make; 3] =
        [block_on_violation::gate, regenerate_on_violation::gate, redact_on_violation::gate];
    for hook in hooks {
        for fault in [Fault::Error, Fault::OutOfTime, Fault::Panic, Fault::OtherPicture, Fault::Partial] {
            let log = Arc::new(MemoryLog::new(10));
            let gate = make_over(&World::new([fault]), hook, log.clone());
            let mut session = gate.session(RequestInfo::new(TENANT, "a shop", 1, 1)).unwrap();
            let told = until_decided(&mut session, 0, |_, _| Ok(picture(&[3], 1))).unwrap();
            assert!(matches!(told, MemberOutcome::Withheld(_)), "{fault:?}: {told:?}");
            assert_eq!(log.records()[0].outcome, Outcome::Withheld, "{fault:?}");
        }
    }
}

#[test]
fn a_loop_that_panics_or_leaves_has_what_is_undecided_withheld_and_logged() {
    let log = Arc::new(MemoryLog::new(10));
    let gate = make(block_on_violation::gate, log.clone());
    let mut session = gate.session(RequestInfo::new(TENANT, "a shop", 1, 2)).unwrap();
    until_decided(&mut session, 0, |_, _| Ok(picture(&[3], 1))).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        until_decided(&mut session, 1, |_, _| panic!("out of memory"))
    }));
    assert!(panicked.is_err());
    let told: Vec<Reason> = log.records().iter().map(|record| record.reason).collect();
    assert_eq!(told, [Reason::Safe, Reason::NotFinished]);
}

#[test]
fn a_rewritten_prompt_is_what_is_drawn_next() {
    let again = "[template.regenerate-on-violation.regenerate]\nstrategies = [\"rewrite\"]\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("world.toml");
    std::fs::write(&file, CONSTITUTION).unwrap();
    let tenant = format!(
        "[tenant.{TENANT}]\nextends = \"{}\"\nconstitution = {}\n",
        regenerate_on_violation::NAME,
        serde_json::Value::from(file.to_str().unwrap())
    );
    let text = format!("{}\n{again}{tenant}", regenerate_on_violation::TEMPLATE);
    let policies = Policies::from_toml(&text, "a test").unwrap();
    let gate = Gate::new(&policies, Arc::new(World::new([])), Arc::new(MemoryLog::new(10))).unwrap();
    let prompt = "a knight holding swords on a beach";
    let mut session = gate.session(RequestInfo::new(TENANT, prompt, 1, 1)).unwrap();
    let mut drawn = Vec::new();
    let told = until_decided(&mut session, 0, |seed, other| {
        drawn.push(other.map(str::to_owned));
        let objects: &[usize] = if other.unwrap_or(prompt).contains("sword") { &[SWORD] } else { &[3] };
        Ok(picture(objects, seed as u8))
    });
    assert_eq!(told.unwrap().decision().reason, Reason::Safe);
    assert_eq!(drawn, [None, Some("a knight on a beach".to_owned())]);
}

#[test]
fn a_policy_file_names_a_hook() {
    for (name, template) in READY {
        let text = format!("{template}\n[tenant.kids]\nextends = \"{name}\"\n");
        let policies = Policies::from_toml(&text, name).unwrap();
        assert!(
            Gate::new(&policies, Arc::new(World::new([])), Arc::new(MemoryLog::new(1))).is_ok(),
            "{name}"
        );
    }
}

#[test]
fn whoever_is_to_be_told_is_told_of_what_is_kept_back_and_of_nothing_else() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    let log = Arc::new(MemoryLog::new(10));
    let notify = Notify::new(log, 4, move |notice: &notify::Notice| {
        sink.lock().unwrap().push(notice.clone());
        Ok(())
    });
    let gate = make(block_on_violation::gate, Arc::new(notify.unwrap()));
    let mut session = gate.session(RequestInfo::new(TENANT, "a shop", 1, 2)).unwrap();
    until_decided(&mut session, 0, |_, _| Ok(picture(&[3], 1))).unwrap();
    until_decided(&mut session, 1, |_, _| Ok(picture(&[SWORD], 2))).unwrap();
    // The last that holds the log is gone, and with it the thread has told all.
    drop((session, gate));
    let told = told.lock().unwrap();
    let [notice] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(
        (notice.member, notice.reason, notice.violated.as_slice()),
        (1, Reason::Violation, &["sword".to_owned()][..])
    );
}

#[test]
fn a_webhook_gets_json_and_one_that_is_gone_costs_nothing_but_the_notice() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/gate", listener.local_addr().unwrap());
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut read = Vec::new();
        let mut buffer = [0; 4096];
        while !read.ends_with(b"}") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the connection ended within the notice");
            read.extend_from_slice(&buffer[..count]);
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
        String::from_utf8(read).unwrap()
    });
    let log = Arc::new(
        Notify::webhook(Arc::new(MemoryLog::new(10)), url.as_str(), Duration::from_secs(10)).unwrap(),
    );
    let draw = |log: Arc<Notify>| {
        let gate = make(block_on_violation::gate, log);
        let mut session = gate.session(RequestInfo::new(TENANT, "a shop", 1, 1)).unwrap();
        until_decided(&mut session, 0, |_, _| Ok(picture(&[SWORD], 2))).unwrap()
    };
    let decided = draw(Arc::clone(&log));
    let request = receiver.join().unwrap();
    assert!(request.starts_with("POST /gate HTTP/1.1"), "{request}");
    assert!(
        request.contains(&decided.decision().decision_id) && request.contains("\"reason\":\"violation\"")
    );
    assert_eq!(draw(Arc::clone(&log)).decision().reason, Reason::Violation, "nobody listens any more");
    while log.lost() == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn what_is_not_logged_is_not_told() {
    let failing = FailingLog { lines: Mutex::new(0), from: 1, panics: false };
    let notify = Notify::new(Arc::new(failing), 4, |_| panic!("it was told"));
    let gate = make(block_on_violation::gate, Arc::new(notify.unwrap()));
    let mut session = gate.session(RequestInfo::new(TENANT, "a shop", 1, 1)).unwrap();
    let told = until_decided(&mut session, 0, |_, _| Ok(picture(&[3], 2))).unwrap();
    assert_eq!(told.decision().reason, Reason::LogFailure);
}
