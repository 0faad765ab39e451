//! What it costs the drawing that previews are judged: in its way, as a host does that waits for each verdict, and beside it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use cluegate::gate::{
    Gate, GateError, MemoryLog, Policies, PreviewInstruction, RequestInfo, Session, Step, StepHook,
};
use cluegate::perception::Picture;

use super::previews::job;
use super::{Asked, Figures, LoopArgs, SCENE, Setting};
use crate::ours::Ours;
use crate::page::Page;
use crate::stats::Times;
use crate::table::{Table, ms};

/// When previews are judged.
const AT: &str = "[0.25, 0.5, 0.75]";
/// Pictures of each kind.
const PICTURES: usize = 8;
/// Between the seeds of the kinds: none sees a picture that another has seen.
const APART: u64 = 1 << 20;

/// How a drawing is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Unwatched,
    /// The host waits for each verdict.
    Waits,
    /// The host draws on.
    DrawsOn,
}

/// The kinds: what the table calls each, its tenant, and how it is watched.
const KINDS: [(&str, &str, Way); 5] = [
    ("no previews", "glances", Way::Unwatched),
    ("glanced at, in the way", "glances", Way::Waits),
    ("glanced at, beside", "glances", Way::DrawsOn),
    ("judged whole, in the way", "whole", Way::Waits),
    ("judged whole, beside", "whole", Way::DrawsOn),
];

/// Policies that only watch, so that every picture is drawn to its end.
fn policies() -> anyhow::Result<Policies> {
    let tenant = |name: &str, judgment: &str| {
        format!(
            "[tenant.{name}]\nconstitution = \"{SCENE}\"\nmode = \"shadow\"\npreviews = {AT}\n\
             preview_judgment = \"{judgment}\"\n[tenant.{name}.action]\ndefault = \"block\"\n"
        )
    };
    let text = tenant("glances", "cheap") + &tenant("whole", "whole");
    Ok(Policies::from_toml(&text, "the benchmark's policies")?)
}

/// Offers previews to the session in one of the ways.
struct Watching<'a> {
    session: &'a mut Session,
    way: Way,
    failed: Option<GateError>,
}

impl StepHook for Watching<'_> {
    fn wants_preview(&mut self, _: usize, step: u32, total: u32) -> bool {
        self.way != Way::Unwatched && self.session.wants_preview(0, step, total)
    }

    fn may_end(&mut self, _: usize, _: u32, _: u32) -> bool {
        // Predictions ahead are the generator's own work, whoever judges what they show.
        false
    }

    fn step(&mut self, _: usize, step: u32, total: u32, preview: Option<&Picture>) -> Step {
        let told = match (self.way, preview) {
            (Way::DrawsOn, Some(preview)) => self.session.begin_preview(0, step, total, preview),
            (Way::DrawsOn, None) => self.session.poll_preview(0),
            (_, Some(preview)) => self.session.preview(0, step, total, preview).map(Some),
            (_, None) => Ok(None),
        };
        match told {
            Ok(None | Some(PreviewInstruction::Continue(_))) => Step::Continue,
            Ok(Some(PreviewInstruction::Abort(_))) => Step::Stop,
            Err(error) => {
                self.failed = Some(error);
                Step::Stop
            }
        }
    }
}

/// Seconds of a picture's drawing, and how many of its previews had a verdict by then.
fn drawn(setting: &Setting, gate: &Gate, asked: &Asked, kind: usize) -> anyhow::Result<(f64, usize)> {
    let (_, tenant, way) = KINDS[kind];
    let job = job(setting, asked, asked.seed.wrapping_add(APART * (1 + kind as u64)));
    let mut session = gate.session(RequestInfo::new(tenant, asked.text.as_str(), job.seed, 1))?;
    let mut hook = Watching { session: &mut session, way, failed: None };
    let begun = Instant::now();
    let picture = setting.studio.watched(&job, &mut hook)?;
    let seconds = begun.elapsed().as_secs_f64();
    if let Some(error) = hook.failed {
        return Err(error.into());
    }
    session.finished(0, picture.context("a policy that only watches draws every picture to its end")?)?;
    let report = session.close();
    let decision = report.decisions.first().context("a decision")?;
    let previews = decision.attempts.iter().flat_map(|attempt| &attempt.previews);
    Ok((seconds, previews.filter(|preview| preview.judgment.error.is_none()).count()))
}

pub(super) fn run(
    setting: &Setting,
    arguments: &LoopArgs,
    page: &mut Page,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    // Remembers no report: every judgment costs what it costs.
    let engine = Ours::open(&arguments.common.suite)?;
    let gate = Gate::new(&policies()?, engine.judges(), Arc::new(MemoryLog::new(1)))?;
    gate.prepare_all()?;
    let pictures = if arguments.quick { 2 } else { PICTURES };
    let mut seconds: [Vec<f64>; KINDS.len()] = Default::default();
    let mut judged = [0; KINDS.len()];
    for (number, asked) in setting.asked.iter().cycle().take(pictures).enumerate() {
        for turn in 0..KINDS.len() {
            // Each kind is the first as often as the others: what a machine does meanwhile changes.
            let kind = (number + turn) % KINDS.len();
            let (took, verdicts) = drawn(setting, &gate, asked, kind)?;
            seconds[kind].push(took);
            judged[kind] += verdicts;
        }
    }
    if judged[1] == 0 {
        bail!("no preview was judged in the way of the drawing");
    }
    page.text(&format!(
        "Time of a picture's denoising, medians of {pictures} pictures each, drawn in turns: with previews at {AT} of the steps, \
         decoded without a look ahead and judged under a policy that only watches, so that every picture is drawn to its end. *Verdicts*: of a \
         picture's previews, in the mean; one that comes while another is being judged waits, and of a finished picture none \
         is judged any more."
    ))?;
    let mut table = Table::new(&["previews", "ms", "to none", "verdicts"]);
    let medians = seconds.map(|seconds| Times::new(seconds).median());
    for ((name, _, _), (took, judged)) in KINDS.iter().zip(medians.iter().zip(judged)) {
        let cells = [
            ms(took * 1e3),
            format!("{:.3}", took / medians[0]),
            format!("{:.1}", judged as f64 / pictures as f64),
        ];
        table.row(*name, cells);
    }
    figures.glanced_in_the_way = Some(medians[1] / medians[0]);
    figures.glanced_beside = Some(medians[2] / medians[0]);
    page.table(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_policy() {
        let policies = policies().unwrap();
        for (_, tenant, _) in KINDS {
            assert_eq!(policies.get(tenant).unwrap().previews.len(), 3);
        }
    }
}
