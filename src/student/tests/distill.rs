//! A student from labelled features to a folder and back.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use cluegate_student::{
    CARD_FILE, ConstitutionName, Distilled, Example, Goal, Said, Student, StudentError, StudentErrorKind,
    TrainOptions, WEIGHTS_FILE, distill, is_held_out,
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

/// Pictures of four parts, one of which may hold what violates the first rule; in the whole it is a fourth as plain, below
/// what else is there.
fn in_parts(count: usize, seed: u64) -> (Vec<Example>, Vec<Vec<Vec<f32>>>) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut example = |index: usize| {
        let mut parts: Vec<Vec<f32>> =
            (0..4).map(|_| (0..6).map(|_| random.random_range(-1.0f32..1.0)).collect()).collect();
        let violated = random.random_bool(0.3);
        if violated {
            parts[random.random_range(0..4)][3] = random.random_range(1.2f32..2.0);
        }
        let mean = |at: usize| parts.iter().map(|part| part[at]).sum::<f32>() / 4.0;
        let whole = (0..6).map(mean).collect();
        let key = format!("picture {index}");
        (Example { key, views: vec![whole], violated: vec![violated, false] }, parts)
    };
    (0..count).map(&mut example).unzip()
}

fn say(student: &Student, example: &Example, parts: &[Vec<f32>]) -> Said {
    student.say(&example.views, || Ok::<_, StudentError>(parts.to_vec())).unwrap()
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
    let shown = examples(4000, 3);
    made(&shown, distill::<StudentError>(&shown, &options(epochs), None).unwrap(), epochs)
}

/// One that looks closer.
fn closer(count: usize, seed: u64, epochs: usize) -> Student {
    let (shown, parts) = in_parts(count, seed);
    let mut of =
        |places: &[usize]| Ok::<_, StudentError>(places.iter().map(|at| parts[*at].clone()).collect());
    made(&shown, distill(&shown, &options(epochs), Some(&mut of)).unwrap(), epochs)
}

fn made(shown: &[Example], distilled: Distilled, epochs: usize) -> Student {
    let options = options(epochs);
    let held = shown.iter().filter(|example| is_held_out(&example.key, &options)).count();
    let kept = distilled.held_out.iter().filter(|(_, kept)| *kept).count();
    assert!(
        held == distilled.held_out.len() && kept as f64 / held as f64 - distilled.calibration.sent_on < 1e-6
    );
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
        kept += usize::from(!say(&student, example, &[]).cleared());
    }
    assert!(f64::from(kept as u32) / f64::from(all) > 0.94, "{kept} of {all}");
}

#[test]
fn what_the_whole_does_not_show_is_looked_at_closer() {
    let (shown, _) = in_parts(4000, 5);
    let first = made(&shown, distill::<StudentError>(&shown, &options(20), None).unwrap(), 20);
    let both = closer(4000, 5, 20);
    let sent = |student: &Student| student.card().held_out.sent_on;
    assert!(sent(&both) < sent(&first) - 0.1, "{:?} {:?}", first.card(), both.card());
    assert!(both.card().held_out.recall_lower_bound >= 0.95, "{:?}", both.card());
    let closer = both.card().closer.unwrap();
    assert!(first.card().closer.is_none() && (0.05..1.0).contains(&closer.looked_closer), "{closer:?}");
    // What the first look decides, no part is asked for.
    let (mut asked, mut cleared) = (0, 0);
    let (others, parts_of) = in_parts(1000, 6);
    for (example, own) in others.iter().zip(&parts_of) {
        let mut looked = false;
        let parts = || {
            looked = true;
            Ok::<_, StudentError>(own.clone())
        };
        let said = both.say(&example.views, parts).unwrap();
        assert_eq!(looked, said.closer);
        let band = closer.band;
        let decided =
            said.score >= band.send_from || band.clear_below.is_some_and(|below| said.score < below);
        assert!(
            said.closer
                || (decided && [Some(band.send_from), band.clear_below].contains(&Some(said.threshold)))
        );
        asked += usize::from(looked);
        cleared += usize::from(said.cleared());
    }
    assert!(
        (asked as f64 / 1000.0 - closer.looked_closer).abs() < 0.06 && cleared > 300,
        "{asked} {cleared}"
    );
    // A look without parts is no answer, and a source of parts that fails says why.
    let unsure =
        others.iter().zip(&parts_of).find(|(example, own)| say(&both, example, own).closer).unwrap().0;
    let none = both.say(&unsure.views, || Ok::<Vec<Vec<f32>>, StudentError>(Vec::new())).unwrap_err();
    assert_eq!(none.kind(), StudentErrorKind::NotANumber);
}

#[test]
fn the_same_labels_give_the_same_bytes_and_other_files_are_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let closer = || closer(1500, 3, 3);
    closer().save(one.path()).unwrap();
    closer().save(two.path()).unwrap();
    for name in [CARD_FILE, WEIGHTS_FILE] {
        assert_eq!(
            fs::read(one.path().join(name)).unwrap(),
            fs::read(two.path().join(name)).unwrap(),
            "{name}"
        );
    }
    let (one_more, read) = (closer(), Student::load(one.path()).unwrap());
    assert_eq!(
        (one_more.looks(), one_more.card(), one_more.fingerprint()),
        (read.looks(), read.card(), read.fingerprint())
    );
    let error = read.check_encoder("another").unwrap_err();
    assert_eq!(error.kind(), StudentErrorKind::Mismatch);
    assert!(error.to_string().contains("relevance encoder encoder, these models have another"), "{error}");
    let error = read.check_constitution("d", "s").unwrap_err();
    assert!(error.to_string().contains("constitution c at r, this is d at s"), "{error}");
    assert!(read.check_encoder("encoder").is_ok() && read.check_constitution("c", "r").is_ok());
    let of = |view: &[f32]| {
        read.say(&[view], || Ok::<Vec<Vec<f32>>, StudentError>(Vec::new())).unwrap_err().kind()
    };
    assert_eq!(of(&[0.0; 5]), StudentErrorKind::Mismatch);
    assert_eq!(of(&[f32::NAN; 6]), StudentErrorKind::NotANumber);
    // The weights of another student, a card with another threshold of no number, a file that was cut.
    // A card without the closer look that the weights have.
    let card = one.path().join(CARD_FILE);
    let whole = fs::read_to_string(&card).unwrap();
    let at = whole.find("\"closer\": {\n    \"band\"").unwrap();
    fs::write(&card, format!("{}\"closer\": null\n}}\n", &whole[..at])).unwrap();
    let error = Student::load(one.path()).unwrap_err();
    assert!(error.to_string().contains("that this student has no place for"), "{error}");
    fs::write(&card, whole).unwrap();
    student(4).save(two.path()).unwrap();
    fs::copy(two.path().join(WEIGHTS_FILE), one.path().join(WEIGHTS_FILE)).unwrap();
    let error = Student::load(one.path()).unwrap_err();
    assert!(error.to_string().contains("take both files of one folder"), "{error}");
    let card = two.path().join(CARD_FILE);
    let text = fs::read_to_string(&card).unwrap();
    fs::write(&card, text.replace("\"format\": 3", "\"format\": 2")).unwrap();
    assert!(Student::load(two.path()).unwrap_err().to_string().contains("format 2, expected 3"));
    fs::write(&card, &text[..text.len() / 2]).unwrap();
    assert_eq!(Student::load(two.path()).unwrap_err().kind(), StudentErrorKind::Malformed);
    fs::remove_file(&card).unwrap();
    assert_eq!(Student::load(two.path()).unwrap_err().kind(), StudentErrorKind::File);
}

#[test]
fn labels_that_show_too_little_are_refused() {
    let goal = TrainOptions { epochs: 1, ..TrainOptions::default() };
    let error = distill::<StudentError>(&examples(300, 1), &goal, None).unwrap_err();
    assert!(error.to_string().contains("unsafe pictures were held out; expected at least 299"), "{error}");
    let safe: Vec<Example> = examples(300, 1)
        .into_iter()
        .map(|example| Example { violated: vec![false, false], ..example })
        .collect();
    let error = distill::<StudentError>(&safe, &goal, None).unwrap_err();
    assert!(error.to_string().contains("0 of them unsafe"), "{error}");
    assert_eq!(distill::<StudentError>(&[], &goal, None).unwrap_err().kind(), StudentErrorKind::Labels);
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
            prop_assert_eq!(student.looks().first.outputs(), student.card().outputs.len());
        }
    }
}

/// A student that is made once, for its files.
fn student_of_two() -> &'static Student {
    static MADE: std::sync::OnceLock<Student> = std::sync::OnceLock::new();
    MADE.get_or_init(|| closer(1500, 1, 1))
}
