//! The worst errors, each with its picture and what the answer rests on.

use std::collections::HashMap;
use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluegate_eval::data::DataSet;
use cluegate_eval::metrics::Judged;
use cluegate_eval::record::{ConstitutionRecord, RowRecord};
use cluegate_eval::worst::WrongAnswer;
use cluegate_judge::{FoundRegion, Outcome, PreconditionEvidence, RuleEvidence, StatementEvidence};
use cluegate_perception::Picture;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, thumbnail};
use serde::Serialize;

use super::plot::{bar, shortened};
use crate::cli::judge_words;

/// Longest side of a thumbnail, in pixels.
const SIDE: u32 = 184;
/// Quality of its JPEG.
const QUALITY: u8 = 82;
/// Most bytes of all thumbnails of a page, as `data:` addresses: they are the bulk of it.
pub(super) const MAX_BYTES: usize = 4 << 20;
/// Most characters of what a model wrote, and of a prompt.
const WORDS: usize = 400;

/// One error.
#[derive(Debug, Serialize)]
pub(super) struct ShownError {
    id: String,
    alt: String,
    picture: Option<String>,
    without: &'static str,
    width: u32,
    height: u32,
    boxes: Vec<FoundRegion>,
    marks: Vec<Mark>,
    text: Option<String>,
    rules: Vec<ShownRule>,
    words: Option<String>,
}

#[derive(Debug, Serialize)]
struct Mark {
    class: &'static str,
    text: String,
}

#[derive(Debug, Serialize)]
struct ShownRule {
    id: String,
    words: Option<String>,
    outcome: &'static str,
    relevance: Option<String>,
    links: Vec<ShownLink>,
}

#[derive(Debug, Serialize)]
struct ShownLink {
    joined: &'static str,
    statements: Vec<ShownStatement>,
}

#[derive(Debug, Serialize)]
struct ShownStatement {
    text: String,
    bar: String,
    decided: &'static str,
    scores: String,
    rationale: Option<String>,
}

/// A data URL, and the width and height of what it shows in pixels.
type Thumbnail = (String, (u32, u32));

/// Thumbnails within the bytes of a page, each picture made once.
pub(super) struct Thumbnails<'a> {
    set: Option<&'a dyn DataSet>,
    left: usize,
    made: HashMap<usize, Option<Thumbnail>>,
}

impl<'a> Thumbnails<'a> {
    pub(super) fn new(set: Option<&'a dyn DataSet>) -> Self {
        Self { set, left: MAX_BYTES, made: HashMap::new() }
    }

    /// The thumbnail of a row, and the size of its picture; none if the picture is not there or is another one by now, or
    /// if the page is full.
    fn of(&mut self, row: &RowRecord) -> Option<(String, (u32, u32))> {
        if let Some(made) = self.made.get(&row.index) {
            return made.clone();
        }
        let made = self.make(row);
        if let Some((address, _)) = &made {
            self.left -= address.len();
        }
        self.made.insert(row.index, made.clone());
        made
    }

    fn make(&self, row: &RowRecord) -> Option<(String, (u32, u32))> {
        let set = self.set.filter(|set| set.rows().get(row.index).is_some_and(|now| now.id == row.row.id))?;
        let picture = set.picture(row.index).ok().filter(|now| Some(now.hash().to_hex()) == row.hash)?;
        let address = data_address(&picture)?;
        (address.len() <= self.left).then(|| (address, (picture.width(), picture.height())))
    }
}

/// A small copy of a picture as a `data:` address.
fn data_address(picture: &Picture) -> Option<String> {
    let (width, height) = (picture.width(), picture.height());
    let longest = width.max(height).max(1);
    let scaled = |side: u32| (u64::from(side) * u64::from(SIDE) / u64::from(longest)).max(1) as u32;
    let small = if longest <= SIDE {
        picture.pixels().clone()
    } else if longest > 4 * SIDE {
        thumbnail(picture.pixels(), scaled(width), scaled(height))
    } else {
        image::imageops::resize(picture.pixels(), scaled(width), scaled(height), FilterType::Triangle)
    };
    let mut bytes = Vec::new();
    small.write_with_encoder(JpegEncoder::new_with_quality(Cursor::new(&mut bytes), QUALITY)).ok()?;
    Some(format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)))
}

impl ShownError {
    pub(super) fn new(
        wrong: &WrongAnswer,
        row: &RowRecord,
        judged: &Judged<'_>,
        constitution: &ConstitutionRecord,
        thumbnails: &mut Thumbnails<'_>,
    ) -> Self {
        let judgment = judged.judgment();
        let evidence = judgment.map_or(&[][..], |judgment| &judgment.evidence);
        let shown: Vec<&RuleEvidence> = evidence
            .iter()
            .filter(|rule| wrong.missed.contains(&rule.id) || wrong.named.contains(&rule.id))
            .collect();
        let thumbnail = thumbnails.of(row);
        let (width, height) = thumbnail.as_ref().map_or((1, 1), |(_, size)| *size);
        Self {
            id: row.row.id.clone(),
            alt: format!("the picture {}", row.row.id),
            without: if thumbnails.set.is_some() {
                "left out: the page is full"
            } else {
                "the picture is not here"
            },
            picture: thumbnail.map(|(address, _)| address),
            width,
            height,
            boxes: boxes(&shown),
            marks: marks(wrong, row),
            text: row.row.text.as_deref().map(|text| shortened(text, WORDS)),
            rules: shown.into_iter().map(|rule| ShownRule::new(rule, constitution)).collect(),
            words: judgment
                .and_then(|judgment| judgment.words.as_deref())
                .map(|words| shortened(words, WORDS)),
        }
    }
}

fn marks(wrong: &WrongAnswer, row: &RowRecord) -> Vec<Mark> {
    let mark = |class, text: String| Mark { class, text };
    let is = row.row.truth.is_unsafe();
    let verdict = match (wrong.verdict, is) {
        (true, true) => mark("missed", "called safe, is unsafe".to_owned()),
        (true, false) => mark("named", "called unsafe, is safe".to_owned()),
        (false, _) => mark("fine", "the verdict is right, the rules are not".to_owned()),
    };
    let missed = wrong.missed.iter().map(|rule| mark("missed", format!("missed: {rule}")));
    let named = wrong.named.iter().map(|rule| mark("named", format!("wrongly named: {rule}")));
    std::iter::once(verdict).chain(missed).chain(named).collect()
}

/// The boxes of what was looked at for the rules, each once.
fn boxes(rules: &[&RuleEvidence]) -> Vec<FoundRegion> {
    let mut boxes: Vec<FoundRegion> = Vec::new();
    let statements = rules.iter().flat_map(|rule| &rule.preconditions).flat_map(|link| &link.statements);
    for region in statements.flat_map(|statement| &statement.region) {
        if !boxes.contains(region) {
            boxes.push(region.clone());
        }
    }
    boxes
}

impl ShownRule {
    fn new(rule: &RuleEvidence, constitution: &ConstitutionRecord) -> Self {
        let words = constitution.rules.iter().find(|(id, _)| *id == rule.id).map(|(_, text)| text.clone());
        let link = |joined: &'static str| {
            move |link: &PreconditionEvidence| {
                let statements: Vec<_> = link.statements.iter().filter_map(ShownStatement::asked).collect();
                (!statements.is_empty()).then_some(ShownLink { joined, statements })
            }
        };
        let chain = rule.preconditions.iter().filter_map(link("and"));
        Self {
            id: rule.id.clone(),
            words,
            outcome: match rule.outcome {
                Outcome::Irrelevant => "left out by the relevance scan",
                Outcome::NotViolated => "not violated",
                Outcome::Violated => "violated",
                Outcome::Excepted => "excepted",
                Outcome::Cleared => "cleared by the pre-filter",
                Outcome::NotAsked => "not asked",
            },
            relevance: rule
                .relevance
                .map(|cosine| format!("relevance {cosine:.3}, asked from {:.3}", rule.relevance_threshold)),
            links: chain.chain(rule.unless.iter().filter_map(link("unless"))).collect(),
        }
    }
}

impl ShownStatement {
    /// A statement that was reached; none for others.
    fn asked(evidence: &StatementEvidence) -> Option<Self> {
        let (score, prior) = (evidence.score?, evidence.score_without_image);
        let (reject, accept) = (prior + evidence.alpha1, prior + evidence.alpha2);
        let mut scores = format!(
            "{score:.3}{}, without the picture {prior:.3}; rejected under {reject:.3}, accepted over {accept:.3}",
            if evidence.crop { " in the crop" } else { "" }
        );
        let more = [
            ("in the whole picture", evidence.score_whole_picture),
            ("with the objects removed", evidence.score_region_removed),
            ("rated after reasoning", evidence.rating),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                scores.push_str(&format!("; {name} {value:.3}"));
            }
        }
        let words = evidence.rationale.as_deref().or(evidence.thought.as_deref());
        Some(Self {
            text: evidence.text.clone(),
            bar: bar(score, prior, reject, accept),
            decided: judge_words(evidence.decided_by),
            scores,
            rationale: words.map(|words| shortened(words, WORDS)),
        })
    }
}
