//! What a released file says of where it comes from.

use cluegate_gate::{Instruction, PreviewInstruction, Reason, ReleasedPicture, RequestInfo};

use cluegate_gate::fakes::{Fault, World, gate, picture};

/// The text of a PNG file; none if it has no chunk but those of the pixels.
fn text(file: &[u8]) -> Option<String> {
    let (mut rest, mut found) = (&file[8..], None);
    while let Some((length, after)) = rest.split_first_chunk() {
        let (kind, after) = after.split_at(4);
        let (content, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        match kind {
            b"IHDR" | b"IDAT" | b"IEND" => {}
            b"tEXt" => found = Some(String::from_utf8(content.to_vec()).unwrap()),
            other => panic!("{other:?}"),
        }
        rest = &after[4..];
    }
    found
}

fn released(head: &str, tables: &str, world: World, objects: &[usize]) -> ReleasedPicture {
    let (gate, _) = gate(&world, head, tables);
    let mut session = gate.session(RequestInfo::new("t", "a person at a table", 7, 1)).unwrap();
    match session.finished(0, picture(objects, 0)).unwrap() {
        Instruction::Release(released) => released,
        other => panic!("{other:?}"),
    }
}

const ALLOWED: &str = "[tenant.t.action]\ndefault = \"allow\"";
const REDACTED: &str = "[tenant.t.action]\ndefault = \"redact\"";

#[test]
fn a_file_states_gate_revision_and_decision_if_the_policy_says_so_and_nothing_else() {
    for (tables, objects, reason) in
        [("", &[3][..], Reason::Safe), (ALLOWED, &[1], Reason::Allowed), (REDACTED, &[2], Reason::Redacted)]
    {
        let picture = released("provenance = \"text\"", tables, World::new([]), objects);
        assert_eq!(picture.reason(), reason);
        let file = picture.encode_png().unwrap();
        let (version, record) = (env!("CARGO_PKG_VERSION"), picture.decision());
        let (revision, id) = (&record.constitution.revision, &record.decision_id);
        let expected = format!("gate=cluegate {version}; constitution={revision}; decision={id}");
        assert_eq!(text(&file), Some(format!("cluegate\0{expected}")));
        assert_eq!(picture.stamp().map(|stamp| stamp.text()), Some(expected.as_str()));
        assert_eq!(image::load_from_memory(&file).unwrap().into_rgb8(), *picture.pixels());
        // By default there are pixels only.
        let bare = released("", tables, World::new([]), objects);
        assert!(bare.stamp().is_none() && text(&bare.encode_png().unwrap()).is_none());
        assert!(bare.encode_png().unwrap().len() < file.len());
    }
}

#[test]
fn what_no_verdict_lets_out_states_nothing() {
    let watched = released("provenance = \"text\"\nmode = \"shadow\"", "", World::new([]), &[1]);
    assert!(watched.is_watched_only() && watched.stamp().is_none());
    assert_eq!(text(&watched.encode_png().unwrap()), None);
    let head = "provenance = \"text\"\non_error = \"release-unjudged\"";
    let unjudged = released(head, "", World::new([Fault::Error]), &[3]);
    assert!(unjudged.is_unjudged() && unjudged.stamp().is_none());
    // Nor does a preview, which says nothing about the picture.
    let head = "provenance = \"text\"\npreviews = [0.5]";
    let (gate, _) = gate(&World::new([]), head, "[tenant.t.client]\npreviews = true");
    let mut session = gate.session(RequestInfo::new("t", "a person at a table", 7, 1)).unwrap();
    let told = session.preview(0, 4, 8, &picture(&[3], 0)).unwrap();
    let PreviewInstruction::Continue(Some(shown)) = told else { panic!("{told:?}") };
    assert!(shown.stamp().is_none());
}

#[test]
fn only_a_file_of_the_format_takes_it() {
    let picture = released("provenance = \"text\"", "", World::new([]), &[3]);
    let stamp = picture.stamp().unwrap();
    let file = picture.encode_png().unwrap();
    assert!(stamp.on_jpeg(&file).unwrap_err().to_string().contains("expected a JPEG file"));
    assert!(stamp.on_png(b"RIFF").unwrap_err().to_string().contains("expected a PNG file"));
}
