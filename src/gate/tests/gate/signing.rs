//! Policies that want signed files: who signs, what of, and what happens if nobody can.

use std::sync::{Arc, Mutex};

use cluegate_gate::fakes::{FailingLog, Fault, World, gate_signing, gate_with, picture};
use cluegate_gate::{
    DecisionLog, Gate, GateError, Instruction, MemoryLog, Origin, Outcome, Policies, PreviewInstruction,
    Reason, ReleasedPicture, RequestInfo, Signer, SigningError, Statement, Withheld,
};
use cluegate_perception::FileFormat;

const C2PA: &str = "provenance = \"c2pa\"";

/// What a signer was asked for.
type Asked = (FileFormat, Statement);

/// Puts a word before each file, or fails as it is told to.
#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<Asked>>,
    fails: Option<&'static str>,
    panics: bool,
}

impl Signer for Fake {
    fn sign(&self, file: &[u8], format: FileFormat, statement: &Statement) -> Result<Vec<u8>, SigningError> {
        self.asked.lock().unwrap().push((format, statement.clone()));
        assert!(!self.panics, "the token is gone");
        match self.fails {
            Some(why) => Err(SigningError(why.to_owned())),
            None => Ok([b"signed ", file].concat()),
        }
    }
}

struct Bench {
    gate: Gate,
    log: Arc<MemoryLog>,
    fake: Arc<Fake>,
}

impl Bench {
    fn new(fake: Fake, head: &str, tables: &str, world: &World) -> Self {
        let (log, fake) = (Arc::new(MemoryLog::new(100)), Arc::new(fake));
        let (shared, signer): (Arc<dyn DecisionLog>, Arc<dyn Signer>) =
            (Arc::<MemoryLog>::clone(&log), fake.clone());
        let gate = gate_signing(world, (&format!("{C2PA}\n{head}"), tables), shared, Some(signer)).unwrap();
        Self { gate, log, fake }
    }

    fn finished(&self, request: RequestInfo, objects: &[usize]) -> Instruction {
        self.gate.session(request).unwrap().finished(0, picture(objects, 0)).unwrap()
    }

    fn asked(&self) -> Vec<Asked> {
        self.fake.asked.lock().unwrap().clone()
    }
}

fn request() -> RequestInfo {
    RequestInfo::new("t", "a person at a table", 7, 1)
}

fn released(instruction: Instruction) -> ReleasedPicture {
    match instruction {
        Instruction::Release(released) => released,
        other => panic!("{other:?}"),
    }
}

fn withheld(instruction: Instruction) -> Withheld {
    match instruction {
        Instruction::Withhold(withheld) => withheld,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_released_picture_has_its_signed_file_in_the_format_that_was_asked_for() {
    for file in [FileFormat::Png, FileFormat::Jpeg(80), FileFormat::WebP] {
        let bench = Bench::new(Fake::default(), "", "", &World::new([]));
        let picture = released(bench.finished(RequestInfo { file, ..request() }, &[3]));
        assert!(picture.is_signed() && picture.stamp().is_none());
        assert_eq!(bench.asked().len(), 1);
        let signed = picture.encode(file).unwrap();
        let bare = picture.picture().encode(file).unwrap();
        assert_eq!(signed, [b"signed ", &bare[..]].concat());
        // It was signed once; only another format is signed now.
        assert_eq!(picture.encode(file).unwrap(), signed);
        assert_eq!(bench.asked().len(), 1);
        let other = picture.encode(FileFormat::Jpeg(11)).unwrap();
        assert!(other.starts_with(b"signed \xff\xd8"));
        let asked = bench.asked();
        assert_eq!((asked[0].0, asked[1].0, &asked[0].1), (file, FileFormat::Jpeg(11), &asked[1].1));
    }
}

#[test]
fn what_is_stated_is_the_decision_and_nobody_who_asked() {
    const REDACTED: &str = "[tenant.t.action]\ndefault = \"redact\"";
    const ALLOWED: &str = "[tenant.t.action]\ndefault = \"allow\"";
    for (tables, objects, reason) in
        [("", &[3][..], Reason::Safe), (ALLOWED, &[1], Reason::Allowed), (REDACTED, &[2], Reason::Redacted)]
    {
        let bench = Bench::new(Fake::default(), "", tables, &World::new([]));
        let asked = RequestInfo {
            requested_by: Some("key-of-ann".to_owned()),
            subject: Some("ann@example.com".to_owned()),
            origin: Origin::Reworked,
            ..request()
        };
        let picture = released(bench.finished(asked, objects));
        assert_eq!(picture.reason(), reason);
        let (_, statement) = bench.asked().remove(0);
        let record = picture.decision();
        let expected = Statement {
            version: env!("CARGO_PKG_VERSION"),
            constitution: record.constitution.clone(),
            decision_id: record.decision_id.clone(),
            decided_at: record.timestamp.clone(),
            redacted: reason == Reason::Redacted,
            origin: Origin::Reworked,
        };
        assert_eq!(statement, expected);
        let told = format!("{statement:?}");
        for absent in ["ann", "table", "armed", "on-fire"] {
            assert!(!told.contains(absent), "{absent}: {told}");
        }
    }
}

#[test]
fn what_cannot_be_signed_is_withheld_and_called_no_violation() {
    let failing = [
        (Fake { fails: Some("the certificate expired"), ..Fake::default() }, "the certificate expired"),
        (Fake { panics: true, ..Fake::default() }, "the signer panicked: the token is gone"),
    ];
    for (fake, says) in failing {
        let bench = Bench::new(fake, "on_error = \"release-unjudged\"", "", &World::new([]));
        let mut session = bench.gate.session(request()).unwrap();
        let withheld = withheld(session.finished(0, picture(&[3], 0)).unwrap());
        assert_eq!(withheld.reason(), Reason::SigningFailure);
        assert!(!withheld.reason().is_violation() && withheld.placeholder().is_some());
        let message = withheld.message();
        assert!(message.contains("this is no violation") && message.contains(says), "{message}");
        // The log says so too, and nothing else: it was never released.
        let records = bench.log.records();
        assert_eq!(records.len(), 1);
        assert_eq!((records[0].outcome, records[0].reason), (Outcome::Withheld, Reason::SigningFailure));
        assert_eq!((&records[0].released_picture, records[0].violated.len()), (&None, 0));
        assert_eq!(session.close().decisions[0].reason, Reason::SigningFailure);
    }
}

#[test]
fn only_what_a_verdict_lets_out_is_signed() {
    let shadow = Bench::new(Fake::default(), "mode = \"shadow\"", "", &World::new([]));
    let watched = released(shadow.finished(request(), &[1]));
    assert!(watched.is_watched_only() && !watched.is_signed() && shadow.asked().is_empty());
    assert_eq!(watched.encode_png().unwrap(), watched.picture().png().unwrap());
    let open =
        Bench::new(Fake::default(), "on_error = \"release-unjudged\"", "", &World::new([Fault::Error]));
    let unjudged = released(open.finished(request(), &[3]));
    assert!(unjudged.is_unjudged() && !unjudged.is_signed() && open.asked().is_empty());
    let previews = Bench::new(
        Fake::default(),
        "previews = [0.5]",
        "[tenant.t.client]\npreviews = true",
        &World::new([]),
    );
    let mut session = previews.gate.session(request()).unwrap();
    let told = session.preview(0, 4, 8, &picture(&[3], 0)).unwrap();
    let PreviewInstruction::Continue(Some(shown)) = told else { panic!("{told:?}") };
    assert!(!shown.is_signed() && previews.asked().is_empty());
}

#[test]
fn a_signed_file_does_not_leave_without_its_decision_in_the_log() {
    let log = Arc::new(FailingLog { lines: Mutex::new(0), from: 1, panics: false });
    let signer: Arc<dyn Signer> = Arc::new(Fake::default());
    let gate = gate_signing(&World::new([]), (C2PA, ""), log, Some(signer)).unwrap();
    let told = withheld(gate.session(request()).unwrap().finished(0, picture(&[3], 0)).unwrap());
    assert_eq!(told.reason(), Reason::LogFailure);
}

#[test]
fn where_nobody_signs_a_policy_that_asks_for_it_is_refused() {
    let log = || Arc::new(MemoryLog::new(1));
    let refused = |error: GateError| {
        let told = error.to_string();
        assert!(matches!(error, GateError::NoSigner { .. }), "{told}");
        for says in ["tenant t", "cargo build --release --features c2pa", "[provenance]", "got none"] {
            assert!(told.contains(says), "{says}: {told}");
        }
    };
    refused(gate_with(&World::new([]), C2PA, "", log()).map(drop).unwrap_err());
    // One model's table is enough.
    refused(
        gate_with(&World::new([]), "", &format!("[tenant.t.model.\"sd*\"]\n{C2PA}"), log())
            .map(drop)
            .unwrap_err(),
    );
    let gate = gate_with(&World::new([]), "", "", log()).unwrap();
    let policies = Policies::from_toml(&format!("[tenant.t]\n{C2PA}"), "policy.toml").unwrap();
    refused(gate.check_signer(&policies).unwrap_err());
    refused(gate.replace(&policies).map(drop).unwrap_err());
    // What was in force stays.
    assert!(!released(gate.session(request()).unwrap().finished(0, picture(&[3], 0)).unwrap()).is_signed());
}
