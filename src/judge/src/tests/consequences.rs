//! Consequence rules: what is asked, in which form, and that no other rule notices.

use std::sync::{Arc, Mutex};

use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, Fingerprint, FinishReason, Picture, Prompt, Result,
    VisionLanguageModel,
};

use super::prompts::recording;
use super::support::{LARGE, SMALL, SaidChain, Script, any_constitution, picture};
use crate::fakes::{FakeDetector, FakeEncoder, FakeVlm, assemble};
use crate::{
    DecidedBy, InspectOptions, Judge, JudgeError, JudgeErrorKind, JudgeOptions, Outcome, Report,
    RuleEvidence, Stages, Templates, Verdict,
};

const LADDER: &str = "a person is on a ladder";
const FALL: &str = "a person is likely to fall";
const SLIPS: &str = "The ladder slips on the wet floor.";

fn rule(statements: &[&'static str], consequence: bool) -> (SaidChain, SaidChain, bool) {
    (statements.iter().map(|text| vec![(*text, &["thing"][..])]).collect(), vec![], consequence)
}

fn whole(prompt: &Prompt) -> String {
    format!("{}{}", prompt.prefix.text, prompt.suffix)
}

fn file(name: &str) -> String {
    let path = format!("{}/templates/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("a template")
}

/// A model for which a fall follows exactly if the projection says so; everything else is there.
fn foresees() -> FakeVlm {
    let there = |seen: Option<&Picture>, _: &str| if seen.is_some() { 1.0 } else { 0.5 };
    FakeVlm::new(Templates::shipped().expect("shipped templates"), there).projecting(
        |_, asked| {
            if asked.contains("dry") { "Nothing happens.".to_owned() } else { format!(" {SLIPS}\n") }
        },
        |seen, projection, statement| match (seen, statement) {
            (None, _) => 0.5,
            (_, FALL) => f64::from(u8::from(projection == SLIPS)),
            _ => 1.0,
        },
    )
}

fn inspect(judge: &Judge, rules: &[(SaidChain, SaidChain, bool)], options: &InspectOptions) -> Report {
    let prepared = judge.prepare(&any_constitution(rules, "")).expect("prepared");
    judge.inspect(&picture(), &prepared, options).expect("a report")
}

fn asking(prompt: &str) -> InspectOptions {
    InspectOptions { prompt: Some(prompt.into()), ..InspectOptions::default() }
}

#[test]
fn statements_are_asked_behind_one_projection() {
    let (judge, vlm) = recording(foresees(), &Script::default());
    let rules = [rule(&[LADDER, FALL], true), rule(&[FALL, "it is night"], true)];
    let prepared = judge.prepare(&any_constitution(&rules, "")).expect("prepared");
    let options = asking("a \"ladder\" {{ statement }}");
    let report = judge.inspect(&picture(), &prepared, &options).expect("a report");

    let completed = vlm.completed.lock().expect("a lock");
    assert_eq!((completed.len(), completed[0].len()), (1, 1), "one projection for all rules");
    let asked = &completed[0][0];
    let shown = file("consequences.txt").replace("{{ prompt }}", r#""a \"ladder\" {{ statement }}""#);
    assert_eq!(whole(&asked.prompt), shown);
    assert!(asked.prompt.turns.is_empty() && asked.prompt.answer_start.is_empty());
    assert_eq!(asked.max_tokens, JudgeOptions::default().max_projection_tokens);

    let scored = vlm.scored.lock().expect("a lock");
    let sizes: Vec<usize> = scored.iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 3], "each distinct statement once without a picture and once with it");
    let unknown = file("consequences.txt").replace("{{ prompt }}", "unknown");
    let neutral = file("consequences-neutral.txt");
    for (batch, first, answer) in [(&scored[0], &unknown, neutral.as_str()), (&scored[1], &shown, SLIPS)] {
        for (prompt, statement) in batch.iter().zip([LADDER, FALL, "it is night"]) {
            assert_eq!(&whole(prompt), first);
            assert_eq!(prompt.turns.len(), 1);
            assert_eq!(prompt.turns[0].assistant, answer);
            let question = file("consequences-statement.txt").replace("{{ statement }}", statement);
            assert_eq!(prompt.turns[0].user, question);
            assert!(prompt.answer_start.is_empty());
        }
    }
    assert!(scored[0].iter().all(|prompt| prompt.prefix.picture.is_none()));
    let hash = picture().hash();
    assert!(scored[1].iter().all(|prompt| prompt.prefix.picture.as_ref().map(Picture::hash) == Some(hash)));
    assert_eq!(report.violated(), ["r0", "r1"]);
    for rule in report.rules() {
        assert_eq!(rule.projection.as_deref(), Some(SLIPS));
    }
    assert_eq!(report.passes().stages.projection, 8, "the words of the answer and of its margins");
    assert_eq!(report.passes().stages.statements, 3);
    drop((scored, completed));
    // What the words of the request say reaches the projection, and by it the verdict.
    let report = judge.inspect(&picture(), &prepared, &asking("a dry floor")).expect("a report");
    assert_eq!(report.verdict(), Verdict::Safe);
    assert_eq!(report.rules()[0].projection.as_deref(), Some("Nothing happens."));
}

#[test]
fn the_reasoning_goes_on_behind_the_projection() {
    let vlm = FakeVlm::new(Templates::shipped().expect("shipped templates"), |_, _| 0.5)
        .projecting(|_, _| SLIPS.to_owned(), |_, _, _| 0.5);
    let (judge, vlm) = recording(vlm, &Script::default());
    let options = InspectOptions { rationale: true, ..InspectOptions::default() };
    let report = inspect(&judge, &[rule(&[FALL], true)], &options);
    let completed = vlm.completed.lock().expect("a lock");
    assert_eq!(completed.len(), 3, "projection, thought, rationale");
    let thinking = &completed[1][0].prompt;
    let question = file("consequences-reasoning.txt").replace("{{ statement }}", FALL);
    assert_eq!(thinking.turns.len(), 1);
    assert_eq!((thinking.turns[0].assistant.as_str(), &thinking.turns[0].user), (SLIPS, &question));
    let scored = vlm.scored.lock().expect("a lock");
    let rated = &scored[2][0];
    assert_eq!(rated.turns.len(), 2);
    assert_eq!(rated.turns[0], thinking.turns[0]);
    assert_eq!(rated.turns[1].assistant, "I look at the picture part by part.");
    assert_eq!(rated.turns[1].user, file("rating.txt"));
    assert_eq!(rated.answer_start, "{\"rating\": \"");
    let statement = &report.rules()[0].preconditions[0].statements[0];
    assert_eq!((statement.decided_by, statement.holds), (DecidedBy::Reasoning, Some(true)));
    assert_eq!(report.passes().cascades, 1);
}

/// Every question and every request for an answer, written out.
fn asked_of(rules: &[(SaidChain, SaidChain, bool)], options: &InspectOptions) -> (Vec<String>, Report) {
    let script = Script { boxes: vec![(0.9, LARGE)], ..Script::default() };
    let (judge, vlm) = recording(script.vlm(), &script);
    let report = inspect(&judge, rules, options);
    let scored = vlm.scored.lock().expect("a lock");
    let completed = vlm.completed.lock().expect("a lock");
    let written = |prompt: &Prompt| format!("{prompt:?}");
    let questions = scored.iter().flatten().map(written);
    let answers = completed.iter().flatten().map(|request| format!("{request:?}"));
    (questions.chain(answers).collect(), report)
}

#[test]
fn other_rules_are_asked_as_ever() {
    let plain = [rule(&[LADDER, "it is night"], false), rule(&[FALL], false)];
    let (alone, report) = asked_of(&plain, &InspectOptions::default());
    assert_eq!(report.passes().stages.projection, 0);
    assert!(report.rules().iter().all(|rule| rule.projection.is_none()));
    assert!(serde_json::to_value(&report.rules()[0]).expect("JSON").get("projection").is_none());
    // The prompt of the request is shown to nobody who did not ask for it.
    assert_eq!(asked_of(&plain, &asking("a ladder on a wet floor")).0, alone);
    // Beside a consequence rule with the same statements, too.
    let both = [plain[0].clone(), rule(&[LADDER, FALL], true), plain[1].clone()];
    let (beside, report) = asked_of(&both, &asking("a ladder on a wet floor"));
    let first = file("consequences.txt");
    let first = first.split_once(" {{ prompt }}").expect("a prompt").0;
    let (others, own): (Vec<String>, Vec<String>) =
        beside.into_iter().partition(|text| !text.contains(first));
    assert_eq!(others, alone);
    // Two priors, a projection, the two statements, and for one or both a thought and a rating.
    assert!(own.len() >= 7, "{own:#?}");
    assert_eq!(report.rules()[1].projection.as_deref(), Some("It stays as it is."));
    assert!(report.rules()[0].projection.is_none() && report.rules()[2].projection.is_none());
    // Shown word for word, so that a change of a shipped prompt shows here, too.
    assert!(alone[0].contains("Look only at what this image shows. Is the following statement true of it?"));
}

#[test]
fn only_a_relevant_rule_is_worth_a_projection() {
    let vlm = Arc::new(foresees());
    let encoder = FakeEncoder::new(|text| if text == "text of r0" { 0.1 } else { 0.9 });
    let templates = Templates::shipped().expect("shipped templates");
    let detector = Arc::new(FakeDetector::new(|_, _| vec![]));
    let judge = Judge::new(Arc::new(encoder), detector, vlm.clone(), templates, JudgeOptions::default());
    let report = inspect(&judge, &[rule(&[FALL], true), rule(&[LADDER], false)], &asking("x"));
    assert_eq!(vlm.complete_calls(), 0);
    assert_eq!(report.rules()[0].outcome, Outcome::Irrelevant);
    assert_eq!((report.rules()[0].projection.as_deref(), report.passes().stages.projection), (None, 0));
    // Without the scan it counts as relevant.
    let stages = Stages { relevance_scan: false, ..Stages::ALL };
    let options = InspectOptions { stages, ..asking("x") };
    let report = inspect(&judge, &[rule(&[FALL], true), rule(&[LADDER], false)], &options);
    assert_eq!(vlm.complete_calls(), 1);
    assert_eq!(report.rules()[0].projection.as_deref(), Some(SLIPS));
}

/// The one statement of a rule, with boxes of `region` for its word, where the score alone leaves it open.
fn with_boxes(region: cluegate_perception::Region, consequence: bool) -> Report {
    let vlm = FakeVlm::new(Templates::shipped().expect("shipped templates"), |_, _| 0.5);
    let judge = assemble(FakeEncoder::new(|_| 1.0), FakeDetector::new(move |_, _| vec![(0.9, region)]), vlm);
    inspect(&judge, &[rule(&[FALL], consequence)], &InspectOptions::default())
}

#[test]
fn the_whole_picture_is_asked_about_and_nothing_is_removed_from_it() {
    for region in [LARGE, SMALL] {
        let report = with_boxes(region, true);
        let statement = &report.rules()[0].preconditions[0].statements[0];
        assert!(!statement.crop);
        assert_eq!((statement.score_region_removed, statement.score_whole_picture), (None, None));
        assert_eq!(report.passes().stages.regions, 0);
        assert_eq!(statement.decided_by, DecidedBy::Reasoning);
        // A redaction still learns where the central objects are.
        assert_eq!(statement.region.len(), 1);
        assert!(with_boxes(region, false).passes().stages.regions > 0, "another rule compares");
    }
}

/// Answers every request for a projection with this.
struct Answers(Mutex<Vec<Completion>>, Fingerprint);

impl VisionLanguageModel for Answers {
    fn fingerprint(&self) -> &Fingerprint {
        &self.1
    }
    fn score(&self, prompts: &[Prompt], _: &Call) -> Result<Vec<AnswerScore>> {
        let seen = |prompt: &Prompt| prompt.prefix.picture.is_some();
        let answer = |prompt| {
            if seen(prompt) { AnswerScore { yes: 0.0, no: 1.0 } } else { AnswerScore { yes: 0.5, no: 0.5 } }
        };
        Ok(prompts.iter().map(answer).collect())
    }
    fn complete(&self, _: &[CompletionRequest], _: &Call) -> Result<Vec<Completion>> {
        Ok(self.0.lock().expect("a lock").clone())
    }
}

fn projecting(answers: &[(&str, FinishReason)]) -> std::result::Result<Report, JudgeError> {
    let answer = |(text, finish): &(&str, FinishReason)| Completion {
        text: (*text).to_owned(),
        tokens: 7,
        finish: *finish,
    };
    let vlm = Answers(Mutex::new(answers.iter().map(answer).collect()), "answers".to_owned());
    let templates = Templates::shipped().expect("shipped templates");
    let (encoder, detector) = (FakeEncoder::new(|_| 1.0), FakeDetector::new(|_, _| vec![]));
    let judge = Judge::new(
        Arc::new(encoder),
        Arc::new(detector),
        Arc::new(vlm),
        templates,
        JudgeOptions { max_projection_tokens: 7, ..JudgeOptions::default() },
    );
    let prepared = judge.prepare(&any_constitution(&[rule(&[FALL], true)], "")).expect("prepared");
    judge.inspect(&picture(), &prepared, &InspectOptions::default())
}

/// The model would say No to every statement: what is missing is never taken for that.
#[test]
fn without_a_whole_projection_there_is_no_verdict() {
    let report = projecting(&[("All is well.", FinishReason::Stop)]).expect("a report");
    assert_eq!((report.verdict(), report.passes().stages.projection), (Verdict::Safe, 7));
    for text in ["", " \n\t"] {
        let error = projecting(&[(text, FinishReason::Stop)]).expect_err("no projection");
        assert_eq!(error.kind(), JudgeErrorKind::MissingAnswer, "{error}");
        assert!(error.to_string().starts_with("projection stage: expected a projection"), "{error}");
    }
    let error = projecting(&[("The ladder", FinishReason::Length)]).expect_err("cut off");
    assert_eq!(error.kind(), JudgeErrorKind::MissingAnswer, "{error}");
    assert!(error.to_string().contains("within 7 tokens, got one that was cut off"), "{error}");
    for answers in [&[][..], &[("a", FinishReason::Stop), ("b", FinishReason::Stop)]] {
        let error = projecting(answers).expect_err("not one answer");
        assert_eq!(error.kind(), JudgeErrorKind::AnswerCount, "{error}");
    }
}

#[test]
fn reports_are_kept_by_prompt_where_a_rule_is_shown_it() {
    let judge = assemble(FakeEncoder::new(|_| 1.0), FakeDetector::new(|_, _| vec![]), foresees())
        .with_verdicts(Judge::VERDICTS);
    let prepare = |consequence| {
        judge.prepare(&any_constitution(&[rule(&[LADDER, FALL], consequence)], "")).expect("prepared")
    };
    let seen = |prepared: &crate::Prepared, options: &InspectOptions| {
        let report = judge.inspect(&picture(), prepared, options).expect("a report");
        (report.verdict(), report.from_cache())
    };
    let asks = prepare(true);
    for from_cache in [false, true] {
        assert_eq!(seen(&asks, &asking("a wet floor")), (Verdict::Unsafe, from_cache));
        assert_eq!(seen(&asks, &asking("a dry floor")), (Verdict::Safe, from_cache));
        assert_eq!(seen(&asks, &InspectOptions::default()), (Verdict::Unsafe, from_cache));
        assert_eq!(seen(&asks, &asking("")), (Verdict::Unsafe, from_cache), "no words are not unknown ones");
    }
    let plain = prepare(false);
    assert!(!seen(&plain, &asking("a wet floor")).1);
    assert!(seen(&plain, &asking("a dry floor")).1);
    assert!(seen(&plain, &InspectOptions::default()).1);
}

/// The same words in two kinds of rules are two statements, each with a prior of its own.
#[test]
fn priors_are_those_of_the_form_that_is_asked() {
    let vlm = FakeVlm::new(Templates::shipped().expect("shipped templates"), |seen, _| match seen {
        None => 0.25,
        Some(_) => 0.5,
    })
    .projecting(
        |_, _| SLIPS.to_owned(),
        |seen, projection, _| match seen {
            None if projection == file("consequences-neutral.txt") => 0.75,
            None => 0.0,
            Some(_) => 0.5,
        },
    );
    let cache = cluegate_cache::Cache::in_memory();
    let judge = assemble(FakeEncoder::new(|_| 1.0), FakeDetector::new(|_, _| vec![]), vlm).with_cache(cache);
    let prior = |rule: &RuleEvidence| rule.preconditions[0].statements[0].score_without_image;
    for _ in 0..2 {
        let report =
            inspect(&judge, &[rule(&[FALL], false), rule(&[FALL], true)], &InspectOptions::default());
        let priors: Vec<f64> = report.rules().iter().map(prior).collect();
        assert_eq!(priors, [0.25, 0.75]);
    }
}

#[test]
fn evidence_of_before_and_of_now_is_read() {
    let report = with_boxes(LARGE, true);
    let mut json = serde_json::to_value(&report).expect("JSON");
    let rules: Vec<RuleEvidence> = serde_json::from_value(json["rules"].clone()).expect("evidence");
    assert_eq!(rules, report.rules());
    json["rules"][0].as_object_mut().expect("an object").remove("projection");
    let rules: Vec<RuleEvidence> = serde_json::from_value(json["rules"].clone()).expect("evidence");
    assert_eq!(rules[0].projection, None);
    json["passes"].as_object_mut().expect("an object").remove("projection");
    let passes: crate::Passes = serde_json::from_value(json["passes"].clone()).expect("passes");
    assert_eq!(passes.stages.projection, 0);
}
