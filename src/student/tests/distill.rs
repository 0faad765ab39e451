//! A student from labelled features to a folder and back.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use cluegate_student::{
    CARD_FILE, ConstitutionName, Example, Goal, Student, StudentErrorKind, TrainOptions, WEIGHTS_FILE,
    distill,
};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// Pictures with two rules: the first is violated where two features agree in sign, which no linear head sees, the second
/// where a third is large.
fn examples(count: usize, seed: u64) -> Vec<Example> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut example = |index: usize| {
        let view: Vec<f32> = (0..6).map(|_| random.random_range(-1.0f32..1.0)).collect();
        let violated = vec![view[0] * view[1] > 0.35, view[2] > 0.85];
        Example { key: format!("picture {index}"), views: vec![view], violated }
    };
    (0..count).map(&mut example).collect()
}

fn options(epochs: usize) -> TrainOptions {
    TrainOptions {
        epochs,
        hidden: vec![0, 48],
        goal: Goal { recall: 0.95, confidence: 0.9 },
        ..TrainOptions::default()
    }
}

fn student(epochs: usize) -> Student {
    let options = options(epochs);
    let distilled = distill(&examples(4000, 3), &options).unwrap();
    let constitution = ConstitutionName { name: "c".into(), revision: "r".into() };
    let about = ("numbers".to_owned(), "encoder".to_owned(), constitution, "labels".to_owned());
    Student::new(&distilled, &options, vec!["one".into(), "two".into()], about).unwrap()
}

#[test]
fn it_learns_what_it_is_shown_and_keeps_what_it_promised() {
    let student = student(80);
    let card = student.card();
    assert!(card.held_out.recall_lower_bound >= 0.95 && card.held_out.recall >= 0.95, "{card:?}");
    let unsafe_share = card.held_out.unsafe_pictures as f64 / card.held_out.pictures as f64;
    // A linear head cannot tell; the hidden layer sends few on beyond the unsafe ones.
    let [linear, hidden] = &card.cross_validation[..] else { panic!("{card:?}") };
    assert!(hidden.sent_on < linear.sent_on - 0.2, "{card:?}");
    assert!(card.held_out.sent_on < unsafe_share + 0.3, "{card:?}");
    // Other pictures of the same kind.
    let others = examples(4000, 4);
    let (mut kept, mut all) = (0, 0);
    for example in others.iter().filter(|example| example.violated.contains(&true)) {
        all += 1;
        let score = student.score(example.views.iter().map(Vec::as_slice)).unwrap();
        kept += usize::from(score >= student.threshold());
    }
    assert!(f64::from(kept as u32) / f64::from(all) > 0.94, "{kept} of {all}");
}

#[test]
fn the_same_labels_give_the_same_bytes_and_other_files_are_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    student(3).save(one.path()).unwrap();
    student(3).save(two.path()).unwrap();
    for name in [CARD_FILE, WEIGHTS_FILE] {
        assert_eq!(
            fs::read(one.path().join(name)).unwrap(),
            fs::read(two.path().join(name)).unwrap(),
            "{name}"
        );
    }
    let (made, read) = (student(3), Student::load(one.path()).unwrap());
    assert_eq!(
        (made.head(), made.card(), made.fingerprint()),
        (read.head(), read.card(), read.fingerprint())
    );
    let error = read.check_encoder("another").unwrap_err();
    assert_eq!(error.kind(), StudentErrorKind::Mismatch);
    assert!(error.to_string().contains("relevance encoder encoder, these models have another"), "{error}");
    let error = read.check_constitution("d", "s").unwrap_err();
    assert!(error.to_string().contains("constitution c at r, this is d at s"), "{error}");
    assert!(read.check_encoder("encoder").is_ok() && read.check_constitution("c", "r").is_ok());
    assert_eq!(read.score([&[0.0f32; 5][..]]).unwrap_err().kind(), StudentErrorKind::Mismatch);
    assert_eq!(read.score([&[f32::NAN; 6][..]]).unwrap_err().kind(), StudentErrorKind::NotANumber);
    // The weights of another student, a card with another threshold of no number, a file that was cut.
    student(4).save(two.path()).unwrap();
    fs::copy(two.path().join(WEIGHTS_FILE), one.path().join(WEIGHTS_FILE)).unwrap();
    let error = Student::load(one.path()).unwrap_err();
    assert!(error.to_string().contains("take both files of one folder"), "{error}");
    let card = two.path().join(CARD_FILE);
    let text = fs::read_to_string(&card).unwrap();
    fs::write(&card, text.replace("\"format\": 2", "\"format\": 1")).unwrap();
    assert!(Student::load(two.path()).unwrap_err().to_string().contains("format 1, expected 2"));
    fs::write(&card, &text[..text.len() / 2]).unwrap();
    assert_eq!(Student::load(two.path()).unwrap_err().kind(), StudentErrorKind::Malformed);
    fs::remove_file(&card).unwrap();
    assert_eq!(Student::load(two.path()).unwrap_err().kind(), StudentErrorKind::File);
}

#[test]
fn labels_that_show_too_little_are_refused() {
    let goal = TrainOptions { epochs: 1, ..TrainOptions::default() };
    let error = distill(&examples(300, 1), &goal).unwrap_err();
    assert!(error.to_string().contains("unsafe pictures were held out; expected at least 299"), "{error}");
    let safe: Vec<Example> = examples(300, 1)
        .into_iter()
        .map(|example| Example { violated: vec![false, false], ..example })
        .collect();
    let error = distill(&safe, &goal).unwrap_err();
    assert!(error.to_string().contains("0 of them unsafe"), "{error}");
    assert_eq!(distill(&[], &goal).unwrap_err().kind(), StudentErrorKind::Labels);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_weights_are_read_or_refused(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        // The hash stands before the weights: change both, as somebody else's file would have it.
        let folder = tempfile::tempdir().unwrap();
        student_of_two().save(folder.path()).unwrap();
        let path = folder.path().join(WEIGHTS_FILE);
        let mut bytes = fs::read(&path).unwrap();
        let old = blake3::hash(&bytes).to_hex().to_string();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        fs::write(&path, &bytes).unwrap();
        let card = folder.path().join(CARD_FILE);
        let text = fs::read_to_string(&card).unwrap().replace(&old, blake3::hash(&bytes).to_hex().as_ref());
        fs::write(&card, text).unwrap();
        if let Ok(student) = Student::load(folder.path()) {
            prop_assert_eq!(student.head().outputs(), student.card().outputs.len());
        }
    }
}

/// A student that is made once, for its files.
fn student_of_two() -> &'static Student {
    static MADE: std::sync::OnceLock<Student> = std::sync::OnceLock::new();
    MADE.get_or_init(|| student(1))
}
