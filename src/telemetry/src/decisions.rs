//! From decisions to metrics: the one place where it happens.

use std::sync::Arc;
use std::time::Instant;

use cluegate_gate::policy::Mode;
use cluegate_gate::{
    Agreement, AttemptRecord, Decision, DecisionLog, DecisionRecord, Judgment, JudgmentRecord, LogError,
    Outcome, Reason,
};
use serde_json::Value;

use crate::catalogue as metric;
use crate::recorder::Metrics;

/// Stages of the judge, and the model that each one calls.
const STAGES: [(&str, &str); 8] = [
    ("relevance", "relevance"),
    ("detection", "detector"),
    ("projection", "judge"),
    ("statements", "judge"),
    ("regions", "judge"),
    ("reasoning", "judge"),
    ("rating", "judge"),
    ("rationale", "judge"),
];

/// A decision log that measures what passes through it on its way to another.
#[derive(Debug)]
pub struct MeasuredLog<L> {
    log: L,
    metrics: Arc<Metrics>,
}

impl<L> MeasuredLog<L> {
    /// Measures what is appended to `log`.
    pub fn new(log: L, metrics: Arc<Metrics>) -> Self {
        Self { log, metrics }
    }
}

impl<L: DecisionLog> DecisionLog for MeasuredLog<L> {
    fn append(&self, decision: &Decision<'_>) -> Result<(), LogError> {
        let begun = Instant::now();
        let kept = self.log.append(decision);
        let took = begun.elapsed();
        self.metrics.within(|| {
            metric::STAGE.observe(took.as_secs_f64(), &["log"]);
            self.metrics.decided(decision.record, kept.is_ok());
        });
        kept
    }
}

impl Metrics {
    /// Counts a decision. One that could not be logged is withheld for that, whatever was decided.
    fn decided(&self, record: &DecisionRecord, logged: bool) {
        let tenant = self.tenant(&record.tenant);
        let (outcome, reason) =
            if logged { (record.outcome, record.reason) } else { (Outcome::Withheld, Reason::LogFailure) };
        let values = [tenant, outcome_name(outcome), reason.as_str(), mode_name(record.mode), stage(record)];
        metric::DECISIONS.add(1, &values);
        if !logged {
            metric::LOG_ERRORS.add(1, &[]);
        }
        for rule in &record.violated {
            metric::VIOLATIONS.add(1, &[tenant, self.rule(rule)]);
        }
        if let Some(canary) = &record.canary {
            metric::CANARY.add(1, &[agreement_name(canary.agreement)]);
        }
        metric::JUDGE_SECONDS.grow(record.cost.judge_seconds, &[tenant]);
        metric::COST.grow(record.cost.amount, &[tenant]);
        metric::STAGE.observe(record.timings_ms.total / 1e3, &["total"]);
        if record.timings_ms.redacting > 0.0 {
            metric::STAGE.observe(record.timings_ms.redacting / 1e3, &["redaction"]);
        }
        record.attempts.iter().for_each(attempted);
    }
}

fn attempted(attempt: &AttemptRecord) {
    for preview in &attempt.previews {
        metric::STAGE.observe(preview.judgment.ms / 1e3, &["preview"]);
        judged("preview", &preview.judgment);
    }
    if let Some(judgment) = &attempt.judgment {
        judged("picture", judgment);
    }
    if let Some(judgment) = &attempt.compared {
        judged("canary", judgment);
    }
    for judgment in attempt.redactions.iter().filter_map(|redaction| redaction.judgment.as_ref()) {
        judged("redaction", judgment);
    }
}

/// Counts one call of the judge.
fn judged(about: &str, judgment: &JudgmentRecord) {
    let verdict = match judgment.verdict {
        Judgment::Safe => "safe",
        Judgment::Unsafe => "unsafe",
        Judgment::Error => "error",
    };
    metric::JUDGMENTS.add(1, &[about, verdict]);
    metric::STAGE.observe(judgment.ms / 1e3, &["judge"]);
    if let Some(error) = &judgment.error {
        metric::JUDGE_ERRORS.add(1, &[&error.kind]);
    }
    let Some(evidence) = &judgment.evidence else { return };
    let known = evidence.get("from_cache").and_then(Value::as_bool).unwrap_or_default();
    metric::VERDICT_CACHE.add(1, &[if known { "hit" } else { "miss" }]);
    for (stage, model) in STAGES {
        let of = |part: &str| evidence.get(part).and_then(|part| part.get(stage));
        let ms = of("timings_ms").and_then(Value::as_f64).unwrap_or_default();
        if ms > 0.0 {
            metric::STAGE.observe(ms / 1e3, &[stage]);
        }
        let passes = of("passes").and_then(Value::as_u64).unwrap_or_default();
        if passes > 0 {
            metric::PASSES.add(passes, &[model, stage]);
        }
    }
}

/// What the last word of a decision was about.
fn stage(record: &DecisionRecord) -> &'static str {
    match record.attempts.last() {
        _ if record.reason == Reason::Preview => "preview",
        Some(last) if !last.redactions.is_empty() => "redaction",
        Some(last) if last.judgment.is_some() => "picture",
        Some(last) if last.previews.iter().any(|preview| preview.aborted) => "preview",
        _ => "none",
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Released => "released",
        Outcome::Withheld => "withheld",
        Outcome::Held => "held",
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Shadow => "shadow",
    }
}

fn agreement_name(agreement: Agreement) -> &'static str {
    match agreement {
        Agreement::Same => "same",
        Agreement::SameAction => "same-action",
        Agreement::Different => "different",
        Agreement::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use cluegate_gate::fakes::{FailingLog, Fault, World, gate_with, picture};
    use cluegate_gate::{MemoryLog, RequestInfo};

    use super::*;
    use crate::{MetricsOptions, OTHER};

    /// What is exported after `pictures` were finished, each in a request of its own.
    fn after(
        log: impl DecisionLog + 'static,
        world: &World,
        options: MetricsOptions,
        pictures: &[&[usize]],
    ) -> String {
        let metrics = Metrics::new(options).unwrap();
        let log = Arc::new(MeasuredLog::new(log, Arc::clone(&metrics)));
        let gate = gate_with(world, "", "", log).unwrap();
        for (salt, objects) in (0..).zip(pictures) {
            let mut session = gate.session(RequestInfo::new("t", "a table", 7, 1)).unwrap();
            session.finished(0, picture(objects, salt)).unwrap();
        }
        metrics.render()
    }

    fn has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|own| own == *line), "{line} in\n{text}");
        }
    }

    #[test]
    fn decisions_judgments_passes_and_times_are_counted_once_each() {
        let world = World::new([Fault::None, Fault::None, Fault::Error]);
        let text = after(MemoryLog::new(9), &world, MetricsOptions::default(), &[&[], &[1, 2], &[]]);
        has(
            &text,
            &[
                "cluegate_judgments_total{stage=\"picture\",verdict=\"safe\"} 1",
                "cluegate_judgments_total{stage=\"picture\",verdict=\"unsafe\"} 1",
                "cluegate_judgments_total{stage=\"picture\",verdict=\"error\"} 1",
                "cluegate_judge_errors_total{kind=\"out-of-domain\"} 1",
                "cluegate_violations_total{tenant=\"t\",rule=\"beer\"} 1",
                "cluegate_violations_total{tenant=\"t\",rule=\"sword\"} 1",
                "cluegate_verdict_cache_lookups_total{result=\"miss\"} 2",
                "cluegate_stage_duration_seconds_count{stage=\"log\"} 3",
                "cluegate_stage_duration_seconds_count{stage=\"total\"} 3",
                "cluegate_forward_passes_total{model=\"relevance\",stage=\"relevance\"} 2",
                "cluegate_log_errors_total 0",
            ],
        );
        for (outcome, reason) in
            [("released", "safe"), ("withheld", "violation"), ("withheld", "judge-error")]
        {
            let labels = format!(
                "tenant=\"t\",outcome=\"{outcome}\",reason=\"{reason}\",mode=\"enforce\",stage=\"picture\""
            );
            has(&text, &[&format!("cluegate_decisions_total{{{labels}}} 1")]);
        }
    }

    #[test]
    fn what_cannot_be_logged_is_counted_as_withheld() {
        let log = FailingLog { lines: Default::default(), from: 1, panics: false };
        let text = after(log, &World::new([]), MetricsOptions::default(), &[&[]]);
        let labels =
            "tenant=\"t\",outcome=\"withheld\",reason=\"log-failure\",mode=\"enforce\",stage=\"picture\"";
        has(&text, &[&format!("cluegate_decisions_total{{{labels}}} 1"), "cluegate_log_errors_total 1"]);
        assert!(!text.contains("outcome=\"released\""), "{text}");
    }

    #[test]
    fn more_tenants_and_rules_than_there_may_be_share_a_series() {
        let options = MetricsOptions { tenants: 0, rules: 1 };
        let text = after(MemoryLog::new(9), &World::new([]), options, &[&[1, 2], &[1, 2]]);
        has(
            &text,
            &[
                &format!("cluegate_violations_total{{tenant=\"{OTHER}\",rule=\"beer\"}} 2"),
                &format!("cluegate_violations_total{{tenant=\"{OTHER}\",rule=\"{OTHER}\"}} 2"),
            ],
        );
        assert!(!text.contains("tenant=\"t\""), "{text}");
    }
}
