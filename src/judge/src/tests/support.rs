//! What the tests share: constitutions from a few words, pictures, looks told apart.

use cluegate_constitution::Constitution;
use cluegate_perception::{Picture, Region};
use image::{Rgb, RgbImage};

use crate::evidence::{RuleEvidence, StatementEvidence};
use crate::fakes::{FakeDetector, FakeEncoder, FakeVlm, assemble};
use crate::{InspectOptions, Judge, Report, Stages, Templates};

/// A statement and its central words.
pub(super) type Said = (&'static str, &'static [&'static str]);

/// A chain: `chain[precondition][alternative]`.
pub(super) type SaidChain = Vec<Vec<Said>>;

/// A constitution of rules `r0`, `r1`, ... with text `text of r0`, ...
pub(super) fn constitution(rules: &[(SaidChain, SaidChain)], thresholds: &str) -> Constitution {
    let rules: Vec<_> =
        rules.iter().map(|(preconditions, unless)| (preconditions.clone(), unless.clone(), false)).collect();
    any_constitution(&rules, thresholds)
}

/// As [`constitution`], with rules that ask for a projection of consequences where the third part says so.
pub(super) fn any_constitution(rules: &[(SaidChain, SaidChain, bool)], thresholds: &str) -> Constitution {
    let mut text = format!("name = \"test\"\n[thresholds]\n{thresholds}\n");
    for (number, (preconditions, unless, consequence)) in rules.iter().enumerate() {
        text += &format!("[[rule]]\nid = \"r{number}\"\ntext = \"text of r{number}\"\n");
        text += "objectiveness = 9\nseverity = \"low\"\n";
        if *consequence {
            text += "consequence = true\n";
        }
        for (link, chain) in [("precondition", preconditions), ("unless", unless)] {
            for statements in chain {
                let any: Vec<String> = statements
                    .iter()
                    .map(|(statement, central)| {
                        format!("{{ statement = {statement:?}, central = {central:?} }}")
                    })
                    .collect();
                text += &format!("[[rule.{link}]]\nany = [{}]\n", any.join(", "));
            }
        }
    }
    Constitution::parse(&text, "test").unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// One rule of one statement with the central word `thing`.
pub(super) fn one_statement() -> Constitution {
    constitution(&[(vec![vec![("it is there", &["thing"])]], vec![])], "")
}

/// A picture of 40 x 30 in which no two areas are alike, so that every crop and removal has its own hash.
pub(super) fn picture() -> Picture {
    Picture::new(RgbImage::from_fn(40, 30, |x, y| Rgb([(x * 6) as u8, (y * 8) as u8, (x * y) as u8])))
}

/// Which look a scripted model is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    Whole,
    Crop,
    Removed,
}

pub(super) fn asked(seen: Option<&Picture>) -> Asked {
    let whole = picture();
    match seen {
        None => Asked::Nothing,
        Some(seen) if seen.hash() == whole.hash() => Asked::Whole,
        Some(seen) if seen.width() == whole.width() && seen.height() == whole.height() => Asked::Removed,
        Some(_) => Asked::Crop,
    }
}

/// A box of a quarter of the picture.
pub(super) const LARGE: Region = Region { left: 0.0, top: 0.0, right: 20.0, bottom: 15.0 };
/// A box of 9 of the 1200 pixels.
pub(super) const SMALL: Region = Region { left: 5.0, top: 5.0, right: 8.0, bottom: 8.0 };

/// Scores by look, a rating, and the boxes of every word.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) prior: f64,
    pub(super) whole: f64,
    pub(super) crop: f64,
    pub(super) removed: f64,
    pub(super) rating: f64,
    pub(super) boxes: Vec<(f32, Region)>,
}

impl Default for Script {
    fn default() -> Self {
        Self { prior: 0.5, whole: 0.5, crop: 0.5, removed: 0.5, rating: 0.0, boxes: Vec::new() }
    }
}

impl Script {
    pub(super) fn vlm(&self) -> FakeVlm {
        let script = self.clone();
        let rating = self.rating;
        let score = move |seen: Option<&Picture>, _: &str| match asked(seen) {
            Asked::Nothing => script.prior,
            Asked::Whole => script.whole,
            Asked::Crop => script.crop,
            Asked::Removed => script.removed,
        };
        FakeVlm::new(Templates::shipped().expect("shipped templates"), score).rating(move |_, _| rating)
    }

    pub(super) fn judge(&self) -> Judge {
        let boxes = self.boxes.clone();
        assemble(FakeEncoder::new(|_| 1.0), FakeDetector::new(move |_, _| boxes.clone()), self.vlm())
    }

    /// Judges the test picture under [`one_statement`].
    pub(super) fn report(&self, stages: Stages) -> Report {
        let judge = self.judge();
        let prepared = judge.prepare(&one_statement()).expect("prepared");
        let options = InspectOptions { stages, ..InspectOptions::default() };
        judge.inspect(&picture(), &prepared, &options).expect("a report")
    }

    pub(super) fn statement(&self, stages: Stages) -> StatementEvidence {
        only_statement(self.report(stages).rules())
    }
}

pub(super) fn only_statement(rules: &[RuleEvidence]) -> StatementEvidence {
    rules[0].preconditions[0].statements[0].clone()
}
