//! Whether a response holds a picture that it may not hold.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use cluegate_gate::fakes;
use cluegate_perception::{ContentHash, Picture};
use image::RgbImage;
use serde::Deserialize;
use serde_json::Value;

/// Shorter texts hold nothing of a picture.
const SHORTEST: usize = 12;
/// How files of the formats begin that the gate or an upstream writes: PNG, JPEG, WebP (RIFF), GIF.
const SIGNATURES: [&[u8]; 4] = [PNG, b"\xff\xd8\xff", b"RIFF", b"GIF8"];
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Base64 without its end.
const CUT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// What of pictures is in an answer.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Whole ones.
    pub(super) pictures: Vec<RgbImage>,
    /// Beginnings of PNG files that cannot be read: parts of pictures. No answer has a use for one.
    pub(super) parts: u64,
}

/// Every picture in `body`: files in it as they are, and files in base64 in any string of JSON, of server-sent events, of
/// JSON in a string of JSON, or among other words.
pub(super) fn pictures_in(body: &[u8]) -> Held {
    let mut found = Held::default();
    files_in(body, &mut found);
    match serde_json::from_slice::<Value>(body) {
        Ok(json) => strings_of(&json, &mut found),
        Err(_) => {
            for line in String::from_utf8_lossy(body).lines() {
                let data = line.strip_prefix("data:").unwrap_or(line).trim();
                match serde_json::from_str::<Value>(data) {
                    Ok(json) => strings_of(&json, &mut found),
                    Err(_) => text_of(data, &mut found),
                }
            }
        }
    }
    found
}

/// Files that begin anywhere in `bytes`.
fn files_in(bytes: &[u8], found: &mut Held) {
    for from in 0..bytes.len() {
        let rest = &bytes[from..];
        let Some(signature) = SIGNATURES.iter().find(|signature| rest.starts_with(signature)) else {
            continue;
        };
        match image::load_from_memory(rest) {
            Ok(picture) => found.pictures.push(picture.into_rgb8()),
            // The other signatures are short enough to be met by chance in a picture's data.
            Err(_) if *signature == PNG => found.parts += 1,
            Err(_) => {}
        }
    }
}

fn strings_of(json: &Value, found: &mut Held) {
    match json {
        Value::String(text) => text_of(text, found),
        Value::Array(items) => items.iter().for_each(|item| strings_of(item, found)),
        Value::Object(fields) => fields.iter().for_each(|(name, field)| {
            text_of(name, found);
            strings_of(field, found);
        }),
        _ => {}
    }
}

fn text_of(text: &str, found: &mut Held) {
    if text.len() < SHORTEST {
        return;
    }
    if let Ok(json @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str::<Value>(text) {
        return strings_of(&json, found);
    }
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    for stretch in text.as_bytes().split(|byte| !is_base64(byte)) {
        // What was cut anywhere is read as far as it goes.
        let stretch = &stretch[..stretch.len() - usize::from(stretch.len() % 4 == 1)];
        if let Ok(bytes) = CUT.decode(stretch) {
            files_in(&bytes, found);
        }
    }
}

/// A picture of a response.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Its content.
    pub(super) hash: ContentHash,
    /// Ids of the rules that it violates, found without the judge.
    pub(super) violates: Vec<&'static str>,
    /// What was asked, for messages.
    pub(super) by: &'static str,
}

impl Seen {
    /// Looks at a picture.
    pub(super) fn new(pixels: RgbImage, by: &'static str) -> Self {
        let violates = fakes::violated(&pixels);
        Self { hash: Picture::new(pixels).hash(), violates, by }
    }
}

/// What a decision log says.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Hashes of all pictures that were released.
    released: HashSet<String>,
    /// Number of decisions, and of those that release.
    pub(super) decisions: u64,
    pub(super) releases: u64,
}

#[derive(Deserialize)]
struct Line {
    outcome: String,
    released_picture: Option<String>,
}

impl Log {
    /// Adds the log at `path`.
    ///
    /// # Errors
    /// If it cannot be read, or a line is no decision.
    pub(super) fn read(&mut self, path: &Path) -> anyhow::Result<()> {
        let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
        for line in BufReader::new(file).lines() {
            let line = line?;
            let line: Line =
                serde_json::from_str(&line).with_context(|| format!("a line of the log: {line}"))?;
            self.decisions += 1;
            if line.outcome == "released" {
                self.releases += 1;
                self.released.extend(line.released_picture);
            }
        }
        Ok(())
    }

    /// What is wrong with a response that held this picture; none if the log covers it with a release.
    pub(super) fn objection(&self, seen: &Seen) -> Option<String> {
        let covered = self.released.contains(&seen.hash.to_hex());
        match (seen.violates.as_slice(), covered) {
            ([], true) => None,
            ([], false) => Some(format!("{}: {} was never released", seen.by, seen.hash)),
            (violated, _) => Some(format!("{}: {} violates {violated:?}", seen.by, seen.hash)),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;
    use serde_json::json;

    use super::*;

    fn png(objects: &[usize]) -> Vec<u8> {
        cluegate_perception::encode_png(fakes::picture(objects, 3).pixels()).unwrap()
    }

    #[test]
    fn a_picture_is_found_wherever_it_hides() {
        let file = png(&[2]);
        let text = BASE64_STANDARD.encode(&file);
        let places: Vec<Vec<u8>> = vec![
            file.clone(),
            [b"some bytes before ", &*file].concat(),
            json!({ "images": [text] }).to_string().into_bytes(),
            json!({ "info": json!({ "deep": [{ "url": format!("data:image/png;base64,{text}") }] }).to_string() })
                .to_string()
                .into_bytes(),
            format!("event: x\ndata: {}\n\ndata: [DONE]\n\n", json!({ "b64_json": text })).into_bytes(),
            text.clone().into_bytes(),
            json!({ "error": format!("out of memory at {text}: see the log") }).to_string().into_bytes(),
            json!({ text.as_str(): 1 }).to_string().into_bytes(),
            [&[0, 0, 0, 1, 0, 0, 0, 2], &*file].concat(),
        ];
        for body in places {
            let found = pictures_in(&body);
            assert_eq!(
                (found.pictures.len(), found.parts),
                (1, 0),
                "{}",
                String::from_utf8_lossy(&body[..40])
            );
            assert_eq!(Seen::new(found.pictures[0].clone(), "test").violates, ["sword"]);
        }
        for length in [17, 40, 99] {
            for part in [
                format!("it said: {}", &text[..length]).into_bytes(),
                json!({ "message": &text[..length] }).to_string().into_bytes(),
                file[..length].to_vec(),
            ] {
                let found = pictures_in(&part);
                assert_eq!((found.pictures.len(), found.parts), (0, 1), "{}", String::from_utf8_lossy(&part));
            }
        }
        let harmless = pictures_in(json!({ "error": "x".repeat(200) }).to_string().as_bytes());
        assert_eq!((harmless.pictures.len(), harmless.parts), (0, 0));
    }

    #[test]
    fn only_a_release_of_the_very_picture_covers_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let seen = |objects: &[usize]| Seen::new(fakes::picture(objects, 9).pixels().clone(), "test");
        let (good, bad, other) =
            (seen(&[]), seen(&[2]), Seen::new(fakes::picture(&[], 10).pixels().clone(), "test"));
        let line = |outcome: &str, hash: &ContentHash| {
            json!({ "outcome": outcome, "released_picture": hash.to_hex() }).to_string() + "\n"
        };
        let lines =
            [line("released", &good.hash), line("released", &bad.hash), line("withheld", &other.hash)];
        std::fs::write(&path, lines.concat()).unwrap();
        let mut log = Log::default();
        log.read(&path).unwrap();
        assert_eq!((log.decisions, log.releases), (3, 2));
        assert_eq!(log.objection(&good), None);
        assert!(log.objection(&bad).unwrap().contains("sword"));
        assert!(log.objection(&other).unwrap().contains("never released"));
    }
}
