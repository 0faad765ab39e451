//! Whatever the card and the weights, a student is read that has as many outputs as its card says, or it is refused. The
//! input is the card's length in two bytes, the card, and the weights, whose hash is put into the card where it has the word
//! HASH. Run with `cargo +nightly fuzz run load` in `src/student`.
#![no_main]

use cluegate_student::{CARD_FILE, Student, StudentError, WEIGHTS_FILE};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_at_checked(2) else { return };
    let length = usize::from(u16::from_le_bytes([length[0], length[1]])).min(rest.len());
    let (card, weights) = rest.split_at(length);
    let hash = blake3::hash(weights).to_hex().to_string();
    let card = String::from_utf8_lossy(card).replace("HASH", &hash);
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(CARD_FILE), card).expect("written");
    std::fs::write(folder.path().join(WEIGHTS_FILE), weights).expect("written");
    if let Ok(student) = Student::load(folder.path()) {
        let looks = student.looks();
        assert_eq!(looks.first.outputs(), student.card().outputs.len());
        let width = looks.closer.as_ref().map_or(0, |closer| closer.parts.width());
        let _ = student
            .say(&[vec![0.5; looks.first.width()]], || Ok::<_, StudentError>(vec![vec![0.5; width]; 2]));
    }
});
