//! What a benchmark is, in words, for those who find the folder.

use std::fmt::Write as _;

use super::{ATTEMPTS_FILE, BuildOptions, Built, Fit, Situation};

/// Name of the card in the folder of a benchmark.
pub const CARD_FILE: &str = "CARD.md";

/// The card. Holds no time, so that the same build writes the same bytes.
pub(super) fn of(built: &Built, generator: &str, fit: &Fit<'_>, options: &BuildOptions) -> String {
    let kept = built.kept().count();
    let failed = built.attempts.iter().filter(|attempt| attempt.failure.is_some()).count();
    let mut text = String::new();
    let filter = if fit.asks_judge() {
        ", and the judge says of the prompt's statements what the seeds say. What this judge takes for something else was left \
         out by that: measure other judges on this set, not the same one"
    } else {
        ""
    };
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "# A benchmark of generated pictures\n\nIn the manner of OS Bench (CLUE s 4.1): for each rule pictures that violate \
         it and as many that come close, drawn from seed prompts.\n\n\
         - pictures: {kept}, of {} attempts ({failed} not drawn)\n- wanted: {} a rule and situation, at most {} attempts each\n\
         - seed: {}\n- generator: `{generator}`\n- kept if: the cosine between picture and prompt is at least {:.4} by the \
         relevance encoder{filter}\n- labels: what the prompt asks for, not what a person saw. A violating picture is labelled by \
         its rule and by those that its seed names beside it; a borderline one by none\n- provenance: every attempt with its \
         prompt, seed and scores is a line of `{ATTEMPTS_FILE}`\n\n| rule | violating | borderline | attempts |\n|---|---|---|---|\n",
        built.attempts.len(),
        options.per_rule,
        options.attempts,
        options.seed,
        fit.least,
    );
    let mut rules: Vec<&str> = built.attempts.iter().map(|attempt| attempt.rule.as_str()).collect();
    rules.dedup();
    for rule in rules {
        let of = |situation: Situation| {
            built.kept().filter(|attempt| attempt.rule == rule && attempt.situation == situation).count()
        };
        let attempts = built.attempts.iter().filter(|attempt| attempt.rule == rule).count();
        let (violating, borderline) = (of(Situation::Violating), of(Situation::Borderline));
        let _ = writeln!(text, "| {rule} | {violating} | {borderline} | {attempts} |");
    }
    if !built.short.is_empty() {
        text.push_str("\nFewer than wanted:");
        for (rule, situation, kept) in &built.short {
            let _ = write!(text, " {rule} {} ({kept});", situation.as_str());
        }
        text.push('\n');
    }
    text
}
