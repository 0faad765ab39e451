//! What is left of the violating pictures once the gate has redacted them.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluegate::eval::build::Situation;
use cluegate::gate::{
    DecisionRecord, Gate, Instruction, MemoryLog, Policies, Reason, RedactionRecord, RequestInfo,
};
use cluegate::perception::{Call, Picture};

use super::previews::job;
use super::{Figures, SCENE, Setting, mean, percent, share};
use crate::page::{Page, doing};
use crate::table::Table;

/// Rounds of a redaction.
const ROUNDS: usize = 3;
/// The ways to hide, the default one first.
const METHODS: [&str; 4] = ["fill", "pixelate", "blur", "inpaint"];

/// A picture that violates a rule.
pub(super) struct Violating {
    pub(super) prompt: String,
    pub(super) picture: Picture,
}

/// What became of the pictures.
#[derive(Debug, Default)]
struct Hidden {
    /// How.
    method: &'static str,
    pictures: usize,
    /// Released after so many rounds, less one.
    released: [usize; ROUNDS],
    /// Withheld because it violates a rule still, or nothing could be hidden.
    withheld: usize,
    /// Without a verdict.
    failed: usize,
    violating: usize,
    /// Share of the pixels that differ, of released ones.
    changed: Vec<f64>,
    /// How often a round ended so, of the withheld ones.
    why: BTreeMap<(usize, String), usize>,
}

/// Draws the prompts that ask for a violation. Kept are the pictures that show one.
pub(super) fn draw(setting: &Setting) -> anyhow::Result<Vec<Violating>> {
    let asked = setting.asked.iter().filter(|asked| asked.situation == Situation::Violating);
    let asked: Vec<_> = asked.collect();
    let drawn = setting.side_by_side("prompts", &asked, |asked| {
        let picture = setting.studio.unwatched(&job(setting, asked, asked.seed))?;
        let report = setting.inspector.inspect(&picture, None, &Call::default())?;
        let violating = !report.violated().is_empty();
        Ok(violating.then(|| Violating { prompt: asked.text.clone(), picture }))
    })?;
    Ok(drawn.into_iter().flatten().collect())
}

pub(super) fn run(
    setting: &Setting,
    violating: &[Violating],
    page: &mut Page,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let tenant = |method: &str| {
        format!(
            "[tenant.{method}]\nconstitution = \"{SCENE}\"\n[tenant.{method}.action]\ndefault = \"redact\"\n\
             [tenant.{method}.redact]\nmethod = \"{method}\"\n"
        )
    };
    let text = METHODS.map(tenant).concat();
    let policies = Policies::from_toml(&text, "the benchmark's policies")?;
    let painter = Arc::new(setting.engine.generator()?);
    let gate =
        Gate::new(&policies, setting.engine.judges(), Arc::new(MemoryLog::new(1)))?.with_painter(painter)?;
    let hidden = METHODS
        .iter()
        .map(|method| hide(setting, &gate, method, violating))
        .collect::<anyhow::Result<Vec<_>>>()?;
    tell(&hidden, page)?;
    figures.redacted_clean = hidden.first().map(|fill| share(fill.released.iter().sum(), fill.pictures));
    figures.add_violating(hidden.iter().map(|hidden| hidden.violating).sum());
    Ok(())
}

/// Has all pictures redacted by one method.
fn hide(
    setting: &Setting,
    gate: &Gate,
    method: &'static str,
    violating: &[Violating],
) -> anyhow::Result<Hidden> {
    let mut hidden = Hidden { method, ..Hidden::default() };
    doing(method);
    let told = setting.side_by_side("pictures", violating, |one| {
        let info = RequestInfo::new(method, one.prompt.as_str(), 0, 1);
        let mut session = gate.session(info)?;
        session.drew(0, setting.studio.steps(), setting.studio.steps());
        let told = session.finished(0, one.picture.clone())?;
        let violates = match &told {
            Instruction::Release(released) => setting.violations(released.picture())?,
            _ => 0,
        };
        Ok((told, violates))
    })?;
    for (one, (told, violates)) in violating.iter().zip(told) {
        hidden.pictures += 1;
        hidden.violating += violates;
        match told {
            Instruction::Release(released) => {
                let rounds = rounds(released.decision()).len();
                hidden.released[rounds.clamp(1, ROUNDS) - 1] += 1;
                hidden.changed.push(changed(&one.picture, released.picture()));
            }
            Instruction::Withhold(withheld) if withheld.reason() == Reason::RedactionFailed => {
                hidden.withheld += 1;
                for (index, round) in rounds(withheld.decision()).iter().enumerate() {
                    *hidden.why.entry((index + 1, ended(round))).or_default() += 1;
                }
            }
            _ => hidden.failed += 1,
        }
    }
    Ok(hidden)
}

/// The redactions of the attempt that the decision rests on.
fn rounds(decision: &DecisionRecord) -> &[RedactionRecord] {
    decision.attempts.last().map_or(&[], |attempt| &attempt.redactions)
}

/// Why a round did not do.
fn ended(round: &RedactionRecord) -> String {
    match (&round.refused, &round.judgment) {
        (Some(refused), _) => refused.clone(),
        (None, Some(judgment)) => format!("violates {}", judgment.violated.join(", ")),
        (None, None) => "no verdict".to_owned(),
    }
}

fn tell(hidden: &[Hidden], page: &mut Page) -> anyhow::Result<()> {
    page.heading("Redaction")?;
    page.text(
        "Violating pictures under the default policy with `action.default = \"redact\"`, by each of the methods: boxes of the \
         decisive objects are hidden, then, where that does not do, wider ones of wherever they are found, and then those of all \
         objects; each result is judged by the whole constitution. *Inpaint* draws them anew at first, and then fills them.",
    )?;
    let columns = [
        "method",
        "pictures",
        "clean at once",
        "clean when widened",
        "clean with all objects",
        "withheld",
        "no verdict",
        "violating",
        "changed",
    ];
    let mut table = Table::new(&columns);
    for one in hidden {
        let counts = one.released.iter().chain([&one.withheld, &one.failed]);
        let mut cells = vec![one.pictures.to_string()];
        cells.extend(counts.map(|count| percent(*count, one.pictures)));
        cells.push(one.violating.to_string());
        cells.push(format!("{:.1} %", 100.0 * mean(one.changed.iter().copied())));
        table.row(one.method.to_owned(), cells);
    }
    page.table(table)?;
    if hidden.iter().all(|one| one.why.is_empty()) {
        return Ok(());
    }
    let mut table = Table::new(&["withheld", "round", "ended because it", "pictures"]);
    for one in hidden {
        for ((round, why), count) in &one.why {
            table.row(one.method.to_owned(), [round.to_string(), why.clone(), count.to_string()]);
        }
    }
    page.table(table)
}

/// Share of the pixels in which two pictures of one size differ.
fn changed(before: &Picture, after: &Picture) -> f64 {
    let pairs = before.pixels().pixels().zip(after.pixels().pixels());
    let (all, other) =
        pairs.fold((0_usize, 0_usize), |(all, other), (a, b)| (all + 1, other + usize::from(a != b)));
    share(other, all)
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    #[test]
    fn the_share_of_changed_pixels_is_counted() {
        let before = Picture::new(RgbImage::new(10, 10));
        let mut pixels = before.pixels().clone();
        (0..5).for_each(|x| pixels.put_pixel(x, 3, Rgb([1, 0, 0])));
        assert!((changed(&before, &Picture::new(pixels)) - 0.05).abs() < 1e-12);
        assert_eq!(changed(&before, &before), 0.0);
    }
}
