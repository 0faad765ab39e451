//! Verification finds exactly what was done to a log, and nothing where nothing was done.

use cluegate_audit::{Fault, LogPlaces, Problem, VerifyOptions};
use proptest::prelude::*;

use crate::support::{places, runtime, settings, write};

/// What somebody does to the lines of a log.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Nothing,
    /// Changes a word of the hashed part.
    Change(usize),
    /// Changes an erasable part.
    ChangePrompt(usize),
    /// Removes an erasable part and its salt, and does not say so.
    RemovePrompt(usize),
    /// Removes an erasable part as an erasure does, without the entry that says so.
    Erase(usize),
    /// Removes a line that is not the last.
    Remove(usize),
    /// Removes lines from the end.
    CutOff(usize),
    /// Writes a line twice.
    Repeat(usize),
    /// Changes places of a line and the next.
    Swap(usize),
    /// Cuts the last line short, as a crash does.
    Tear,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        Just(Deed::Nothing),
        (0_usize..5).prop_map(Deed::Change),
        (0_usize..5).prop_map(Deed::ChangePrompt),
        (0_usize..5).prop_map(Deed::RemovePrompt),
        (0_usize..5).prop_map(Deed::Erase),
        (0_usize..4).prop_map(Deed::Remove),
        (1_usize..5).prop_map(Deed::CutOff),
        (0_usize..5).prop_map(Deed::Repeat),
        (0_usize..4).prop_map(Deed::Swap),
        Just(Deed::Tear),
    ]
}

fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap()
}

/// Does it to the lines of five entries.
fn commit(deed: Deed, lines: &mut Vec<String>) {
    let remove_prompt = |line: &str| {
        let mut entry = json(line);
        entry["input"]["request"].as_object_mut().unwrap().shift_remove("prompt");
        entry["salts"].as_object_mut().unwrap().shift_remove("/input/request/prompt");
        entry
    };
    match deed {
        Deed::Nothing | Deed::Tear => {}
        Deed::Change(at) => lines[at] = lines[at].replace("\"request-", "\"requesd-"),
        Deed::ChangePrompt(at) => lines[at] = lines[at].replace("a secret", "a public"),
        Deed::RemovePrompt(at) => lines[at] = remove_prompt(&lines[at]).to_string(),
        Deed::Erase(at) => {
            let mut entry = remove_prompt(&lines[at]);
            entry["erased"] = serde_json::json!(["/input/request/prompt"]);
            lines[at] = entry.to_string();
        }
        Deed::Remove(at) => drop(lines.remove(at)),
        Deed::CutOff(count) => lines.truncate(5 - count),
        Deed::Repeat(at) => lines.insert(at, lines[at].clone()),
        Deed::Swap(at) => lines.swap(at, at + 1),
    }
}

/// The number of the entry and the kind of problem that must be found.
fn expected(deed: Deed) -> Option<(Option<u64>, &'static str)> {
    let seq = |at: usize| Some(at as u64 + 1);
    Some(match deed {
        Deed::Nothing => return None,
        Deed::Change(at) => (seq(at), "body"),
        Deed::ChangePrompt(at) => (seq(at), "part"),
        Deed::RemovePrompt(at) => (seq(at), "gone"),
        Deed::Erase(at) => (seq(at), "unexplained"),
        // Nobody knows what was before the first line.
        Deed::Remove(0) => return None,
        Deed::Remove(at) => (seq(at + 1), "missing"),
        Deed::CutOff(count) => (Some(5 - count as u64), "cut-off"),
        Deed::Repeat(at) => (seq(at), "repeated"),
        Deed::Swap(0) => (seq(0), "repeated"),
        Deed::Swap(at) => (seq(at + 1), "missing"),
        Deed::Tear => (None, "torn"),
    })
}

fn kind(problem: &Problem) -> &'static str {
    match problem {
        Problem::Changed(Fault::Body) => "body",
        Problem::Changed(Fault::Part { .. }) => "part",
        Problem::Changed(Fault::PartGone { .. }) => "gone",
        Problem::Missing { .. } => "missing",
        Problem::Repeated => "repeated",
        Problem::CutOff { .. } => "cut-off",
        Problem::Torn => "torn",
        Problem::Unexplained => "unexplained",
        _ => "other",
    }
}

fn found(places: &LogPlaces) -> Option<(Option<u64>, &'static str)> {
    let verified = places.verify(&VerifyOptions::default(), &mut |_| {}).unwrap();
    verified.broken.map(|broken| (broken.seq, kind(&broken.problem)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_was_done_to_a_log_is_found(deed in deed(), rotated in 0_usize..5) {
        let folder = tempfile::tempdir().unwrap();
        let (runtime, settings) = (runtime(), settings(folder.path()));
        let path = folder.path().join("decisions.jsonl");
        write(&runtime, &settings, 5);
        let mut lines: Vec<String> = std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        commit(deed, &mut lines);
        let split = rotated.min(lines.len().saturating_sub(1));
        let write = |lines: &[String]| lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect::<String>();
        if split > 0 {
            std::fs::write(folder.path().join("decisions.jsonl.1"), write(&lines[..split])).unwrap();
        }
        let mut rest = write(&lines[split..]);
        if matches!(deed, Deed::Tear) {
            rest.truncate(rest.len() - 5);
        }
        std::fs::write(&path, rest).unwrap();
        // A file whose first line is another's is not in its order any more, which is for the other cases to find.
        prop_assume!(split == 0 || !matches!(deed, Deed::Swap(_) | Deed::Repeat(_)));
        prop_assert_eq!(found(&places(&runtime, &settings, None)), expected(deed));
    }

    /// Whatever byte of a log is changed, verification says so, unless what the line says is the same.
    #[test]
    fn no_byte_can_be_changed_unseen(place in 0.0_f64..1.0, bit in 0_u32..8) {
        let folder = tempfile::tempdir().unwrap();
        let (runtime, settings) = (runtime(), settings(folder.path()));
        let path = folder.path().join("decisions.jsonl");
        write(&runtime, &settings, 3);
        let mut bytes = std::fs::read(&path).unwrap();
        let same = |a: &[u8], b: &[u8]| {
            let read = |bytes: &[u8]| {
                bytes.split(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).ok()).collect::<Vec<Option<serde_json::Value>>>()
            };
            read(a) == read(b)
        };
        let before = bytes.clone();
        let index = ((bytes.len() as f64 * place) as usize).min(bytes.len() - 1);
        bytes[index] ^= 1 << bit;
        prop_assume!(!same(&before, &bytes));
        std::fs::write(&path, &bytes).unwrap();
        prop_assert!(found(&places(&runtime, &settings, None)).is_some(), "byte {index} bit {bit}");
    }
}

#[test]
fn anchors_begin_a_verification_and_find_another_history() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, settings) = (runtime(), settings(folder.path()));
    let path = folder.path().join("decisions.jsonl");
    write(&runtime, &settings, 5);
    let places = places(&runtime, &settings, None);
    let verify = |anchor: &cluegate_audit::entry::Position| {
        let options = VerifyOptions { anchors: vec![anchor.clone()], pictures: false };
        places.verify(&options, &mut |_| {}).unwrap()
    };
    let third = crate::support::find(&places, &cluegate_audit::Query::for_operator())[2].chain.position();
    assert_eq!(verify(&third).broken, None);
    let other = cluegate_audit::entry::Position { hash: "0".repeat(64), ..third.clone() };
    assert!(matches!(verify(&other).broken.unwrap().problem, Problem::Differs { .. }));
    let later = cluegate_audit::entry::Position { seq: 9, ..third.clone() };
    assert!(matches!(verify(&later).broken.unwrap().problem, Problem::CutOff { known: 9, .. }));
    // What stands before the anchor may be broken or gone.
    let text = std::fs::read_to_string(&path).unwrap().replacen("request-1\"", "request-0\"", 1);
    std::fs::write(&path, &text).unwrap();
    assert_eq!(verify(&third).broken, None);
    let keep = |count: usize| {
        let rest: String = text.lines().skip(count).flat_map(|line| [line, "\n"]).collect();
        std::fs::write(&path, rest).unwrap();
    };
    // The next entry names it.
    keep(3);
    assert_eq!(verify(&third).broken, None);
    assert!(matches!(verify(&other).broken.unwrap().problem, Problem::Missing { from: 3, to: 3 }));
    keep(4);
    assert!(matches!(verify(&third).broken.unwrap().problem, Problem::Missing { from: 3, to: 4 }));
}

#[test]
fn a_head_without_the_key_is_found_to_be_forged() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, settings) = (runtime(), settings(folder.path()));
    let path = folder.path().join("decisions.jsonl");
    write(&runtime, &settings, 3);
    // Cuts off the end and makes a head for what is left.
    let text = std::fs::read_to_string(&path).unwrap();
    let two: Vec<&str> = text.lines().take(2).collect();
    let last = json(two[1])["chain"].clone();
    let head_path = folder.path().join("decisions.jsonl.head");
    let mut head = json(&std::fs::read_to_string(&head_path).unwrap());
    head["seq"] = last["seq"].clone();
    head["hash"] = last["hash"].clone();
    std::fs::write(&head_path, head.to_string()).unwrap();
    std::fs::write(&path, format!("{}\n{}\n", two[0], two[1])).unwrap();
    let verified = places(&runtime, &settings, None).verify(&VerifyOptions::default(), &mut |_| {}).unwrap();
    assert!(matches!(verified.broken.unwrap().problem, Problem::Forged));
}
