//! What stands in a signed file, and what a reader makes of it.

use c2pa::{Reader, ValidationState};
use cluegate_gate::{Origin, Statement};
use cluegate_perception::FileFormat;
use cluegate_provenance::{Algorithm, DECISION_LABEL};
use serde_json::{Value, json};

use crate::support::{Desk, FORMATS, file, read, statement};

fn manifest(reader: &Reader) -> Value {
    serde_json::from_str::<Value>(&reader.json()).unwrap()["manifests"][reader.active_label().unwrap()]
        .clone()
}

fn assertion(manifest: &Value, label: &str) -> Value {
    let all = manifest["assertions"].as_array().unwrap();
    all.iter().find(|one| one["label"] == label).unwrap_or_else(|| panic!("{label} in {manifest}"))["data"]
        .clone()
}

/// Codes of what is wrong with a file.
fn failures(reader: &Reader) -> Vec<String> {
    let all = reader.validation_status().unwrap_or_default();
    all.iter().map(|status| status.code().to_owned()).collect()
}

#[test]
fn a_reader_finds_a_valid_file_of_an_authority_that_it_need_not_know() {
    let desk = Desk::new();
    for algorithm in [Algorithm::Es256, Algorithm::Es384, Algorithm::Ed25519] {
        let signer = desk.signer(algorithm);
        for format in FORMATS {
            let signed = signer.sign(&file(format), format, &statement()).unwrap();
            let stranger = read(&signed, format, None).unwrap();
            assert_eq!(stranger.validation_state(), ValidationState::Valid, "{format:?} {algorithm:?}");
            assert_eq!(failures(&stranger), ["signingCredential.untrusted"]);
            let friend = read(&signed, format, Some(&desk.root)).unwrap();
            assert_eq!(friend.validation_state(), ValidationState::Trusted, "{format:?} {algorithm:?}");
            assert_eq!(failures(&friend), [""; 0]);
            assert!(friend.is_embedded() && friend.remote_url().is_none());
            assert_eq!(manifest(&friend)["signature_info"]["alg"], capital(algorithm.as_str()));
        }
    }
}

fn capital(name: &str) -> String {
    name[..1].to_uppercase() + &name[1..]
}

#[test]
fn a_file_states_the_gate_the_constitution_and_the_decision_and_nothing_of_the_requester() {
    let desk = Desk::new();
    let signed =
        desk.signer(Algorithm::Es256).sign(&file(FileFormat::Png), FileFormat::Png, &statement()).unwrap();
    let manifest = manifest(&read(&signed, FileFormat::Png, None).unwrap());
    let generator = &manifest["claim_generator_info"][0];
    assert_eq!((&generator["name"], &generator["version"]), (&json!("cluegate"), &json!("0.1.0")));
    let expected = json!({
        "schema": 1,
        "gate": "cluegate 0.1.0",
        "constitution": { "name": "scene", "revision": "ab".repeat(32) },
        "decision": "0199aaaa-0000-7000-8000-000000000001",
        "decided_at": "2026-11-23T09:00:00Z",
        "outcome": "released",
    });
    assert_eq!(assertion(&manifest, DECISION_LABEL), expected);
    let drawn = json!([{
        "action": "c2pa.created",
        "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
    }]);
    assert_eq!(assertion(&manifest, "c2pa.actions.v2")["actions"], drawn);
    let labels: Vec<&str> =
        manifest["assertions"].as_array().unwrap().iter().map(|one| one["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["c2pa.actions.v2", DECISION_LABEL]);
    for absent in ["thumbnail", "title", "ingredients"] {
        assert!(manifest.get(absent).is_none_or(|value| value == &json!([])), "{absent}: {manifest}");
    }
}

#[test]
fn what_was_hidden_reworked_or_brought_is_said_as_it_is() {
    let desk = Desk::new();
    let signer = desk.signer(Algorithm::Es256);
    let actions = |statement: &Statement| {
        let signed = signer.sign(&file(FileFormat::Png), FileFormat::Png, statement).unwrap();
        let reader = read(&signed, FileFormat::Png, Some(&desk.root)).unwrap();
        assert_eq!(reader.validation_state(), ValidationState::Trusted, "{}", reader.json());
        let manifest = manifest(&reader);
        let actions = assertion(&manifest, "c2pa.actions.v2")["actions"].clone();
        (actions, assertion(&manifest, DECISION_LABEL)["outcome"].clone(), manifest["ingredients"].clone())
    };
    let (told, outcome, _) = actions(&Statement { redacted: true, ..statement() });
    assert_eq!(
        (told[0]["action"].as_str(), told[1]["action"].as_str()),
        (Some("c2pa.created"), Some("c2pa.edited"))
    );
    assert_eq!(outcome, "released-redacted");
    let (told, outcome, _) = actions(&Statement { origin: Origin::Reworked, ..statement() });
    let kind = told[0]["digitalSourceType"].as_str().unwrap();
    assert!(kind.ends_with("/compositeWithTrainedAlgorithmicMedia"), "{kind}");
    assert_eq!((told.as_array().unwrap().len(), outcome), (1, json!("released")));
    // Nobody knows how it was made.
    let (told, _, ingredients) =
        actions(&Statement { origin: Origin::Brought, redacted: true, ..statement() });
    assert_eq!(
        (told[0]["action"].as_str(), told[1]["action"].as_str()),
        (Some("c2pa.opened"), Some("c2pa.edited"))
    );
    assert_eq!(told[0].get("digitalSourceType"), None);
    assert_eq!(ingredients[0]["relationship"], "parentOf");
    assert_eq!((ingredients[0].get("thumbnail"), ingredients[0].get("title")), (None, None));
}

#[test]
fn nothing_but_the_manifest_is_added_and_the_pixels_stay() {
    let signer = Desk::new().signer(Algorithm::Es256);
    for format in FORMATS {
        let bare = file(format);
        let signed = signer.sign(&bare, format, &statement()).unwrap();
        let pixels = |file: &[u8]| image::load_from_memory(file).unwrap().into_rgb8();
        assert_eq!(pixels(&signed), pixels(&bare), "{format:?}");
        let added = parts(&signed, format).into_iter().filter(|part| !parts(&bare, format).contains(part));
        let expected = match format {
            FileFormat::Png => "caBX",
            FileFormat::Jpeg(_) => "FFEB",
            FileFormat::WebP => "C2PA",
        };
        let added: Vec<String> = added.collect();
        assert!(!added.is_empty() && added.iter().all(|part| part == expected), "{format:?}: {added:?}");
        for word in [&b"http://ns.adobe.com"[..], b"Exif", b"tEXt"] {
            assert!(!signed.windows(word.len()).any(|window| window == word), "{format:?}");
        }
        // A certificate, a signature and a few hundred bytes of statement.
        assert!(signed.len() - bare.len() < 8192, "{format:?}: {} more bytes", signed.len() - bare.len());
    }
}

/// Names of the chunks or segments of a file, up to the pixels of a JPEG.
fn parts(file: &[u8], format: FileFormat) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (mut at, mut found) = (
        match format {
            FileFormat::Png => 8,
            FileFormat::Jpeg(_) => 2,
            FileFormat::WebP => 12,
        },
        vec![],
    );
    while at + 8 <= file.len() {
        let (name, next) = match format {
            FileFormat::Png => {
                let length = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
                (text(&file[at + 4..at + 8]), at + 12 + length)
            }
            FileFormat::Jpeg(_) => {
                let length = usize::from(u16::from_be_bytes(file[at + 2..at + 4].try_into().unwrap()));
                (format!("{:02X}{:02X}", file[at], file[at + 1]), at + 2 + length)
            }
            FileFormat::WebP => {
                let length = u32::from_le_bytes(file[at + 4..at + 8].try_into().unwrap()) as usize;
                (text(&file[at..at + 4]), at + 8 + length + length % 2)
            }
        };
        let last = name == "FFDA";
        found.push(name);
        if last {
            break;
        }
        at = next;
    }
    found
}

#[test]
fn a_changed_pixel_or_statement_is_found() {
    let desk = Desk::new();
    let signer = desk.signer(Algorithm::Es256);
    for format in FORMATS {
        let signed = signer.sign(&file(format), format, &statement()).unwrap();
        let finds = |what: &[u8], change: fn(u8) -> u8, failure: &str| {
            let mut other = signed.clone();
            let place = other.windows(what.len()).position(|window| window == what).unwrap();
            other[place] = change(other[place]);
            let reader = read(&other, format, Some(&desk.root)).unwrap();
            assert_eq!(reader.validation_state(), ValidationState::Invalid, "{format:?}");
            assert!(failures(&reader).contains(&failure.to_owned()), "{:?}", failures(&reader));
        };
        // Near the end of the file without a manifest: compressed pixels.
        let bare = file(format);
        finds(&bare[bare.len() - 60..bare.len() - 40], |byte| byte ^ 1, "assertion.dataHash.mismatch");
        finds(statement().decision_id.as_bytes(), |_| b'1', "assertion.hashedURI.mismatch");
    }
}

#[test]
fn a_signature_does_not_go_over_to_another_picture() {
    let desk = Desk::new();
    let signed =
        desk.signer(Algorithm::Es256).sign(&file(FileFormat::Png), FileFormat::Png, &statement()).unwrap();
    // The manifest's chunk, put into the file of another picture behind its header.
    let length = u32::from_be_bytes(signed[33..37].try_into().unwrap()) as usize;
    assert_eq!(&signed[37..41], b"caBX");
    let other = cluegate_perception::encode(&image::RgbImage::new(96, 64), FileFormat::Png).unwrap();
    let moved = [&other[..33], &signed[33..33 + 12 + length], &other[33..]].concat();
    let reader = read(&moved, FileFormat::Png, Some(&desk.root)).unwrap();
    assert_eq!(reader.validation_state(), ValidationState::Invalid);
}

#[test]
fn what_is_no_file_of_the_format_is_not_signed() {
    let signer = Desk::new().signer(Algorithm::Es256);
    for format in FORMATS {
        assert!(signer.sign(b"no picture", format, &statement()).is_err(), "{format:?}");
    }
}
