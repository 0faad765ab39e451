//! Decision records as data: what is written is what is read.

use std::collections::BTreeMap;

use cluegate_gate::policy::{CanaryDecides, Mode, PromptReader, RedactionMethod};
use cluegate_gate::{
    Action, Agreement, AnswerRecord, AttemptRecord, CanaryRecord, ConstitutionRecord, Cost, DecisionRecord,
    DecisionTimings, FailureRecord, FindingRecord, HiddenBox, Instruction, Judgment, JudgmentRecord,
    LabelRecord, OnUnsafe, Outcome, PixelBox, PreviewRecord, PromptCheckRecord, Reason, RedactionRecord,
    RequestInfo, RequestRecord, Strategy as Change, WouldRecord,
};
use cluegate_judge::{Passes, PerStage};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use cluegate_gate::fakes::{World, gate, picture};

/// A time or an amount as the gate writes them: whole micro-units.
fn amount() -> impl Strategy<Value = f64> {
    (0_u32..2_000_000_000).prop_map(|micro| f64::from(micro) / 1e6)
}

fn text() -> impl Strategy<Value = String> {
    "[a-z \"\\\\\u{e4}\u{1f600}\n-]{0,12}"
}

fn action() -> impl Strategy<Value = Action> {
    select(vec![Action::Allow, Action::Redact, Action::Regenerate, Action::Hold, Action::Block])
}

fn outcome() -> impl Strategy<Value = Outcome> {
    select(vec![Outcome::Released, Outcome::Withheld, Outcome::Held])
}

const REASONS: [Reason; 19] = [
    Reason::Safe,
    Reason::Allowed,
    Reason::Redacted,
    Reason::Shadow,
    Reason::Unjudged,
    Reason::HeldForReview,
    Reason::Violation,
    Reason::TriesExhausted,
    Reason::RedactionFailed,
    Reason::JudgeError,
    Reason::JudgeTimeout,
    Reason::GeneratorFailure,
    Reason::RequestTimeout,
    Reason::Limit,
    Reason::LogFailure,
    Reason::SigningFailure,
    Reason::NotFinished,
    Reason::Cancelled,
    Reason::Preview,
];

fn constitution() -> impl Strategy<Value = ConstitutionRecord> {
    (text(), "[0-9a-f]{64}").prop_map(|(name, revision)| ConstitutionRecord { name, revision })
}

fn passes() -> impl Strategy<Value = Passes> {
    (any::<[u32; 8]>(), any::<u32>()).prop_map(|(counts, cascades)| {
        let [relevance, detection, projection, statements, regions, reasoning, rating, rationale] =
            counts.map(u64::from);
        let stages =
            PerStage { relevance, detection, projection, statements, regions, reasoning, rating, rationale };
        Passes { stages, cascades: cascades.into() }
    })
}

fn judgment() -> impl Strategy<Value = JudgmentRecord> {
    let evidence = (any::<i32>(), text()).prop_map(|(n, t)| serde_json::json!({"n": n, "t": [t, null, 0.5]}));
    let failure = (text(), text()).prop_map(|(kind, message)| FailureRecord { kind, message });
    (
        select(vec![Judgment::Safe, Judgment::Unsafe, Judgment::Error]),
        vec(text(), 0..3),
        option::of(action()),
        option::of(failure),
        option::of(evidence),
        option::of(passes()),
        amount(),
    )
        .prop_map(|(verdict, violated, action, error, evidence, passes, ms)| JudgmentRecord {
            verdict,
            violated,
            action,
            error,
            evidence,
            passes,
            ms,
        })
}

fn preview() -> impl Strategy<Value = PreviewRecord> {
    (any::<[u32; 2]>(), any::<[bool; 2]>(), [option::of(amount()), option::of(amount())], judgment())
        .prop_map(|([step, total], [aborted, would_abort], [score, threshold], judgment)| PreviewRecord {
            step,
            total,
            aborted,
            would_abort,
            score,
            threshold,
            judgment,
        })
}

fn finding() -> impl Strategy<Value = FindingRecord> {
    let share = || (0_u32..=1000).prop_map(|thousandths| f64::from(thousandths) / 1000.0);
    let label = (text(), share(), option::of(any::<[u16; 4]>()), any::<bool>()).prop_map(
        |(name, score, region, hide)| LabelRecord {
            name,
            score: score as f32,
            region: region.map(|edges| edges.map(f32::from)),
            hide,
        },
    );
    let answer = (text(), share()).prop_map(|(statement, share)| AnswerRecord { statement, share });
    let on_unsafe = select(vec![OnUnsafe::Withhold, OnUnsafe::Redact, OnUnsafe::Note]);
    (
        (text(), text()),
        any::<bool>(),
        on_unsafe,
        share(),
        (vec(label, 0..3), 0..3_u32),
        vec(answer, 0..2),
        amount(),
    )
        .prop_map(
            |((plugin, fingerprint), flagged, on_unsafe, score, (labels, labels_omitted), answers, ms)| {
                FindingRecord {
                    plugin,
                    fingerprint,
                    flagged,
                    on_unsafe,
                    score,
                    labels,
                    labels_omitted,
                    answers,
                    ms,
                }
            },
        )
}

fn redaction() -> impl Strategy<Value = RedactionRecord> {
    let methods = select(vec![
        RedactionMethod::Blur,
        RedactionMethod::Pixelate,
        RedactionMethod::Fill,
        RedactionMethod::Inpaint,
    ]);
    let boxes = (any::<[u16; 4]>(), vec(text(), 0..3)).prop_map(|(sides, statements)| {
        let [left, top, right, bottom] = sides.map(u32::from);
        HiddenBox { area: PixelBox { left, top, right, bottom }, statements }
    });
    let findings = vec(finding(), 0..2);
    (methods, amount(), vec(boxes, 0..3), option::of(text()), option::of(judgment()), findings).prop_map(
        |(method, grow, boxes, refused, judgment, plugins)| RedactionRecord {
            method,
            grow,
            boxes,
            refused,
            judgment,
            plugins,
        },
    )
}

fn attempt() -> impl Strategy<Value = AttemptRecord> {
    (
        (any::<(u32, u64, u32)>(), change(), option::of(amount()), option::of(text())),
        vec(preview(), 0..2),
        option::of(text()),
        (option::of(judgment()), option::of(judgment())),
        (vec(finding(), 0..2), vec(redaction(), 0..2)),
        option::of(text()),
        amount(),
    )
        .prop_map(
            |(drawn, previews, picture, (judgment, compared), (plugins, redactions), failure, ms)| {
                let ((attempt, seed, steps), strategy, chance, prompt) = drawn;
                AttemptRecord {
                    attempt,
                    seed,
                    strategy,
                    chance,
                    prompt,
                    steps,
                    previews,
                    picture,
                    judgment,
                    compared,
                    plugins,
                    redactions,
                    failure,
                    ms,
                }
            },
        )
}

fn change() -> impl Strategy<Value = Change> {
    select(vec![Change::First, Change::Reseed, Change::Avoid, Change::Rewrite])
}

fn would() -> impl Strategy<Value = WouldRecord> {
    (action(), option::of(outcome()), text()).prop_map(|(action, outcome, message)| WouldRecord {
        action,
        outcome,
        message,
    })
}

fn prompt_check() -> impl Strategy<Value = PromptCheckRecord> {
    let readers = select(vec![PromptReader::Judge, PromptReader::Encoder]);
    (readers, judgment(), option::of(any::<bool>())).prop_map(|(by, judgment, agrees)| PromptCheckRecord {
        by,
        judgment,
        agrees,
    })
}

fn canary() -> impl Strategy<Value = CanaryRecord> {
    let agreements = vec![Agreement::Same, Agreement::SameAction, Agreement::Different, Agreement::Unknown];
    let decides = vec![CanaryDecides::Stable, CanaryDecides::Canary];
    (constitution(), constitution(), select(decides), select(agreements))
        .prop_map(|(stable, canary, decides, agreement)| CanaryRecord { stable, canary, decides, agreement })
}

/// Who asked, and for what.
fn asked() -> impl Strategy<Value = (Option<String>, Option<String>, Option<String>, RequestRecord)> {
    let request = (text(), text(), option::of(text()), any::<(u64, u32)>()).prop_map(
        |(id, prompt_hash, prompt, (seed, count))| RequestRecord { id, prompt_hash, prompt, seed, count },
    );
    (option::of(text()), option::of(text()), option::of(text()), request)
}

prop_compose! {
    fn record()(
        decision_id in text(),
        timestamp in text(),
        tenant in text(),
        mode in select(vec![Mode::Enforce, Mode::Shadow]),
        constitution in constitution(),
        models in proptest::collection::btree_map(text(), text(), 0..3),
        (model, requested_by, subject, request) in asked(),
        (member, unjudged) in any::<(u32, bool)>(),
        (outcome, reason, message) in (outcome(), select(REASONS.to_vec()), text()),
        (action, violated) in (option::of(action()), vec(text(), 0..3)),
        (would, canary, prompt_check) in (option::of(would()), option::of(canary()), option::of(prompt_check())),
        (judgments, passes, steps) in any::<(u32, u32, u32)>(),
        (judge_seconds, price) in (amount(), amount()),
        (released_picture, fidelity) in (option::of(text()), option::of(amount())),
        attempts in vec(attempt(), 0..3),
        [total, judging, redacting] in [amount(), amount(), amount()],
    ) -> DecisionRecord {
        let models: BTreeMap<String, String> = models;
        DecisionRecord {
            decision_id, timestamp, tenant, mode, constitution, models, model, requested_by, subject, request,
            member, outcome, reason, message, action, violated, unjudged, would, prompt_check, canary,
            cost: Cost {
                judgments: judgments.into(), passes: passes.into(), judge_seconds, steps: steps.into(), amount: price,
            },
            fidelity, released_picture, attempts, timings_ms: DecisionTimings { total, judging, redacting },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_record_that_was_written_is_read_again(record in record()) {
        let text = serde_json::to_string(&record).unwrap();
        let read: DecisionRecord = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&read, &record);
        prop_assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }
}

#[test]
fn a_record_of_an_earlier_release_is_read() {
    let written = serde_json::json!({
        "decision_id": "1", "timestamp": "2026-01-01T00:00:00Z", "tenant": "t",
        "constitution": {"name": "world", "revision": "ab"}, "models": {},
        "request": {"id": "r", "prompt_hash": "cd", "seed": 7, "count": 1}, "member": 0, "outcome": "withheld",
        "reason": "violation", "message": "violates beer", "action": "block", "violated": ["beer"], "unjudged": false,
        "attempts": [{"attempt": 1, "seed": 7, "ms": 1.5, "judgment": {"verdict": "unsafe", "violated": ["beer"], "ms": 1.0}}],
        "timings_ms": {"total": 2.0, "judging": 1.0, "redacting": 0.0},
    });
    let read: DecisionRecord = serde_json::from_value(written).unwrap();
    assert_eq!((read.mode, read.canary, read.would), (Mode::Enforce, None, None));
    assert_eq!(read.attempts[0].judgment.as_ref().unwrap().passes, None);
    assert_eq!((read.attempts[0].strategy, read.attempts[0].steps, read.fidelity), (Change::First, 0, None));
}

#[test]
fn a_record_says_who_asked_for_what_and_what_it_took() {
    let head = "tries = 2\npreviews = [0.5]";
    let (gate, log) = gate(&World::new([]), head, "[tenant.t.action]\ndefault = \"regenerate\"");
    let asked = RequestInfo {
        model: Some("sdxl-turbo".to_owned()),
        requested_by: Some("key-7".to_owned()),
        subject: Some("reader 12".to_owned()),
        ..RequestInfo::new("t", "a beer", 7, 1)
    };
    let mut session = gate.session(asked).unwrap();
    session.preview(0, 5, 10, &picture(&[], 1)).unwrap();
    assert!(matches!(session.finished(0, picture(&[1], 0)).unwrap(), Instruction::DrawAgain(_)));
    assert!(matches!(session.finished(0, picture(&[], 0)).unwrap(), Instruction::Release(_)));
    let record = &log.records()[0];
    let named = [&record.model, &record.requested_by, &record.subject].map(|name| name.as_deref());
    assert_eq!(named, [Some("sdxl-turbo"), Some("key-7"), Some("reader 12")]);
    assert_eq!(record.cost.judgments, 3);
    let counted: u64 = record.judgments().map(|judgment| judgment.passes.unwrap().total()).sum();
    assert!(counted > 0);
    assert_eq!(record.cost.passes, counted);
    let evidence = record.attempts[0].judgment.as_ref().unwrap().evidence.as_ref().unwrap();
    assert_eq!(
        evidence["passes"]["statements"],
        record.attempts[0].judgment.as_ref().unwrap().passes.unwrap().stages.statements
    );
    assert!(record.cost.judge_seconds > 0.0);
}
