//! Whatever keeps a verdict from being complete is an error of its own kind, never a verdict.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, Detection, DetectionRequest, Embedding, Fingerprint,
    FinishReason, PerceptionError, PerceptionErrorKind, Picture, Prompt, Region, RegionDetector,
    RelevanceEncoder, Result, VisionLanguageModel,
};

use super::support::{LARGE, Script, one_statement, picture};
use crate::{InspectOptions, Judge, JudgeError, JudgeErrorKind, JudgeOptions, Report, Stages, Templates};

type OnPictures = Box<dyn Fn(&[Picture]) -> Result<Vec<Embedding>> + Send + Sync>;
type OnTexts = Box<dyn Fn(&[&str]) -> Result<Vec<Embedding>> + Send + Sync>;
type OnDetect = Box<dyn Fn() -> Result<Vec<Vec<Detection>>> + Send + Sync>;
type OnScore = Box<dyn Fn(&[Prompt]) -> Result<Vec<AnswerScore>> + Send + Sync>;
type OnComplete = Box<dyn Fn(&[CompletionRequest]) -> Result<Vec<Completion>> + Send + Sync>;

/// Three models of which each answer can be replaced. As made, they lead to the reasoning and a No.
struct Models {
    name: Fingerprint,
    threshold: f32,
    pictures: OnPictures,
    texts: OnTexts,
    detect: OnDetect,
    score: OnScore,
    complete: OnComplete,
}

fn completion(text: &str) -> Completion {
    Completion { text: text.to_owned(), tokens: 3, finish: FinishReason::Stop }
}

fn unit() -> Embedding {
    Embedding::normalised(vec![1.0, 1.0])
}

impl Default for Models {
    fn default() -> Self {
        Self {
            name: "models".to_owned(),
            threshold: 0.22,
            pictures: Box::new(|pictures| Ok(vec![unit(); pictures.len()])),
            texts: Box::new(|texts| Ok(vec![unit(); texts.len()])),
            detect: Box::new(|| Ok(vec![vec![]])),
            score: Box::new(|prompts| Ok(vec![AnswerScore { yes: 0.5, no: 0.5 }; prompts.len()])),
            complete: Box::new(|requests| Ok(vec![completion("a thought"); requests.len()])),
        }
    }
}

impl RelevanceEncoder for Models {
    fn fingerprint(&self) -> &Fingerprint {
        &self.name
    }
    fn default_threshold(&self) -> f32 {
        self.threshold
    }
    fn embed_pictures(&self, pictures: &[Picture], _: &Call) -> Result<Vec<Embedding>> {
        (self.pictures)(pictures)
    }
    fn embed_texts(&self, texts: &[&str], _: &Call) -> Result<Vec<Embedding>> {
        (self.texts)(texts)
    }
}

impl RegionDetector for Models {
    fn fingerprint(&self) -> &Fingerprint {
        &self.name
    }
    fn detect(&self, _: &[DetectionRequest<'_>], _: f32, _: &Call) -> Result<Vec<Vec<Detection>>> {
        (self.detect)()
    }
}

impl VisionLanguageModel for Models {
    fn fingerprint(&self) -> &Fingerprint {
        &self.name
    }
    fn score(&self, prompts: &[Prompt], _: &Call) -> Result<Vec<AnswerScore>> {
        (self.score)(prompts)
    }
    fn complete(&self, requests: &[CompletionRequest], _: &Call) -> Result<Vec<Completion>> {
        (self.complete)(requests)
    }
}

impl Models {
    fn judge(self) -> Judge {
        let models = Arc::new(self);
        let templates = Templates::shipped().expect("shipped templates");
        Judge::new(models.clone(), models.clone(), models, templates, JudgeOptions::default())
    }

    fn inspect(self, rationale: bool) -> std::result::Result<Report, JudgeError> {
        let judge = self.judge();
        let prepared = judge.prepare(&one_statement())?;
        judge.inspect(&picture(), &prepared, &InspectOptions { rationale, ..InspectOptions::default() })
    }

    #[track_caller]
    fn fails(self, kind: JudgeErrorKind, part: &str) {
        let error = self.inspect(true).expect_err("a verdict came out");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{part:?} is not in {error}");
    }

    fn scoring(answer: impl Fn(&Prompt) -> AnswerScore + Send + Sync + 'static) -> Self {
        let score = move |prompts: &[Prompt]| Ok(prompts.iter().map(&answer).collect());
        Self { score: Box::new(score), ..Self::default() }
    }

    /// Answers `later` to whatever is asked with a picture, or in the second turn if `turns` is 1.
    fn scoring_at(turns: usize, yes: f64, no: f64) -> Self {
        Self::scoring(move |prompt| {
            let there = prompt.prefix.picture.is_some() && prompt.turns.len() == turns;
            if there { AnswerScore { yes, no } } else { AnswerScore { yes: 0.5, no: 0.5 } }
        })
    }
}

#[test]
fn the_models_as_made_reach_a_verdict() {
    let report = Models::scoring_at(1, 0.1, 0.9).inspect(false).expect("a report");
    assert!(report.violated().is_empty());
    assert_eq!(report.passes().cascades, 1);
}

#[test]
fn scores_that_are_no_probabilities() {
    for turns in [0, 1] {
        let stage = ["statements", "rating"][turns];
        Models::scoring_at(turns, f64::NAN, 0.5).fails(JudgeErrorKind::NotANumber, stage);
        Models::scoring_at(turns, 0.5, f64::INFINITY).fails(JudgeErrorKind::NotANumber, stage);
        Models::scoring_at(turns, -0.1, 0.5).fails(JudgeErrorKind::OutOfRange, stage);
        Models::scoring_at(turns, 1.1, 0.0).fails(JudgeErrorKind::OutOfRange, stage);
        Models::scoring_at(turns, 0.7, 0.7).fails(JudgeErrorKind::OutOfRange, "sum of both");
        Models::scoring_at(turns, 0.0, 0.0).fails(JudgeErrorKind::MissingAnswer, stage);
    }
    Models::scoring(|_| AnswerScore { yes: f64::NAN, no: 0.0 }).fails(JudgeErrorKind::NotANumber, "NaN");
}

#[test]
fn wrong_numbers_of_answers() {
    let with_picture = |prompts: &[Prompt]| prompts.iter().any(|prompt| prompt.prefix.picture.is_some());
    let half = AnswerScore { yes: 0.5, no: 0.5 };
    let too_few = Models {
        score: Box::new(move |p| Ok(if with_picture(p) { vec![] } else { vec![half; p.len()] })),
        ..Models::default()
    };
    too_few.fails(JudgeErrorKind::AnswerCount, "expected 1 answers, got 0");
    let none = Models { score: Box::new(|_| Ok(vec![])), ..Models::default() };
    none.fails(JudgeErrorKind::AnswerCount, "statements");
    let none = Models { complete: Box::new(|_| Ok(vec![])), ..Models::default() };
    none.fails(JudgeErrorKind::AnswerCount, "reasoning");
    let none = Models { detect: Box::new(|| Ok(vec![])), ..Models::default() };
    none.fails(JudgeErrorKind::AnswerCount, "detection");
    let none = Models { pictures: Box::new(|_| Ok(vec![])), ..Models::default() };
    none.fails(JudgeErrorKind::AnswerCount, "relevance");
    let two = Models { texts: Box::new(|_| Ok(vec![unit(), unit()])), ..Models::default() };
    two.fails(JudgeErrorKind::AnswerCount, "expected 1 answers, got 2");
}

#[test]
fn embeddings_that_are_none() {
    let pictures = |values: Vec<f32>| Models {
        pictures: Box::new(move |views| Ok(vec![Embedding::normalised(values.clone()); views.len()])),
        ..Models::default()
    };
    pictures(vec![f32::NAN, 1.0]).fails(JudgeErrorKind::NotANumber, "length of an embedding");
    pictures(vec![0.0, 0.0]).fails(JudgeErrorKind::OutOfRange, "length of an embedding");
    pictures(vec![]).fails(JudgeErrorKind::OutOfRange, "length of an embedding");
    pictures(vec![1.0, 0.0, 0.0])
        .fails(JudgeErrorKind::MissingAnswer, "2 components, as those of the rules, got 3");
    let texts =
        Models { texts: Box::new(|_| Ok(vec![Embedding::normalised(vec![0.0, 0.0])])), ..Models::default() };
    texts.fails(JudgeErrorKind::OutOfRange, "length of an embedding");
    let threshold = Models { threshold: f32::NAN, ..Models::default() };
    threshold.fails(JudgeErrorKind::NotANumber, "relevance threshold");
}

#[test]
fn detections_that_make_no_sense() {
    let detect = |query, confidence, region| Models {
        detect: Box::new(move || Ok(vec![vec![Detection { query, confidence, region }]])),
        ..Models::default()
    };
    let region = |left, top, right, bottom| Region { left, top, right, bottom };
    let invalid = JudgeErrorKind::InvalidDetection;
    detect(1, 0.9, LARGE).fails(invalid, "a query below 1");
    detect(0, f32::NAN, LARGE).fails(JudgeErrorKind::NotANumber, "detection");
    detect(0, 1.5, LARGE).fails(JudgeErrorKind::OutOfRange, "confidence");
    detect(0, -0.1, LARGE).fails(JudgeErrorKind::OutOfRange, "confidence");
    detect(0, 0.9, region(f32::NAN, 0.0, 1.0, 1.0)).fails(JudgeErrorKind::NotANumber, "box");
    detect(0, 0.9, region(5.0, 0.0, 5.0, 1.0)).fails(invalid, "a box with an area");
    detect(0, 0.9, region(9.0, 0.0, 5.0, 1.0)).fails(invalid, "a box with an area");
    detect(0, 0.9, region(0.0, 0.0, 41.0, 1.0)).fails(invalid, "40 x 30");
    detect(0, 0.9, region(-3.0, 0.0, 4.0, 1.0)).fails(invalid, "left -3");
    // A fraction of a pixel beyond the edge is rounding.
    let clipped = detect(0, 0.9, region(-0.2, 0.0, 40.3, 30.1)).inspect(false).expect("a report");
    let found = &clipped.rules()[0].preconditions[0].statements[0].region[0];
    assert_eq!((found.left, found.right, found.bottom), (0.0, 40.0, 30.0));
}

#[test]
fn failures_of_models_keep_their_kind() {
    for (kind, expected) in [
        (PerceptionErrorKind::Model, JudgeErrorKind::Model),
        (PerceptionErrorKind::Request, JudgeErrorKind::Request),
        (PerceptionErrorKind::NotANumber, JudgeErrorKind::NotANumber),
        (PerceptionErrorKind::MissingAnswer, JudgeErrorKind::MissingAnswer),
        (PerceptionErrorKind::Timeout, JudgeErrorKind::Timeout),
        (PerceptionErrorKind::Cancelled, JudgeErrorKind::Cancelled),
        (PerceptionErrorKind::Overloaded, JudgeErrorKind::Overloaded),
        (PerceptionErrorKind::Backend, JudgeErrorKind::Backend),
    ] {
        assert_eq!(kind.as_str(), expected.as_str());
        let error = move || PerceptionError::new(kind, "it broke");
        Models { pictures: Box::new(move |_| Err(error())), ..Models::default() }
            .fails(expected, "relevance stage: it broke");
        Models { detect: Box::new(move || Err(error())), ..Models::default() }
            .fails(expected, "detection stage: it broke");
        Models { score: Box::new(move |_| Err(error())), ..Models::default() }
            .fails(expected, "statements stage: it broke");
        Models { complete: Box::new(move |_| Err(error())), ..Models::default() }
            .fails(expected, "reasoning stage: it broke");
    }
}

#[test]
fn an_empty_thought_is_no_answer() {
    let empty = Models { complete: Box::new(|_| Ok(vec![completion(" \n")])), ..Models::default() };
    empty.fails(JudgeErrorKind::MissingAnswer, "a chain of thought about \"it is there\"");
}

/// Decodes `first` as the rationale, then `second` at the retry; the rating is scored as Yes.
fn rationale(first: &'static str, second: &'static str) -> std::result::Result<Report, JudgeError> {
    let complete = move |requests: &[CompletionRequest]| {
        let answer = |request: &CompletionRequest| {
            completion(match request.prompt.answer_start.as_str() {
                "" => "a thought",
                "{\"rating\": \"" => first,
                "{\"rating\": \"Yes\", \"rationale\": \"" => second,
                other => panic!("unexpected beginning {other:?}"),
            })
        };
        Ok(requests.iter().map(answer).collect())
    };
    Models { complete: Box::new(complete), ..Models::default() }.inspect(true)
}

#[test]
fn a_rationale_is_strict_json_and_has_one_retry() {
    let text = |report: Report| report.rules()[0].preconditions[0].statements[0].rationale.clone();
    let good = rationale("Yes\", \"rationale\": \"I see it\"}", "never").expect("a report");
    assert_eq!(good.passes().stages.rationale, 3);
    assert_eq!(text(good).as_deref(), Some("I see it"));
    for bad in [
        "Yes",
        "Yes\"}",
        "Maybe\", \"rationale\": \"x\"}",
        "Yes\", \"rationale\": \"x\", \"more\": 1}",
        "Yes\", \"rationale\": \"x\"} and so on",
        "Yes\", \"rationale\": \" \"}",
        "Yes\", \"rationale\": 7}",
        // The score says Yes: the opposite rationale would be false evidence.
        "No\", \"rationale\": \"x\"}",
    ] {
        let report = rationale(bad, "seen now\"}").expect("a report");
        assert_eq!(report.passes().stages.rationale, 6, "{bad}");
        assert_eq!(text(report).as_deref(), Some("seen now"), "{bad}");
        let error = rationale(bad, "still \" not JSON").expect_err("a verdict came out");
        assert_eq!(error.kind(), JudgeErrorKind::Unparseable, "{error}");
        assert!(error.to_string().contains("after one retry"), "{error}");
    }
}

#[test]
fn the_deadline_is_checked_before_every_call() {
    let judge = Script::default().judge();
    let prepared = judge.prepare(&one_statement()).expect("prepared");
    let call = Call::default().until(Instant::now());
    let late = InspectOptions { call, ..InspectOptions::default() };
    let error = judge.inspect(&picture(), &prepared, &late).expect_err("a verdict came out");
    assert_eq!(error.kind(), JudgeErrorKind::Timeout);
    assert!(error.to_string().starts_with("relevance stage: the deadline passed"), "{error}");
    let off = InspectOptions::default();
    off.call.cancel();
    let error = judge.inspect(&picture(), &prepared, &off).expect_err("a verdict came out");
    assert_eq!(error.kind(), JudgeErrorKind::Cancelled);
    // Each model in turn takes longer than there is.
    let slow = || std::thread::sleep(Duration::from_millis(750));
    let cases: [(Models, &str); 3] = [
        (
            Models {
                pictures: Box::new(move |views| {
                    slow();
                    Ok(vec![unit(); views.len()])
                }),
                ..Models::default()
            },
            "detection",
        ),
        (
            Models {
                detect: Box::new(move || {
                    slow();
                    Ok(vec![vec![]])
                }),
                ..Models::default()
            },
            "statements",
        ),
        (
            Models {
                complete: Box::new(move |_| {
                    slow();
                    Ok(vec![completion("a thought")])
                }),
                ..Models::default()
            },
            "rating",
        ),
    ];
    for (models, stage) in cases {
        let judge = models.judge();
        let prepared = judge.prepare(&one_statement()).expect("prepared");
        let call = Call::default().until(Instant::now() + Duration::from_millis(700));
        let error = judge
            .inspect(&picture(), &prepared, &InspectOptions { call, ..InspectOptions::default() })
            .expect_err("a verdict came out");
        assert_eq!(error.kind(), JudgeErrorKind::Timeout);
        assert!(error.to_string().starts_with(&format!("{stage} stage: the deadline passed")), "{error}");
    }
}

#[test]
fn a_preparation_of_other_models_or_templates_is_stale() {
    let prepared = Models::default().judge().prepare(&one_statement()).expect("prepared");
    let other = Models { name: "others".to_owned(), ..Models::default() }.judge();
    let error = other.inspect(&picture(), &prepared, &InspectOptions::default()).expect_err("a verdict");
    assert_eq!(error.kind(), JudgeErrorKind::StalePreparation);
    let models = Arc::new(Models::default());
    let templates =
        Templates::parse("Is it so? {{ statement }}", "Think: {{statement}}", "Rate.").expect("templates");
    let other = Judge::new(models.clone(), models.clone(), models, templates, JudgeOptions::default());
    let error = other.inspect(&picture(), &prepared, &InspectOptions::default()).expect_err("a verdict");
    assert!(error.to_string().contains("other templates"), "{error}");
}

#[test]
fn a_picture_without_pixels_is_refused() {
    let judge = Script::default().judge();
    let prepared = judge.prepare(&one_statement()).expect("prepared");
    let empty = Picture::new(image::RgbImage::new(0, 7));
    let error = judge.inspect(&empty, &prepared, &InspectOptions::default()).expect_err("a verdict");
    assert_eq!(error.kind(), JudgeErrorKind::InvalidPicture);
}

#[test]
fn a_strip_too_long_to_be_seen_whole_is_refused() {
    let judge = Script::default().judge();
    let prepared = judge.prepare(&one_statement()).expect("prepared");
    let strip = |length| Picture::new(image::RgbImage::new(2, length));
    assert!(judge.inspect(&strip(128), &prepared, &InspectOptions::default()).is_ok());
    let error = judge.inspect(&strip(129), &prepared, &InspectOptions::default()).expect_err("a verdict");
    assert_eq!(error.kind(), JudgeErrorKind::Request);
    assert!(error.to_string().contains("2 x 129 pixels; expected at most 64 to 1"), "{error}");
}

#[test]
fn what_only_a_part_of_a_wide_picture_shows_makes_its_rule_relevant() {
    let part = |relevant: usize| Models {
        texts: Box::new(|texts| Ok(vec![Embedding::normalised(vec![1.0, 0.0]); texts.len()])),
        pictures: Box::new(move |views| {
            let embed =
                |view| Embedding::normalised(if view == relevant { vec![1.0, 0.0] } else { vec![0.0, 1.0] });
            Ok((0..views.len()).map(embed).collect())
        }),
        ..Models::default()
    };
    // The picture is seen whole and by two squares; a fourth view does not exist.
    for view in 0..4 {
        let report = part(view).inspect(false).expect("a report");
        let irrelevant = report.rules()[0].outcome == crate::Outcome::Irrelevant;
        assert_eq!(irrelevant, view == 3, "view {view}");
    }
}

#[test]
fn a_report_without_a_stage_is_no_permission() {
    let complete = Script::default().report(Stages::ALL).complete().expect("complete");
    assert_eq!(complete.picture(), picture().hash());
    assert_eq!(complete.revision(), one_statement().revision());
    assert_eq!(complete.verdict(), crate::Verdict::Safe);
    assert!(Script::default().report(Stages { crop: false, ..Stages::ALL }).complete().is_none());
}
