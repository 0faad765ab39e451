//! What follows when a picture is to be drawn again: which strategy, whether there is anything left to spend, and from which
//! prompt.

use cluegate_judge::Report;
use cluegate_perception::{Embedding, Picture};

use crate::history::{self, Past, PromptKey};
use crate::judging::Failure;
use crate::policy::{Fidelity, Strategy};
use crate::record::{AttemptRecord, JudgmentRecord};
use crate::redaction_plan::violating_statements;
use crate::released::{DrawAgain, Instruction};
use crate::rewriting::{shared_words, shorter};
use crate::seeds::next_seed;
use crate::session::{Member, Session};

/// By how much a shorter prompt has to be further from the violated statements than the prompt itself, as a cosine: less is
/// no difference that an encoder could tell.
const LEAST_GAIN: f32 = 0.02;

/// The next attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Next {
    strategy: Strategy,
    /// Where it stands in the policy's list.
    place: usize,
    /// The chance that its picture passes, as far as earlier attempts tell.
    chance: f64,
}

/// Why there is no other attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NoNext {
    /// All were made.
    Tries(u32),
    /// Another would go beyond a bound of the policy.
    Budget(&'static str),
    /// No strategy is left that is likely to help.
    Hopeless(f64),
}

impl NoNext {
    /// Completes "violates armed, ".
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Tries(tries) => format!("at the last of {tries} tries"),
            Self::Budget(bound) => {
                format!("and another attempt would go beyond the policy's `regenerate.{bound}`")
            }
            Self::Hopeless(chance) => {
                format!("and another attempt would pass with a chance of {:.1} % only", chance * 100.0)
            }
        }
    }
}

/// What a request has spent so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Spent {
    /// Denoising steps.
    steps: u64,
    /// Forward passes of the judging models.
    passes: u64,
    /// Milliseconds in the judge.
    judging_ms: f64,
}

impl Spent {
    /// Counts a judgment.
    pub(crate) fn add(&mut self, judgment: &JudgmentRecord) {
        self.passes = self.passes.saturating_add(judgment.passes.map_or(0, |passes| passes.total()));
        self.judging_ms += judgment.ms;
    }
}

impl Session {
    /// Says that the current attempt at `member` has carried out `step` of `total` denoising steps, for the policy's bounds
    /// and the cost in the log. The largest number counts; an offered preview says it too, and [`crate::RequestInfo::steps`]
    /// for attempts of which nothing else is known.
    pub fn drew(&mut self, member: usize, step: u32, total: u32) {
        let Some(state) = self.members.get_mut(member).filter(|state| state.decision.is_none()) else {
            return;
        };
        state.planned_steps = Some(total.max(step));
        let more = step.saturating_sub(state.current.steps);
        state.current.steps += more;
        self.spent.steps += u64::from(more);
    }

    /// The steps of a finished attempt of which nobody said how far it was.
    pub(crate) fn drew_whole(&mut self, member: usize) {
        let planned = self.members.get(member).and_then(|state| state.planned_steps);
        if let Some(planned) = planned {
            self.drew(member, planned, planned);
        }
    }

    /// Steps by which a part of a finished picture was drawn anew.
    pub(crate) fn painted(&mut self, member: usize, steps: u32) {
        if let Some(state) = self.members.get_mut(member) {
            state.current.steps += steps;
            self.spent.steps += u64::from(steps);
        }
    }

    /// Under which key attempts at the request's prompt are counted.
    pub(crate) fn prompt_key(&self) -> PromptKey {
        let revision = self.grounds.constitution.revision();
        history::key(
            &self.grounds.policy.tenant,
            self.request.model.as_deref(),
            revision,
            &self.request.prompt,
        )
    }

    /// Notes whether the current attempt at `member` passed as it was drawn, for this request and later ones. Once: what
    /// becomes of a redacted copy says nothing of another attempt.
    pub(crate) fn note_attempt(&mut self, member: usize, passed: bool) {
        let key = self.prompt_key();
        if let Some(state) = self.members.get_mut(member).filter(|state| !state.noted) {
            state.noted = true;
            self.services.history.count(key, state.current.strategy, passed);
        }
    }

    /// The attempt that follows the current one of `member`, whose end is noted already.
    pub(crate) fn next_attempt(&self, member: usize) -> Result<Next, NoNext> {
        self.next_knowing(member, &self.services.history.of(&self.prompt_key()))
    }

    /// The attempt that would follow, were the current one of `member` given up now.
    pub(crate) fn next_if_given_up(&self, member: usize) -> Result<Next, NoNext> {
        let mut past = self.services.history.of(&self.prompt_key());
        if let Some(state) = self.members.get(member) {
            past.count(state.current.strategy, false);
        }
        self.next_knowing(member, &past)
    }

    fn next_knowing(&self, member: usize, past: &Past) -> Result<Next, NoNext> {
        let tries = self.tries();
        let Some(state) = self.members.get(member).filter(|state| state.current.attempt < tries) else {
            return Err(NoNext::Tries(tries));
        };
        if let Some(bound) = self.over_budget(member) {
            return Err(NoNext::Budget(bound));
        }
        let policy = &self.grounds.policy.regenerate;
        let strategies = self.strategies();
        let last = strategies.len().saturating_sub(1);
        for (place, strategy) in strategies.iter().copied().enumerate().skip(state.place.min(last)) {
            let chance = past.chance(strategy);
            if place < last && chance >= policy.least_chance {
                return Ok(Next { strategy, place: place + 1, chance });
            }
            if place == last {
                let hopeless = chance < policy.give_up_below;
                let next = Next { strategy, place: last, chance };
                return if hopeless { Err(NoNext::Hopeless(chance)) } else { Ok(next) };
            }
        }
        Err(NoNext::Tries(tries))
    }

    /// The strategies for further attempts: the policy's, or only another seed where whoever draws is not to be told more.
    pub fn strategies(&self) -> &[Strategy] {
        let client = &self.grounds.policy.client;
        if self.request.drawn_by_client && !client.evidence && !client.instructions {
            &[Strategy::Reseed]
        } else {
            &self.grounds.policy.regenerate.strategies
        }
    }

    /// The bound of the policy that another attempt at `member` would go beyond, were it like the current one.
    fn over_budget(&self, member: usize) -> Option<&'static str> {
        let policy = &self.grounds.policy;
        let state = self.members.get(member)?;
        let steps = state.planned_steps.map(u64::from);
        let over_steps = policy.regenerate.max_steps.is_some_and(|most| {
            steps.is_none_or(|steps| self.spent.steps + self.due(member, steps) + steps > most)
        });
        let elapsed = self.opened.elapsed().as_secs_f64();
        let lasted = state.started.elapsed().as_secs_f64();
        let over_time = policy.regenerate.max_seconds.is_some_and(|most| elapsed + lasted > most);
        let quota = &policy.quota;
        let spent = quota.price(self.spent.passes, self.spent.judging_ms / 1e3)
            + quota.price_of_steps(self.spent.steps);
        let judging = state.current.judgments().map(|judgment| {
            quota.price(judgment.passes.map_or(0, |passes| passes.total()), judgment.ms / 1e3)
        });
        let another = judging.sum::<f64>() + quota.price_of_steps(steps.unwrap_or_default());
        let others = self.others(member).count() as f64;
        let over_cost =
            policy.regenerate.max_cost.is_some_and(|most| spent + another * (1.0 + others) > most);
        match (over_steps, over_time, over_cost) {
            (true, ..) => Some("max_steps"),
            (_, true, _) => Some("max_seconds"),
            (.., true) => Some("max_cost"),
            _ => None,
        }
    }

    /// The other pictures of the request that are still being drawn, or are to be.
    fn others(&self, member: usize) -> impl Iterator<Item = &Member> {
        let open = move |(index, state): &(usize, &Member)| *index != member && state.decision.is_none();
        self.members.iter().enumerate().filter(open).map(|(_, state)| state)
    }

    /// Steps that the attempts at the other pictures still take; `steps` each where no more is known.
    fn due(&self, member: usize, steps: u64) -> u64 {
        let left = |state: &Member| {
            let planned = state.planned_steps.map_or(steps, u64::from);
            planned.saturating_sub(state.current.steps.into())
        };
        self.others(member).map(left).sum()
    }

    /// Ends the current attempt and asks for `next`, with a seed of its own.
    pub(crate) fn draw_again(
        &mut self,
        member: usize,
        report: &Report,
        next: Next,
        message: &str,
    ) -> Instruction {
        let (attempt, mut avoid, before) = self.members.get(member).map_or_else(
            || (1, Vec::new(), None),
            |state| (state.current.attempt + 1, state.avoid.clone(), state.prompt.clone()),
        );
        let seed = next_seed(self.request.seed, member, attempt);
        for statement in violating_statements(report) {
            if !avoid.contains(&statement) {
                avoid.push(statement);
            }
        }
        let prompt = match self.prompt_for(next.strategy, before, &avoid, attempt) {
            Ok(prompt) => prompt,
            Err(failure) => return self.fail(member, failure.reason(), failure.message()),
        };
        let logged = prompt.clone().filter(|_| self.grounds.policy.log_prompts);
        self.end_previews(member);
        if let Some(state) = self.members.get_mut(member) {
            state.end_attempt();
            state.judged = None;
            state.place = next.place;
            state.avoid.clone_from(&avoid);
            state.prompt.clone_from(&prompt);
            state.current = AttemptRecord {
                attempt,
                seed,
                strategy: next.strategy,
                chance: Some(next.chance),
                prompt: logged,
                ..Default::default()
            };
        }
        if next.strategy == Strategy::Reseed {
            avoid.clear();
        }
        let (strategy, message) = (next.strategy, message.to_owned());
        Instruction::DrawAgain(DrawAgain { member, attempt, seed, strategy, avoid, prompt, message })
    }

    /// The prompt of another attempt, if it is not the request's own: what a plugin makes of that, or else, where the strategy
    /// is to rewrite it, what is left of the prompt `before`.
    fn prompt_for(
        &mut self,
        strategy: Strategy,
        before: Option<String>,
        avoid: &[String],
        attempt: u32,
    ) -> Result<Option<String>, Failure> {
        if strategy == Strategy::Reseed {
            return Ok(before);
        }
        if let Some(theirs) = self.rewritten(avoid, attempt)? {
            return Ok(Some(theirs));
        }
        if strategy != Strategy::Rewrite {
            return Ok(before);
        }
        let prompt = before.clone().unwrap_or_else(|| self.request.prompt.clone());
        Ok(self.furthest(&prompt, avoid)?.or(before))
    }

    /// Of the prompts with a part less than `prompt`, the one that is furthest from all of `statements`; none if none is
    /// further than the prompt itself.
    pub(crate) fn furthest(
        &mut self,
        prompt: &str,
        statements: &[String],
    ) -> Result<Option<String>, Failure> {
        let candidates = shorter(prompt);
        if candidates.is_empty() || statements.is_empty() {
            return Ok(None);
        }
        let texts: Vec<String> = [prompt.to_owned()]
            .into_iter()
            .chain(candidates.iter().cloned())
            .chain(statements.iter().cloned())
            .collect();
        let nearness: Vec<f64> = match self.embedded(texts, None)? {
            Some(embeddings) if embeddings.len() == 1 + candidates.len() + statements.len() => {
                let (texts, statements) = embeddings.split_at(1 + candidates.len());
                let near = |text: &Embedding| {
                    statements.iter().map(|statement| text.cosine(statement)).fold(-1.0_f32, f32::max)
                };
                let texts: Vec<f32> = texts.iter().map(near).collect();
                texts.into_iter().map(|near| f64::from(near / LEAST_GAIN)).collect()
            }
            Some(_) => return Err(Failure::new("missing-answer", "expected an embedding of each text")),
            None => std::iter::once(prompt)
                .chain(candidates.iter().map(String::as_str))
                .map(|text| shared_words(text, statements))
                .collect(),
        };
        let Some((whole, rest)) = nearness.split_first() else { return Ok(None) };
        let best = rest.iter().zip(candidates).min_by(|a, b| a.0.total_cmp(b.0));
        Ok(best.filter(|(near, _)| **near + 1.0 <= *whole).map(|(_, text)| text))
    }

    /// What the judge's relevance encoder makes of `texts`, and behind them of `picture`; none if it has none.
    pub(crate) fn embedded(
        &mut self,
        texts: Vec<String>,
        picture: Option<&Picture>,
    ) -> Result<Option<Vec<Embedding>>, Failure> {
        let deadline = self.patience();
        let call = self.model_call(deadline);
        let (inspector, picture) = (self.deciding(&call)?, picture.cloned());
        let work = call.clone();
        let embedded = self.services.watchdog.run(deadline, move || {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            inspector.embed(&texts, picture.as_ref(), &work)
        });
        call.cancel();
        Ok(embedded.map_err(Failure::from)??)
    }

    /// How well `picture` fits the request's own prompt, if the policy wants to know of this one: the cosine of both, -1 to 1.
    /// A failure is told to the log of the program and changes nothing.
    pub(crate) fn fidelity(&mut self, member: usize, picture: &Picture, redacted: bool) -> Option<f64> {
        let redrawn = self.members.get(member).is_some_and(|state| state.current.attempt > 1) || redacted;
        let wanted = match self.grounds.policy.regenerate.fidelity {
            Fidelity::Never => false,
            Fidelity::Redrawn => redrawn,
            Fidelity::Always => true,
        };
        if !wanted || self.request.prompt.trim().is_empty() {
            return None;
        }
        match self.embedded(vec![self.request.prompt.clone()], Some(picture)) {
            Ok(Some(both)) => match both.as_slice() {
                [prompt, picture] => {
                    Some(f64::from(prompt.cosine(picture))).filter(|cosine| cosine.is_finite())
                }
                _ => None,
            },
            Ok(None) => None,
            Err(failure) => {
                tracing::warn!(
                    member,
                    problem = failure.message(),
                    "it is not known how well a picture fits its prompt"
                );
                None
            }
        }
    }
}
