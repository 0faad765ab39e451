//! Data sets on disk: what is written is read back, and what is not there or leads elsewhere is refused.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use cluegate_eval::data::{
    DataError, DataSet, FileSet, Format, LABELS_FILE, Problem, PromptFormat, Text, Truth, export,
};
use cluegate_eval::scenes::{SceneOptions, SceneSet};
use cluegate_mini::{RULE_IDS, Style, World};
use proptest::prelude::*;

fn pairs() -> SceneSet {
    SceneSet::pairs(World::load().unwrap(), SceneOptions { seed: 3, per_rule: 1, style: Style::World })
}

fn error(format: Format, folder: &Path) -> DataError {
    FileSet::open(format, folder, None).unwrap_err()
}

#[test]
fn an_exported_set_is_read_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let set = pairs();
    let mut written = 0;
    export(&set, folder.path(), || written += 1).unwrap();
    let read = FileSet::open(Format::Folder, folder.path(), None).unwrap();
    assert_eq!((written, read.rows().len()), (2 * RULE_IDS.len(), set.rows().len()));
    let mut rules = RULE_IDS.map(str::to_owned);
    rules.sort();
    assert_eq!(read.rules(), rules);
    for (index, (read_row, row)) in read.rows().iter().zip(set.rows()).enumerate() {
        assert_eq!((&read_row.id, &read_row.truth, &read_row.pair), (&row.id, &row.truth, &row.pair));
        assert_eq!(read.picture(index).unwrap().hash(), set.picture(index).unwrap().hash());
    }
    assert_eq!(read.revision(), FileSet::open(Format::Folder, folder.path(), None).unwrap().revision());
    assert_ne!(read.revision(), set.revision());
}

#[test]
fn labels_as_safe_and_unsafe_stay_that() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    image::RgbImage::new(3, 2).save(first.path().join("a.png")).unwrap();
    fs::write(first.path().join(LABELS_FILE), "image,label\na.png,unsafe\n").unwrap();
    let set = FileSet::open(Format::Folder, first.path(), None).unwrap();
    export(&set, second.path(), || {}).unwrap();
    let again = FileSet::open(Format::Folder, second.path(), None).unwrap();
    assert_eq!(again.rows()[0].truth, Truth::Unsafe(true));
    assert!(again.rules().is_empty());
}

#[test]
fn pictures_have_to_be_there_and_below_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let labels = folder.path().join(LABELS_FILE);
    assert!(matches!(error(Format::Folder, folder.path()).problem, Problem::Unreadable(_)));
    fs::write(&labels, "image,label\na.png,safe\n").unwrap();
    let missing = error(Format::Folder, folder.path());
    assert!(
        matches!(missing.problem, Problem::MissingPicture { .. }) && missing.line == Some(2),
        "{missing}"
    );
    for outside in ["../a.png", "/etc/hostname"] {
        fs::write(&labels, format!("image,label\n{outside},safe\n")).unwrap();
        let refused = error(Format::Folder, folder.path());
        assert!(refused.to_string().contains("a path below the folder of pictures"), "{refused}");
    }
    fs::write(&labels, b"image,label\n\xFF,safe\n").unwrap();
    assert!(matches!(error(Format::Folder, folder.path()).problem, Problem::NotUtf8(12)));
    fs::write(&labels, "image,label,id\na.png,safe,x\nb.png,safe,x\n").unwrap();
    let repeated = error(Format::Folder, folder.path());
    assert!(matches!(repeated.problem, Problem::Repeated { first: 2, .. }), "{repeated}");
}

#[test]
fn a_picture_that_is_none_is_an_error_of_its_row() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.png"), "no picture").unwrap();
    fs::write(
        folder.path().join("rows.jsonl"),
        r#"{"image_path":"a.png","safety_label":"safe","policy":"No."}"#,
    )
    .unwrap();
    let set = FileSet::open(Format::SafeEditBench, &folder.path().join("rows.jsonl"), None).unwrap();
    let refused = set.picture(0).unwrap_err();
    assert!(refused.to_string().contains("not an image"), "{refused}");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(content in "[a-c{}\\[\\]\":,\n0-2]{0,60}") {
        let text = Text { file: "any", content: &content };
        for format in Format::ALL {
            let _ = format.parse(text);
        }
        for format in PromptFormat::ALL {
            let _ = format.parse(text);
        }
    }
}
