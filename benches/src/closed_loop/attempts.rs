//! What further attempts gain and cost, ladder by ladder, over the prompts that ask for a violation.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::Context as _;
use cluegate::eval::build::Situation;
use cluegate::gate::{
    DecisionRecord, Gate, MemberOutcome, MemoryLog, Policies, RequestInfo, SafetyGuidance, Strategy,
};

use super::drawing::Studio;
use super::{Figures, Prices, SCENE, Setting, mean, share};
use crate::page::Page;
use crate::table::{Table, times};

/// Attempts at one picture.
const TRIES: usize = 4;

/// The ladders: how the table calls each, and its keys of the policy.
const LADDERS: [(&str, &str); 5] = [
    ("new seeds alone", "strategies = [\"reseed\"]\nleast_chance = 0\ngive_up_below = 0"),
    ("negative prompt", "strategies = [\"avoid\"]\ngive_up_below = 0\nguidance = \"negative-prompt\""),
    ("safe guidance, strong", "strategies = [\"avoid\"]\ngive_up_below = 0\nguidance = \"strong\""),
    ("rewritten prompt", "strategies = [\"rewrite\"]\ngive_up_below = 0"),
    ("as the default policy has it", ""),
];
/// Which of them is the measure of the others, and which is measured.
const RESEED: usize = 0;
const ADAPTIVE: usize = LADDERS.len() - 1;

/// What became of the prompts with one ladder.
#[derive(Debug, Default)]
struct Row {
    /// Prompts released by attempt 1, 2, ..
    released: [usize; TRIES],
    violating: usize,
    attempts: usize,
    /// Predictions of the denoiser.
    predictions: u64,
    judgments: u64,
    fidelity: Vec<f64>,
    strategies: [usize; 4],
}

impl Row {
    fn add(&mut self, decision: &DecisionRecord, steps: u32, guidance: SafetyGuidance) {
        self.attempts += decision.attempts.len();
        self.judgments += decision.cost.judgments;
        for attempt in &decision.attempts {
            let avoids = matches!(attempt.strategy, Strategy::Avoid | Strategy::Rewrite);
            let guided = avoids && guidance != SafetyGuidance::NegativePrompt;
            self.predictions += u64::from(steps) * Studio::predictions(guided);
            let place = match attempt.strategy {
                Strategy::First => 0,
                Strategy::Reseed => 1,
                Strategy::Avoid => 2,
                Strategy::Rewrite => 3,
            };
            self.strategies[place] += 1;
        }
        self.fidelity.extend(decision.fidelity);
    }

    fn all_released(&self) -> usize {
        self.released.iter().sum()
    }

    /// Seconds, from what one prediction and one judgment take.
    fn seconds(&self, prediction: f64, judgment: f64) -> f64 {
        self.predictions as f64 * prediction + self.judgments as f64 * judgment
    }
}

/// The policies, a tenant for each ladder.
fn policies() -> anyhow::Result<Policies> {
    let mut text = String::new();
    for (index, (_, keys)) in LADDERS.iter().enumerate() {
        writeln!(
            text,
            "[tenant.l{index}]\nconstitution = \"{SCENE}\"\ntries = {TRIES}\n[tenant.l{index}.action]\ndefault = \"regenerate\"\n\
             [tenant.l{index}.regenerate]\nfidelity = \"always\"\n{keys}"
        )?;
    }
    Ok(Policies::from_toml(&text, "the benchmark's policies")?)
}

pub(super) fn run(
    setting: &Setting,
    prices: &Prices,
    page: &mut Page,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let log = Arc::new(MemoryLog::new(1));
    let gate = Gate::new(&policies()?, setting.engine.judges(), log)?;
    let prompts: Vec<_> =
        setting.asked.iter().filter(|asked| asked.situation == Situation::Violating).collect();
    let mut rows = Vec::new();
    for (index, (name, _)) in LADDERS.iter().enumerate() {
        crate::page::doing(name);
        let tenant = format!("l{index}");
        let guidance = gate.policy(&tenant).context("a tenant")?.regenerate.guidance;
        let outcomes = setting.side_by_side("prompts", &prompts, |asked| {
            let request = RequestInfo::new(tenant.as_str(), asked.text.as_str(), asked.seed, 1);
            let outcomes = gate.drive(setting.studio.as_ref(), request, setting.studio.options())?;
            let outcome = outcomes.into_iter().next().context("the gate gave no outcome")?;
            let violating = match &outcome {
                MemberOutcome::Released(picture) => setting.violations(picture.picture())?,
                MemberOutcome::Withheld(_) | MemberOutcome::Held(_) => 0,
            };
            Ok((outcome, violating))
        })?;
        let mut row = Row::default();
        for (outcome, violating) in &outcomes {
            let decision = outcome.decision();
            row.add(decision, setting.studio.steps(), guidance);
            if let MemberOutcome::Released(_) = outcome
                && let Some(slot) = row.released.get_mut(decision.attempts.len().saturating_sub(1))
            {
                *slot += 1;
            }
            row.violating += violating;
        }
        rows.push(row);
    }
    tell(setting, &rows, (prompts.len(), prices), page, figures)
}

fn tell(
    setting: &Setting,
    rows: &[Row],
    (prompts, prices): (usize, &Prices),
    page: &mut Page,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let predictions = u64::from(setting.studio.steps()) * Studio::predictions(false);
    let (prediction, judgment) = (prices.drawing / predictions as f64, prices.finished);
    page.heading("Further attempts")?;
    page.text(&format!(
        "{prompts} prompts that ask for a violation, one picture each, at most {TRIES} attempts, every attempt judged by the whole \
         constitution. Cost counts the denoiser's predictions (two a step, three with safe guidance, {:.1} ms each here) and \
         judgments ({:.0} ms each); fidelity is the mean cosine of prompt and released picture.",
        prediction * 1e3,
        judgment * 1e3
    ))?;
    let mut table = Table::new(&[
        "ladder",
        "by 1",
        "by 2",
        "by 3",
        "by 4",
        "attempts",
        "seconds",
        "per released",
        "to new seeds",
        "fidelity",
        "violating",
    ]);
    let per_released = |row: &Row| row.seconds(prediction, judgment) / row.all_released() as f64;
    let measure = per_released(&rows[RESEED]);
    for ((name, _), row) in LADDERS.iter().zip(rows) {
        let mut by = 0;
        let within = row.released.map(|released| {
            by += released;
            format!("{:.0} %", 100.0 * share(by, prompts))
        });
        let rest = [
            row.attempts.to_string(),
            format!("{:.1}", row.seconds(prediction, judgment)),
            format!("{:.2}", per_released(row)),
            times(per_released(row) / measure),
            format!("{:.3}", mean(row.fidelity.iter().copied())),
            row.violating.to_string(),
        ];
        table.row(*name, within.into_iter().chain(rest));
        figures.add_violating(row.violating);
    }
    page.table(table)?;
    let adaptive = &rows[ADAPTIVE];
    let [first, reseed, avoid, rewrite] = adaptive.strategies;
    page.text(&format!(
        "The default policy drew {first} first pictures, {reseed} with another seed alone, {avoid} guided away, {rewrite} from a \
         rewritten prompt. Costs are compared for each released picture: ladders differ in how many they release."
    ))?;
    figures.released_within_4 = Some(share(adaptive.all_released(), prompts));
    figures.cost_ratio_to_reseed = Some(per_released(adaptive) / measure);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladders_are_policies_and_end_with_the_default() {
        let policies = policies().unwrap();
        for index in 0..LADDERS.len() {
            let policy = policies.get(&format!("l{index}")).unwrap();
            assert_eq!(policy.tries as usize, TRIES);
        }
        let alone = &policies.get("l0").unwrap().regenerate;
        assert_eq!((alone.strategies.as_slice(), alone.give_up_below), (&[Strategy::Reseed][..], 0.0));
        let default = &policies.get(&format!("l{ADAPTIVE}")).unwrap().regenerate;
        assert_eq!(default.strategies, [Strategy::Reseed, Strategy::Avoid, Strategy::Rewrite]);
    }

    #[test]
    fn a_row_costs_its_predictions_and_judgments() {
        let row = Row { predictions: 100, judgments: 4, ..Row::default() };
        assert!((row.seconds(0.01, 0.25) - 2.0).abs() < 1e-12);
    }
}
