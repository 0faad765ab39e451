//! What is computed once: `M(None, c)` across restarts, reports of pictures judged before.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use cluegate_cache::{Bound, Cache};
use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, Fingerprint, PerceptionError, PerceptionErrorKind,
    Picture, Prompt, Result as Answer, VisionLanguageModel,
};
use image::{Rgb, RgbImage};
use proptest::prelude::*;

use super::support::{Said, Script, constitution, one_statement, picture};
use crate::fakes::{FakeDetector, FakeEncoder, FakeVlm};
use crate::{
    InspectOptions, Judge, JudgeError, JudgeErrorKind, JudgeOptions, Prepared, Report, Stages, Templates,
    Verdict,
};

/// A judge that keeps no reports, over a model that the test goes on holding.
fn forgetful_over(vlm: Arc<dyn VisionLanguageModel>, templates: Templates) -> Judge {
    let (encoder, detector) = (FakeEncoder::new(|_| 1.0), FakeDetector::new(|_, _| Vec::new()));
    Judge::new(Arc::new(encoder), Arc::new(detector), vlm, templates, JudgeOptions::default())
}

/// A judge that keeps reports.
fn judge_over(vlm: Arc<dyn VisionLanguageModel>, templates: Templates) -> Judge {
    forgetful_over(vlm, templates).with_verdicts(Judge::VERDICTS)
}

fn shipped() -> Templates {
    Templates::shipped().expect("shipped templates")
}

/// Scores by text; counts calls.
fn vlm() -> Arc<FakeVlm> {
    let score = |_: Option<&Picture>, text: &str| 1.0 / (2.0 + text.len() as f64);
    Arc::new(FakeVlm::new(shipped(), score))
}

fn statements(texts: &[&'static str]) -> cluegate_constitution::Constitution {
    let chain: Vec<Vec<Said>> = texts.iter().map(|text| vec![(*text, &[][..])]).collect();
    constitution(&[(chain, vec![])], "")
}

/// The same model under another name.
struct Renamed(Arc<FakeVlm>, Fingerprint);

impl VisionLanguageModel for Renamed {
    fn fingerprint(&self) -> &Fingerprint {
        &self.1
    }

    fn score(&self, prompts: &[Prompt], call: &Call) -> Answer<Vec<AnswerScore>> {
        self.0.score(prompts, call)
    }

    fn complete(&self, requests: &[CompletionRequest], call: &Call) -> Answer<Vec<Completion>> {
        self.0.complete(requests, call)
    }
}

#[test]
fn a_restart_asks_nothing_without_a_picture() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |vlm: &Arc<FakeVlm>, texts: &[&'static str]| {
        let judge = judge_over(vlm.clone(), shipped()).with_cache(Cache::open(folder.path()));
        judge.prepare(&statements(texts)).expect("prepared").priors
    };
    let first = vlm();
    let priors = start(&first, &["a", "bc", "a"]);
    assert_eq!((priors, first.score_calls()), (vec![1.0 / 3.0, 0.25], 1));
    let second = vlm();
    assert_eq!(start(&second, &["bc", "a"]), [0.25, 1.0 / 3.0]);
    assert_eq!(second.score_calls(), 0);
    // What is new is asked, in one call.
    assert_eq!(start(&second, &["def", "a", "ghij"]), [0.2, 1.0 / 3.0, 1.0 / 6.0]);
    assert_eq!(second.score_calls(), 1);
}

#[test]
fn another_model_or_question_has_its_own_priors() {
    let folder = tempfile::tempdir().expect("a folder");
    let prepare = |vlm: Arc<dyn VisionLanguageModel>, templates: Templates| {
        let judge = judge_over(vlm, templates).with_cache(Cache::open(folder.path()));
        judge.prepare(&statements(&["a"])).expect("prepared");
    };
    let calls = |vlm: &FakeVlm| vlm.score_calls();
    let known = vlm();
    prepare(known.clone(), shipped());
    let other = vlm();
    prepare(Arc::new(Renamed(other.clone(), "another".to_owned())), shipped());
    assert_eq!(calls(&other), 1);
    let reasoning = "Think about {{ statement }}.";
    let templates =
        Templates::parse("Is it true that {{ statement }}?", reasoning, "Rate.").expect("templates");
    let asked = Arc::new(FakeVlm::new(templates.clone(), |_, _| 0.5));
    prepare(asked.clone(), templates);
    assert_eq!(calls(&asked), 1);
    prepare(known.clone(), shipped());
    assert_eq!(calls(&known), 1);
}

#[test]
fn a_failed_answer_is_asked_again() {
    let cache = Cache::in_memory();
    let broken = Arc::new(FakeVlm::new(shipped(), |_, text| if text == "b" { f64::NAN } else { 0.5 }));
    let judge = judge_over(broken, shipped()).with_cache(cache.clone());
    assert_eq!(
        judge.prepare(&statements(&["a", "b"])).expect_err("no number").kind(),
        JudgeErrorKind::NotANumber
    );
    let mended = vlm();
    judge_over(mended.clone(), shipped())
        .with_cache(cache)
        .prepare(&statements(&["a", "b"]))
        .expect("prepared");
    assert_eq!(mended.score_calls(), 1);
}

/// A report without what a recalled one has not: how long it took and what it cost.
fn content(report: &Report) -> serde_json::Value {
    let mut json = serde_json::to_value(report).expect("JSON");
    let fields = json.as_object_mut().expect("an object");
    ["timings_ms", "passes", "from_cache"].iter().for_each(|key| drop(fields.remove(*key)));
    json
}

#[test]
fn the_same_picture_is_judged_once() {
    let vlm = vlm();
    let judge = judge_over(vlm.clone(), shipped());
    let prepared = judge.prepare(&one_statement()).expect("prepared");
    let inspect = || judge.inspect(&picture(), &prepared, &InspectOptions::default()).expect("a report");
    let first = inspect();
    let calls = (vlm.score_calls(), vlm.complete_calls());
    assert!(!first.from_cache() && first.passes().stages.statements == 1);
    // Prepared again, the constitution is still the same.
    let again = judge.prepare(&one_statement()).expect("prepared");
    for second in
        [inspect(), judge.inspect(&picture(), &again, &InspectOptions::default()).expect("a report")]
    {
        assert!(second.from_cache());
        assert_eq!(content(&second), content(&first));
        assert_eq!(second.passes(), &crate::Passes::default());
        assert_eq!(
            (second.timings().stages, second.timings().total > 0.0),
            (crate::PerStage::default(), true)
        );
        assert_eq!(second.complete(), first.complete());
    }
    assert_eq!((vlm.score_calls(), vlm.complete_calls()), calls);
    // A judge keeps no reports unless told so.
    let forgetful = Script::default().judge();
    let prepared = forgetful.prepare(&one_statement()).expect("prepared");
    for _ in 0..2 {
        let report = forgetful.inspect(&picture(), &prepared, &InspectOptions::default()).expect("a report");
        assert!(!report.from_cache());
    }
}

#[test]
fn pictures_of_one_size_that_differ_in_one_pixel_do_not_share() {
    let white = Picture::new(RgbImage::from_pixel(8, 8, Rgb([255; 3])));
    let mut pixels = white.pixels().clone();
    pixels.put_pixel(7, 7, Rgb([255, 255, 254]));
    let other = Picture::new(pixels);
    let hash = other.hash();
    let vlm = FakeVlm::new(shipped(), move |seen, _| match seen {
        None => 0.5,
        Some(seen) if seen.hash() == hash => 1.0,
        Some(_) => 0.0,
    });
    let judge = judge_over(Arc::new(vlm), shipped());
    let prepared = judge.prepare(&one_statement()).expect("prepared");
    for from_cache in [false, true] {
        for (picture, verdict) in [(&white, Verdict::Safe), (&other, Verdict::Unsafe)] {
            let report = judge.inspect(picture, &prepared, &InspectOptions::default()).expect("a report");
            assert_eq!((report.verdict(), report.from_cache()), (verdict, from_cache));
            assert_eq!(report.picture(), picture.hash());
        }
    }
}

#[test]
fn whatever_changes_the_report_changes_the_key() {
    let judge = judge_over(vlm(), shipped());
    let seen = |prepared: &Prepared, options: &InspectOptions| {
        judge.inspect(&picture(), prepared, options).expect("a report").from_cache()
    };
    let constitutions = [
        one_statement(),
        constitution(&[(vec![vec![("it is there", &["thing"])]], vec![])], "relevance = 0.1"),
        constitution(&[(vec![vec![("it is there", &["other"])]], vec![])], ""),
    ];
    let mut prepared: Vec<Prepared> =
        constitutions.iter().map(|constitution| judge.prepare(constitution).expect("prepared")).collect();
    // As a judge prepares it whose encoder has another threshold by default.
    prepared
        .push(Prepared { relevance_threshold: 0.3, ..judge.prepare(&one_statement()).expect("prepared") });
    let all = InspectOptions::default();
    let options = [
        InspectOptions { rationale: true, ..all.clone() },
        InspectOptions { stages: Stages { crop: false, ..Stages::ALL }, ..all.clone() },
        all,
    ];
    for from_cache in [false, true] {
        for prepared in &prepared {
            for options in &options {
                assert_eq!(seen(prepared, options), from_cache, "{options:?}");
            }
        }
    }
    // For whom it is makes no difference.
    let call = Call::new("another tenant").until(Instant::now() + Duration::from_secs(3600));
    assert!(seen(&prepared[0], &InspectOptions { call, ..InspectOptions::default() }));
}

#[test]
fn errors_are_not_kept_and_a_call_that_is_over_gets_none() {
    let left = AtomicUsize::new(1);
    let fail = move || {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
            .then(|| PerceptionError::new(PerceptionErrorKind::Backend, "broken once"))
    };
    let judge = judge_over(Arc::new(FakeVlm::new(shipped(), |_, _| 0.5).failing(fail)), shipped());
    let prepared = judge.prepare(&one_statement()).expect("prepared");
    let inspect =
        |call| judge.inspect(&picture(), &prepared, &InspectOptions { call, ..InspectOptions::default() });
    assert_eq!(inspect(Call::default()).expect_err("broken").kind(), JudgeErrorKind::Backend);
    assert!(!inspect(Call::default()).expect("a report").from_cache());
    assert!(inspect(Call::default()).expect("a report").from_cache());
    let (late, cancelled) = (Call::default().until(Instant::now()), Call::default());
    cancelled.cancel();
    assert_eq!(inspect(late).expect_err("late").kind(), JudgeErrorKind::Timeout);
    assert_eq!(inspect(cancelled).expect_err("called off").kind(), JudgeErrorKind::Cancelled);
}

#[test]
fn reports_stay_within_their_bound() {
    let judge = judge_over(vlm(), shipped()).with_verdicts(Bound { entries: 3, bytes: 1 << 20 });
    let prepared = judge.prepare(&one_statement()).expect("prepared");
    let inspect = |judge: &Judge, shade: u8| {
        let picture = Picture::new(RgbImage::from_pixel(4, 4, Rgb([shade; 3])));
        judge.inspect(&picture, &prepared, &InspectOptions::default()).expect("a report").from_cache()
    };
    for shade in 0..6 {
        assert!(!inspect(&judge, shade));
    }
    let size = |judge: &Judge| judge.verdicts.as_ref().expect("reports are kept").size();
    assert_eq!(size(&judge).0, 3);
    assert_eq!([5, 4, 3, 2].map(|shade| inspect(&judge, shade)), [true, true, true, false]);
    let each = size(&judge).1 / 3;
    assert!(each > 500, "{each} bytes are too few for a report");
    // Room for two, then for none.
    for (bytes, kept) in [(2 * each + each / 2, 2), (each / 2, 0)] {
        let judge = judge_over(vlm(), shipped()).with_verdicts(Bound { entries: 100, bytes });
        (0..6).for_each(|shade| assert!(!inspect(&judge, shade)));
        assert_eq!(size(&judge).0, kept);
    }
}

/// What the model does when it is asked about a picture.
enum Then {
    Answer,
    Fail,
    Panic,
}

/// A judge whose model announces each question about a picture and waits to be told what to do.
struct Held {
    judge: Judge,
    prepared: Prepared,
    asked: Mutex<Receiver<()>>,
    then: Sender<Then>,
}

impl Held {
    fn new() -> Self {
        let (announce, asked) = channel();
        let (then, told) = channel();
        let (announce, told) = (Mutex::new(announce), Mutex::new(told));
        let wait = move || {
            announce.lock().expect("a lock").send(()).expect("a listener");
            let then = told.lock().expect("a lock").recv().expect("an order");
            match then {
                Then::Answer => None,
                Then::Fail => Some(PerceptionError::new(PerceptionErrorKind::Backend, "told to fail")),
                Then::Panic => std::panic::resume_unwind(Box::new("told to panic")),
            }
        };
        let score = |seen: Option<&Picture>, _: &str| if seen.is_some() { 1.0 } else { 0.5 };
        let judge = judge_over(Arc::new(FakeVlm::new(shipped(), score).failing(wait)), shipped());
        let prepared = judge.prepare(&one_statement()).expect("prepared");
        Self { judge, prepared, asked: Mutex::new(asked), then }
    }

    fn inspect(&self, call: &Call) -> Result<Report, JudgeError> {
        let options = InspectOptions { call: call.clone(), ..InspectOptions::default() };
        self.judge.inspect(&picture(), &self.prepared, &options)
    }

    /// Returns when the model is being asked.
    fn is_asked(&self) {
        self.asked.lock().expect("a lock").recv().expect("a question");
    }

    fn is_not_asked(&self) -> bool {
        self.asked.lock().expect("a lock").try_recv().is_err()
    }

    fn tell(&self, then: Then) {
        self.then.send(then).expect("a model");
    }

    /// Returns when so many inspections wait for another.
    fn wait_for(&self, waiting: usize) {
        while self.judge.verdicts.as_ref().expect("reports are kept").waiting() != waiting {
            std::thread::yield_now();
        }
    }
}

#[test]
fn inspections_of_the_same_at_the_same_time_are_one() {
    let held = Held::new();
    std::thread::scope(|scope| {
        let inspect = || scope.spawn(|| held.inspect(&Call::default()).expect("a report"));
        let first = inspect();
        held.is_asked();
        let others: Vec<_> = (0..3).map(|_| inspect()).collect();
        held.wait_for(3);
        held.tell(Then::Answer);
        let first = first.join().expect("a thread");
        assert!(!first.from_cache());
        for other in others {
            let other = other.join().expect("a thread");
            assert!(other.from_cache());
            assert_eq!(content(&other), content(&first));
        }
    });
    assert!(held.is_not_asked());
}

#[test]
fn whoever_waits_for_a_failed_inspection_judges_itself() {
    for then in [Then::Fail, Then::Panic] {
        let held = Held::new();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| held.inspect(&Call::default()));
            held.is_asked();
            let others: Vec<_> = (0..2).map(|_| scope.spawn(|| held.inspect(&Call::default()))).collect();
            held.wait_for(2);
            let panics = matches!(then, Then::Panic);
            held.tell(then);
            match first.join() {
                Ok(result) => assert_eq!(result.expect_err("told to fail").kind(), JudgeErrorKind::Backend),
                Err(_) => assert!(panics),
            }
            // One of the two takes over, the other waits for it.
            held.is_asked();
            held.wait_for(1);
            held.tell(Then::Answer);
            let reports = others.into_iter().map(|other| other.join().expect("a thread").expect("a report"));
            assert_eq!(reports.filter(Report::from_cache).count(), 1);
        });
        assert!(held.is_not_asked());
    }
}

#[test]
fn whoever_waits_for_an_inspection_that_is_called_off_takes_over() {
    let held = Held::new();
    std::thread::scope(|scope| {
        let call = Call::default();
        let own = call.clone();
        let (held, first) = (
            &held,
            scope.spawn({
                let held = &held;
                move || held.inspect(&own)
            }),
        );
        held.is_asked();
        let other = scope.spawn(|| held.inspect(&Call::default()));
        held.wait_for(1);
        // The model goes on answering the first, but the second waits no longer.
        call.cancel();
        held.is_asked();
        held.tell(Then::Answer);
        held.tell(Then::Answer);
        let reports = [first.join().expect("a thread"), other.join().expect("a thread")];
        assert!(!reports[1].as_ref().expect("a report").from_cache());
    });
    assert!(held.inspect(&Call::default()).expect("a report").from_cache());
}

#[test]
fn whoever_waits_can_be_called_off_and_runs_out_of_time() {
    let held = Held::new();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| held.inspect(&Call::default()));
        held.is_asked();
        let call = Call::default();
        let own = call.clone();
        let cancelled = scope.spawn({
            let held = &held;
            move || held.inspect(&own)
        });
        held.wait_for(1);
        call.cancel();
        let error = cancelled.join().expect("a thread").expect_err("called off");
        assert_eq!(error.kind(), JudgeErrorKind::Cancelled);
        let late = held.inspect(&Call::default().until(Instant::now() + Duration::from_millis(5)));
        assert_eq!(late.expect_err("late").kind(), JudgeErrorKind::Timeout);
        held.tell(Then::Answer);
        assert!(first.join().expect("a thread").is_ok());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Threads that judge a few pictures under two constitutions, with and without a rationale and with room for three
    /// reports: every report is what a judge without memory gives.
    #[test]
    fn reports_are_those_of_a_judge_without_memory(
        asked in proptest::collection::vec((0u8..4, 0usize..2, any::<bool>()), 1..24),
    ) {
        let score = |seen: Option<&Picture>, text: &str| match seen {
            None => 0.5,
            Some(seen) => f64::from(seen.pixels().get_pixel(0, 0)[0]) / 3.0 + if text.len() > 12 { 0.0 } else { 0.1 },
        };
        let clamped = move |seen: Option<&Picture>, text: &str| score(seen, text).min(1.0);
        let make = || forgetful_over(Arc::new(FakeVlm::new(shipped(), clamped).rating(clamped)), shipped());
        let keeping = make().with_verdicts(Bound { entries: 3, bytes: 1 << 20 });
        let constitutions = [one_statement(), statements(&["a statement that is long", "short"])];
        let prepared = constitutions.map(|constitution| keeping.prepare(&constitution).expect("prepared"));
        let inspect = |judge: &Judge, (shade, constitution, rationale): (u8, usize, bool)| {
            let picture = Picture::new(RgbImage::from_pixel(40, 40, Rgb([shade; 3])));
            let options = InspectOptions { rationale, ..InspectOptions::default() };
            content(&judge.inspect(&picture, &prepared[constitution], &options).expect("a report"))
        };
        let start = Barrier::new(3);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (asked, start, inspect, keeping) = (&asked, &start, &inspect, &keeping);
                scope.spawn(move || {
                    let plain = make();
                    start.wait();
                    for at in 0..asked.len() {
                        let asked = asked[(at + thread) % asked.len()];
                        assert_eq!(inspect(keeping, asked), inspect(&plain, asked));
                    }
                });
            }
        });
    }
}
