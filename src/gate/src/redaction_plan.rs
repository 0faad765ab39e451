//! What to hide: the objects on which the violated rules turn.

use cluegate_judge::{Outcome, PreconditionEvidence, Report};
use cluegate_perception::{Picture, Region};

use crate::inspector::Unfinished;
use crate::judging::{Failure, Judged};
use crate::policy::{Action, RedactedObjects, RedactionMethod};
use crate::record::{HiddenBox, RedactionRecord};
use crate::redaction::{Grown, PixelBox, answers_for, hide, plan, share};
use crate::released::{Instruction, NoPermit, Permit};
use crate::session::{Session, Verdict, milliseconds};
use crate::{Reason, picture};

/// How far to look for objects to hide.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The boxes that the verdict rests on.
    Evidence,
    /// Also every other place where the detector finds one of the objects.
    Everywhere,
}

/// How one try hides what.
struct Plan {
    boxes: Vec<PixelBox>,
    /// What the boxes were made of.
    regions: Vec<Grown>,
    method: RedactionMethod,
    /// By how much the boxes that were added last were grown.
    grow: f64,
}

impl Plan {
    fn hidden_boxes(&self, width: u32, height: u32) -> Vec<HiddenBox> {
        let hidden = |area: &PixelBox| HiddenBox {
            area: *area,
            statements: answers_for(area, &self.regions, width, height),
        };
        self.boxes.iter().map(hidden).collect()
    }

    fn hides_the_same(&self, other: &Self) -> bool {
        (&self.boxes, self.method) == (&other.boxes, other.method)
    }
}

/// The statements that complete the violation of a rule, each once: those that hold in the last precondition of its chain. What
/// comes before, such as that a person is there at all, is nothing to keep out of a picture.
pub(crate) fn violating_statements(report: &Report) -> Vec<String> {
    let chains = report.rules().iter().filter(|rule| rule.outcome == Outcome::Violated);
    let statements = chains.filter_map(|rule| rule.preconditions.last()).flat_map(|link| &link.statements);
    let mut texts: Vec<String> = Vec::new();
    for statement in statements.filter(|statement| statement.holds == Some(true)) {
        if !texts.contains(&statement.text) {
            texts.push(statement.text.clone());
        }
    }
    texts
}

impl Session {
    /// Hides the objects of the violated rules and has the result judged under the whole constitution; as long as it does
    /// not pass, hides more. A redacted picture is released on a verdict of its own only: a judge that fails here withholds
    /// it even where the policy fails open, because the original is known to violate a rule.
    pub(crate) fn redact(&mut self, member: usize, original: &Picture, report: &Report) -> Instruction {
        let _span = tracing::info_span!(target: "cluegate::trace", "redaction", member).entered();
        let policy = self.grounds.policy.redaction;
        let wide = policy.grow + policy.widen;
        let method = policy.method;
        // What is drawn anew may violate a rule anew, and costs a drawing: it is tried once.
        let surest = if method == RedactionMethod::Inpaint { RedactionMethod::Fill } else { method };
        // All objects are not widened: together they soon cover the picture.
        let rounds = [
            (method, policy.grow, policy.objects, Reach::Evidence),
            (surest, wide, policy.objects, Reach::Everywhere),
            (surest, policy.grow, RedactedObjects::All, Reach::Everywhere),
        ];
        let (anyway, why) = self.hidden_anyway(member, report);
        // What the last judged round hid or is to be hidden besides, and what was tried last.
        let mut regions = grown(&[], anyway.into_iter().map(unnamed), policy.grow);
        let mut tried = None;
        let mut last = report.clone();
        // What still speaks against the picture; at first all that did.
        let mut unhidden = vec![why.clone()];
        for (method, grow, objects, reach) in rounds {
            let found = match self.objects(original, &last, objects, reach) {
                Ok(found) => found,
                Err(failure) => return self.fail(member, failure.reason(), failure.message()),
            };
            let more = grown(&regions, found, grow);
            let boxes = plan(&more, original.width(), original.height());
            let plan = Plan { boxes, regions: more, method, grow };
            if tried.as_ref().is_some_and(|tried: &Plan| tried.hides_the_same(&plan)) {
                continue;
            }
            let avoid = violating_statements(&last);
            let judged = self.hide_and_judge(member, original, &plan, &avoid);
            let tried = tried.insert(plan);
            let Some((hidden, result)) = judged else { continue };
            regions.clone_from(&tried.regions);
            let permit = match result {
                Ok(verdict) => {
                    let permit = Permit::judged(hidden, &verdict, &self.grounds, true);
                    last = verdict;
                    permit
                }
                Err(failure) => return self.fail(member, failure.reason(), failure.message()),
            };
            match permit {
                Ok(permit) => {
                    let screened = self.screened(member, permit.picture(), |attempt| {
                        Some(&mut attempt.redactions.last_mut()?.plugins)
                    });
                    match screened {
                        Err(stopped) => return stopped,
                        Ok(screening) if screening.keeps_back() => {
                            unhidden = screening.redact;
                            let theirs = screening.regions.into_iter().map(unnamed);
                            regions = grown(&regions, theirs, grow);
                        }
                        Ok(_) => {
                            let message = format!("{why}; nothing is violated with that hidden");
                            return self.release(member, permit, message, Some(&last));
                        }
                    }
                }
                Err(NoPermit::Violated(_)) => unhidden = vec![self.violates(&last)],
                Err(NoPermit::Unfit(problem)) => {
                    let failure = Failure::new("unfit-verdict", problem);
                    return self.fail(member, failure.reason(), failure.message());
                }
            }
        }
        let message = format!("{}, and hiding what makes it so did not help", unhidden.join(" and "));
        self.withhold(member, Verdict { reason: Reason::RedactionFailed, message, report: Some(&last) })
    }

    /// What extensions want hidden, and what is wrong with the original by them and by the judge.
    fn hidden_anyway(&self, member: usize, report: &Report) -> (Vec<Region>, String) {
        let violated =
            (!report.violated().is_empty()).then(|| format!("the original {}", self.violates(report)));
        let screening = self.members.get(member).map(|state| state.screening.clone()).unwrap_or_default();
        let why: Vec<String> = violated.into_iter().chain(screening.redact).collect();
        (screening.regions, why.join(" and "))
    }

    /// Hides by `plan` what makes the statements to `avoid` hold, and judges the result. None if there is nothing to hide, or
    /// too much.
    fn hide_and_judge(
        &mut self,
        member: usize,
        original: &Picture,
        plan: &Plan,
        avoid: &[String],
    ) -> Option<(Picture, Result<cluegate_judge::Report, Failure>)> {
        let started = std::time::Instant::now();
        let policy = self.grounds.policy.redaction;
        let boxes = &plan.boxes;
        let covered = share(boxes, original.width(), original.height());
        let refused = if boxes.is_empty() {
            Some("the detector found none of the objects".to_owned())
        } else if covered > policy.max_share {
            Some(format!("{:.0} % of the picture would be hidden", covered * 100.0))
        } else {
            None
        };
        let hidden = match &refused {
            Some(_) => Ok((original.clone(), plan.method)),
            None => self.hidden(member, original, plan, avoid),
        };
        let refused = refused.or_else(|| match &hidden {
            Ok((hidden, _)) => picture::shows_nothing(hidden),
            Err(failure) => Some(failure.message()),
        });
        if let Some(state) = self.members.get_mut(member) {
            state.timings.redacting += milliseconds(started);
        }
        let mut record = RedactionRecord {
            method: hidden.as_ref().map_or(plan.method, |(_, method)| *method),
            grow: plan.grow,
            boxes: plan.hidden_boxes(original.width(), original.height()),
            refused,
            judgment: None,
            plugins: Vec::new(),
        };
        let judged = match hidden {
            Ok((hidden, _)) if record.refused.is_none() => {
                let Judged { record: mut judgment, result } =
                    self.judge(member, &hidden, Some(Unfinished::Redacted));
                judgment.action = result.as_ref().ok().and_then(|report| self.strictest(report));
                record.judgment = Some(judgment);
                Some((hidden, result))
            }
            Ok(_) => None,
            Err(failure) => Some((original.clone(), Err(failure))),
        };
        if let Some(state) = self.members.get_mut(member) {
            state.current.redactions.push(record);
        }
        judged
    }

    /// `original` with what `plan` says hidden, and how.
    fn hidden(
        &mut self,
        member: usize,
        original: &Picture,
        plan: &Plan,
        avoid: &[String],
    ) -> Result<(Picture, RedactionMethod), Failure> {
        if let Some(theirs) = self.redact_by_extension(original, &plan.boxes)? {
            return Ok((theirs, plan.method));
        }
        if plan.method != RedactionMethod::Inpaint {
            return Ok((hide(original, &plan.boxes, plan.method), plan.method));
        }
        match self.inpaint(member, original, &plan.boxes, avoid) {
            Ok(Some(painted)) => return Ok((painted, plan.method)),
            Ok(None) => tracing::debug!(member, "nobody draws parts of pictures anew, so they are filled"),
            Err(failure) => {
                let problem = failure.message();
                tracing::warn!(member, problem, "a part of a picture could not be drawn anew and is filled");
            }
        }
        Ok((hide(original, &plan.boxes, RedactionMethod::Fill), RedactionMethod::Fill))
    }

    /// Regions of the objects on which the violated rules turn, except for rules that the policy allows.
    fn objects(
        &mut self,
        original: &Picture,
        report: &Report,
        objects: RedactedObjects,
        reach: Reach,
    ) -> Result<Vec<Found>, Failure> {
        let min_confidence = self.grounds.policy.redaction.min_confidence as f32;
        let (mut regions, mut words, mut named) = (Vec::new(), Vec::new(), Vec::new());
        for rule in report.rules().iter().filter(|rule| rule.outcome == Outcome::Violated) {
            let Some(written) = self.grounds.constitution.rule(&rule.id) else { continue };
            if self.grounds.policy.actions.of(&rule.id, written.severity) == Action::Allow {
                continue;
            }
            let first = match objects {
                RedactedObjects::Decisive => rule.preconditions.len().saturating_sub(1),
                RedactedObjects::All => 0,
            };
            let evidence = rule.preconditions.iter().skip(first);
            regions.extend(evidence.flat_map(|link| boxes_of(link, min_confidence)));
            for statement in written.preconditions.iter().skip(first).flat_map(|link| &link.any) {
                for word in statement.central.iter().filter(|word| !words.contains(*word)).collect::<Vec<_>>()
                {
                    words.push(word.clone());
                    named.push(statement.text.clone());
                }
            }
        }
        if reach == Reach::Everywhere || regions.is_empty() {
            let located = self.locate(original, words)?;
            regions.extend(located.into_iter().map(|detection| Found {
                region: detection.region,
                statement: named.get(detection.query).cloned(),
            }));
        }
        Ok(regions)
    }
}

/// What is to be hidden, and the statement that it answers for.
struct Found {
    region: Region,
    statement: Option<String>,
}

/// What an extension wants hidden.
fn unnamed(region: Region) -> Found {
    Found { region, statement: None }
}

/// `regions` and `more`, all grown by at least `grow`.
fn grown(regions: &[Grown], more: impl IntoIterator<Item = Found>, grow: f64) -> Vec<Grown> {
    let known = regions.iter().map(|one| Grown { grow: one.grow.max(grow), ..one.clone() });
    known
        .chain(more.into_iter().map(|Found { region, statement }| Grown { region, statement, grow }))
        .collect()
}

/// Boxes of the statements that hold.
fn boxes_of(link: &PreconditionEvidence, min_confidence: f32) -> impl Iterator<Item = Found> {
    let holding = link.statements.iter().filter(|statement| statement.holds == Some(true));
    holding.flat_map(move |statement| {
        let found = statement.region.iter().filter(move |found| found.confidence >= min_confidence);
        found.map(|found| Found { region: found.region(), statement: Some(statement.text.clone()) })
    })
}
