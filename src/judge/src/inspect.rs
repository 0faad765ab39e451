//! One inspection: asks in batches what the fold says is missing, and counts and times every call.

use std::sync::Arc;
use std::time::Instant;

use cluegate_constitution::Rule;
use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, DetectionRequest, Embedding, FinishReason, Picture,
    Prompt, Reply, VisionLanguageModel,
};

use crate::error::JudgeError;
use crate::evidence::{Outcome, RuleEvidence, Verdict};
use crate::fold::{Known, Look, Question, Reasoned};
use crate::judge::Judge;
use crate::options::{InspectOptions, Stages};
use crate::pictures;
use crate::prepared::{PlannedRule, Prepared};
use crate::rationale;
use crate::regions::{self, CentralObjects};
use crate::relevance;
use crate::report::{Passes, PrefilterEvidence, Report, Stage, Timings};
use crate::templates::{Projection, RATING_START};
use crate::views::Views;

/// How far a probability may leave 0 to 1 by rounding, when it is a sum over a large vocabulary.
const PROBABILITY_TOLERANCE: f64 = 1e-3;

/// Calls to models on behalf of one caller, counted and timed.
pub(crate) struct Session {
    caller: Call,
    begun: Instant,
    timings: Timings,
    passes: Passes,
}

impl Session {
    pub(crate) fn new(caller: Call) -> Self {
        let begun = Instant::now();
        Self { caller, begun, timings: Timings::default(), passes: Passes::default() }
    }

    /// Runs one model call, unless nobody waits for its answer any more.
    pub(crate) fn call<T>(
        &mut self,
        stage: Stage,
        call: impl FnOnce(&Call) -> cluegate_perception::Result<T>,
    ) -> Result<T, JudgeError> {
        let start = Instant::now();
        let span = tracing::info_span!(target: "cluegate::trace", "stage", otel.name = stage.as_str());
        let asked = self.caller.check().and_then(|()| span.in_scope(|| call(&self.caller)));
        let answer = asked.map_err(|source| JudgeError::Perception { stage, source });
        *self.timings.stages.get_mut(stage) += start.elapsed().as_secs_f64() * 1e3;
        answer
    }

    /// Forward passes so far.
    pub(crate) fn passes(&self) -> Passes {
        self.passes
    }

    fn count(&mut self, stage: Stage, passes: usize) {
        *self.passes.stages.get_mut(stage) += passes as u64;
    }

    /// Scores `prompts` in one call: `p(Yes) / (p(Yes) + p(No))` of each, in order. No call for no prompts.
    pub(crate) fn score(
        &mut self,
        vlm: &dyn VisionLanguageModel,
        stage: Stage,
        prompts: &[Prompt],
    ) -> Result<Vec<f64>, JudgeError> {
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.call(stage, |call| vlm.score(prompts, call))?;
        check_count(stage, prompts.len(), answers.len())?;
        self.count(stage, prompts.len());
        answers.iter().map(|answer| ratio(stage, answer)).collect()
    }

    /// Decodes an answer for each prompt in one call. No call for no prompts.
    fn complete(
        &mut self,
        vlm: &dyn VisionLanguageModel,
        stage: Stage,
        prompts: Vec<Prompt>,
        max_tokens: usize,
    ) -> Result<Vec<Completion>, JudgeError> {
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let requests: Vec<CompletionRequest> =
            prompts.into_iter().map(|prompt| CompletionRequest { prompt, max_tokens }).collect();
        let answers = self.call(stage, |call| vlm.complete(&requests, call))?;
        check_count(stage, requests.len(), answers.len())?;
        self.count(stage, answers.iter().map(|answer| answer.tokens).sum());
        Ok(answers)
    }
}

fn check_count(stage: Stage, expected: usize, came: usize) -> Result<(), JudgeError> {
    if expected == came { Ok(()) } else { Err(JudgeError::AnswerCount { stage, expected, came }) }
}

/// The checked ratio of an answer. Neither Yes nor No having any probability is no answer, not a No.
fn ratio(stage: Stage, answer: &AnswerScore) -> Result<f64, JudgeError> {
    for (what, value) in [
        ("probability of Yes", answer.yes),
        ("probability of No", answer.no),
        ("sum of both", answer.yes + answer.no),
    ] {
        let what = format!("a {what}");
        if !value.is_finite() {
            return Err(JudgeError::NotANumber { stage, what, value });
        }
        if !(0.0..=1.0 + PROBABILITY_TOLERANCE).contains(&value) {
            return Err(JudgeError::OutOfRange { stage, what, value, min: 0.0, max: 1.0 });
        }
    }
    let ratio = answer.ratio();
    if ratio.is_finite() {
        Ok(ratio)
    } else {
        Err(JudgeError::MissingAnswer {
            stage,
            expected: "a probability of Yes or of No above zero".to_owned(),
        })
    }
}

/// A rule on its way through the fold.
pub(crate) struct Pending<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) planned: &'a PlannedRule,
    pub(crate) relevance: Option<f32>,
    /// Set when the rule is decided.
    pub(crate) evidence: Option<RuleEvidence>,
}

impl Pending<'_> {
    /// The evidence of a rule whose chain is not asked.
    fn without_chain(&self, relevance_threshold: f32, outcome: Outcome) -> RuleEvidence {
        RuleEvidence {
            id: self.rule.id.clone(),
            relevance: self.relevance,
            relevance_threshold,
            outcome,
            projection: None,
            margin: None,
            preconditions: Vec::new(),
            unless: Vec::new(),
        }
    }
}

/// One picture under one constitution.
pub(crate) struct Inspection<'a> {
    judge: &'a Judge,
    picture: &'a Picture,
    pub(crate) prepared: &'a Prepared,
    pub(crate) options: &'a InspectOptions,
    session: Session,
    views: Views<'a>,
    /// Set once the scan has found a relevant consequence rule.
    projection: Option<Projection>,
}

impl<'a> Inspection<'a> {
    pub(crate) fn new(
        judge: &'a Judge,
        picture: &'a Picture,
        prepared: &'a Prepared,
        options: &'a InspectOptions,
    ) -> Self {
        let views = Views::new(picture, judge.options.min_crop_side);
        let session = Session::new(options.call.clone());
        Self { judge, picture, prepared, options, session, views, projection: None }
    }

    pub(crate) fn run(mut self) -> Result<Report, JudgeError> {
        let (mut rules, embeddings) = self.scan()?;
        let prefilter = self.prefilter(&rules, &embeddings)?;
        if prefilter.as_ref().is_some_and(|said| said.cleared) {
            leave_out(&mut rules, self.prepared.relevance_threshold, Outcome::Cleared);
            return self.report(rules, prefilter);
        }
        let asked = first_questions(&rules);
        let objects = self.look_for_objects(&rules)?;
        self.project(&rules)?;
        let mut known = Known {
            prepared: self.prepared,
            priors: &self.prepared.priors,
            stages: self.options.stages,
            objects,
            scores: std::collections::HashMap::new(),
            reasoned: std::collections::HashMap::new(),
            projection: self.projection.as_ref().map(|projection| Arc::clone(&projection.text)),
        };
        let mut questions = asked;
        loop {
            self.ask(&mut known, &questions)?;
            questions = fold(&known, &mut rules);
            if questions.is_empty() {
                break;
            }
        }
        self.report(rules, prefilter)
    }

    /// Asks the pre-filter, if there is one, the whole method runs, and a rule is relevant.
    fn prefilter(
        &mut self,
        rules: &[Pending<'_>],
        embeddings: &[Embedding],
    ) -> Result<Option<PrefilterEvidence>, JudgeError> {
        let asked = self.options.stages == Stages::ALL && !self.options.without_prefilter;
        let relevant = rules.iter().any(|pending| pending.evidence.is_none());
        let Some(student) = self.judge.prefilter.as_ref().filter(|_| asked && relevant) else {
            return Ok(None);
        };
        let (encoder, session, picture) = (&self.judge.encoder, &mut self.session, self.picture);
        let said = student.say(embeddings, || {
            let parts = pictures::parts(&pictures::views(picture));
            let embeddings = session.call(Stage::Relevance, |call| encoder.embed_pictures(&parts, call))?;
            relevance::check_embeddings(&embeddings, parts.len())?;
            session.count(Stage::Relevance, parts.len());
            Ok::<_, JudgeError>(embeddings)
        })?;
        Ok(Some(PrefilterEvidence {
            student: student.fingerprint().to_owned(),
            score: said.score,
            threshold: said.threshold,
            closer: said.closer,
            cleared: said.cleared(),
        }))
    }

    /// The relevance scan: an irrelevant rule is decided at once. With the embeddings of the picture's views.
    pub(crate) fn scan(&mut self) -> Result<(Vec<Pending<'a>>, Vec<Embedding>), JudgeError> {
        let prepared = self.prepared;
        let embeddings = if self.options.stages.relevance_scan {
            let views = if self.options.stages.views {
                pictures::views(self.picture)
            } else {
                vec![self.picture.clone()]
            };
            let embeddings = self
                .session
                .call(Stage::Relevance, |call| self.judge.encoder.embed_pictures(&views, call))?;
            relevance::check_embeddings(&embeddings, views.len())?;
            self.session.count(Stage::Relevance, views.len());
            embeddings
        } else {
            Vec::new()
        };
        let rules =
            prepared.constitution.rules().iter().zip(&prepared.plan.rules).zip(&prepared.rule_embeddings);
        let rules: Result<Vec<Pending<'a>>, JudgeError> = rules
            .map(|((rule, planned), rule_embedding)| {
                let relevance = relevance::largest_cosine(&embeddings, rule_embedding)?;
                let threshold = prepared.relevance_threshold;
                let irrelevant = relevance.is_some_and(|cosine| cosine < threshold);
                let mut pending = Pending { rule, planned, relevance, evidence: None };
                pending.evidence = irrelevant.then(|| pending.without_chain(threshold, Outcome::Irrelevant));
                Ok(pending)
            })
            .collect();
        Ok((rules?, embeddings))
    }

    /// Looks once for every central word of the relevant rules, exceptions included: the lines with a1 and a2 already
    /// need to know whether the objects are small.
    fn look_for_objects(&mut self, rules: &[Pending<'a>]) -> Result<Vec<CentralObjects>, JudgeError> {
        let plan = &self.prepared.plan;
        let mut wanted = vec![false; plan.words.len()];
        for pending in rules.iter().filter(|pending| pending.evidence.is_none()) {
            for index in pending.planned.preconditions.iter().chain(&pending.planned.unless).flatten() {
                plan.statements[*index].words.iter().for_each(|word| wanted[*word] = true);
            }
        }
        let mut best = vec![None; plan.words.len()];
        let indices: Vec<usize> = (0..wanted.len()).filter(|word| wanted[*word]).collect();
        if self.options.stages.detects() && !indices.is_empty() {
            let queries: Vec<&str> = indices.iter().map(|word| plan.words[*word].as_str()).collect();
            let threshold = self.prepared.constitution.thresholds().detection_confidence;
            let request = [DetectionRequest { picture: self.picture, queries: &queries }];
            let answers = self
                .session
                .call(Stage::Detection, |call| self.judge.detector.detect(&request, threshold, call))?;
            check_count(Stage::Detection, request.len(), answers.len())?;
            self.session.count(Stage::Detection, 1);
            let detections = answers.into_iter().next().unwrap_or_default();
            let found = regions::best_regions(self.picture, &queries, &detections, threshold)?;
            for (word, region) in indices.into_iter().zip(found) {
                best[word] = region;
            }
        }
        let small =
            self.options.stages.crop.then_some(self.prepared.constitution.thresholds().small_object_area);
        let objects = plan.statements.iter().map(|statement| {
            let best = statement.words.iter().map(|word| best[*word].clone()).collect();
            // A projection is told of the whole picture: what follows it is asked of no other.
            CentralObjects::new(self.picture, best, small.filter(|_| !statement.consequence))
        });
        Ok(objects.collect())
    }

    /// Lets the model say what is likely to follow from the picture, once, if a relevant rule asks for it. Neither silence
    /// nor half a sentence says that nothing will happen.
    fn project(&mut self, rules: &[Pending<'a>]) -> Result<(), JudgeError> {
        let asks = |pending: &Pending<'_>| pending.evidence.is_none() && pending.planned.consequence;
        if !rules.iter().any(asks) {
            return Ok(());
        }
        let stage = Stage::Projection;
        let prompt = self.judge.templates.projection(self.picture.clone(), self.options.prompt.as_deref());
        let (asked, limit) = (prompt.suffix.clone(), self.judge.options.max_projection_tokens);
        let answers = self.session.complete(self.judge.vlm.as_ref(), stage, vec![prompt], limit)?;
        let answer = answers.into_iter().next().filter(|answer| !answer.text.trim().is_empty());
        let Some(answer) = answer else { return Err(missing_projection()) };
        if answer.finish == FinishReason::Length {
            return Err(JudgeError::CutOff { stage, limit });
        }
        self.projection = Some(Projection { asked, text: answer.text.trim().into() });
        Ok(())
    }

    /// What a statement is asked behind: the projection if it belongs to a consequence rule, and else nothing.
    fn behind(&self, statement: usize) -> Result<Option<&Projection>, JudgeError> {
        if !self.prepared.plan.statements[statement].consequence {
            return Ok(None);
        }
        self.projection.as_ref().map(Some).ok_or_else(missing_projection)
    }

    /// Asks `questions`, each kind in one batch, and adds the answers to what is known.
    pub(crate) fn ask(&mut self, known: &mut Known<'_>, questions: &[Question]) -> Result<(), JudgeError> {
        for (stage, looks) in
            [(Stage::Statements, &[Look::Seen][..]), (Stage::Regions, &[Look::Whole, Look::Removed][..])]
        {
            let keys: Vec<(usize, Look)> = questions
                .iter()
                .filter_map(|question| match question {
                    Question::Score(statement, look) if looks.contains(look) => Some((*statement, *look)),
                    _ => None,
                })
                .collect();
            let templates = &self.judge.templates;
            let mut prompts: Vec<Prompt> = Vec::with_capacity(keys.len());
            for (statement, look) in &keys {
                let picture = self.views.see(&known.objects[*statement], *look);
                let text = &self.prepared.plan.statements[*statement].text;
                prompts.push(templates.question(Some(picture), text, self.behind(*statement)?));
            }
            let scores = self.session.score(self.judge.vlm.as_ref(), stage, &prompts)?;
            known.scores.extend(keys.into_iter().zip(scores));
        }
        let statements: Vec<usize> = questions
            .iter()
            .filter_map(|question| match question {
                Question::Reason(statement) => Some(*statement),
                Question::Score(..) => None,
            })
            .collect();
        self.reason(known, &statements)
    }

    /// The two-turn cascade for each statement: a chain of thought, then its rating, scored at the token where it
    /// stands in the JSON instead of decoded (clue.md, "Rating without decoding").
    fn reason(&mut self, known: &mut Known<'_>, statements: &[usize]) -> Result<(), JudgeError> {
        let templates = &self.judge.templates;
        let options = self.judge.options;
        let vlm = self.judge.vlm.as_ref();
        let text = |statement: usize| self.prepared.plan.statements[statement].text.as_str();
        let mut first_turns: Vec<Prompt> = Vec::with_capacity(statements.len());
        for statement in statements {
            let picture = self.views.see(&known.objects[*statement], Look::Seen);
            first_turns.push(templates.thought(picture, text(*statement), self.behind(*statement)?));
        }
        self.session.passes.cascades += statements.len() as u64;
        let thoughts = self.session.complete(
            vlm,
            Stage::Reasoning,
            first_turns.clone(),
            options.max_reasoning_tokens,
        )?;
        let mut second_turns = Vec::with_capacity(statements.len());
        for ((statement, first), thought) in statements.iter().zip(first_turns).zip(&thoughts) {
            let thought = thought.text.trim();
            if thought.is_empty() {
                let expected = format!("a chain of thought about {:?}", text(*statement));
                return Err(JudgeError::MissingAnswer { stage: Stage::Reasoning, expected });
            }
            let reply = Reply { assistant: thought.to_owned(), user: templates.rating(text(*statement)) };
            let turns = first.turns.iter().cloned().chain([reply]).collect();
            second_turns.push(Prompt { turns, answer_start: RATING_START.to_owned(), ..first });
        }
        let ratings = self.session.score(vlm, Stage::Rating, &second_turns)?;
        let mut answers: Vec<Reasoned> = thoughts
            .iter()
            .zip(ratings)
            .map(|(thought, rating)| Reasoned {
                thought: thought.text.trim().to_owned(),
                rating,
                rationale: None,
            })
            .collect();
        if self.options.rationale {
            self.rationales(statements, &second_turns, &mut answers)?;
        }
        known.reasoned.extend(statements.iter().copied().zip(answers));
        Ok(())
    }

    /// Decodes a rationale for each rated statement: all in one call, and those that cannot be used once more.
    fn rationales(
        &mut self,
        statements: &[usize],
        second_turns: &[Prompt],
        answers: &mut [Reasoned],
    ) -> Result<(), JudgeError> {
        let vlm = self.judge.vlm.as_ref();
        let limit = self.judge.options.max_rationale_tokens;
        let mut open: Vec<usize> = (0..answers.len()).collect();
        let mut problems: Vec<(usize, String, String)> = Vec::new();
        for retry in [false, true] {
            let starts: Vec<String> =
                open.iter().map(|at| rationale::answer_start(answers[*at].yes(), retry)).collect();
            let prompts = open.iter().zip(&starts).map(|(at, start)| {
                let turn = second_turns[*at].clone();
                Prompt { answer_start: start.clone(), ..turn }
            });
            let texts = self.session.complete(vlm, Stage::Rationale, prompts.collect(), limit)?;
            problems.clear();
            for ((at, start), text) in open.iter().zip(&starts).zip(texts) {
                match rationale::parse(start, &text.text, answers[*at].yes()) {
                    Ok(rationale) => answers[*at].rationale = Some(rationale),
                    Err(problem) => problems.push((*at, format!("{start}{}", text.text), problem)),
                }
            }
            open = problems.iter().map(|(at, ..)| *at).collect();
        }
        match problems.into_iter().next() {
            None => Ok(()),
            Some((at, answer, problem)) => {
                let statement = self.prepared.plan.statements[statements[at]].text.clone();
                Err(JudgeError::Unparseable { statement, answer, problem })
            }
        }
    }

    pub(crate) fn report(
        self,
        rules: Vec<Pending<'a>>,
        prefilter: Option<PrefilterEvidence>,
    ) -> Result<Report, JudgeError> {
        let expected = rules.len();
        let rules: Vec<RuleEvidence> = rules.into_iter().filter_map(|pending| pending.evidence).collect();
        check_count(Stage::Statements, expected, rules.len())?;
        let violated: Vec<String> = rules
            .iter()
            .filter(|rule| rule.outcome == Outcome::Violated)
            .map(|rule| rule.id.clone())
            .collect();
        let verdict = if violated.is_empty() { Verdict::Safe } else { Verdict::Unsafe };
        let mut timings_ms = self.session.timings;
        timings_ms.total = self.session.begun.elapsed().as_secs_f64() * 1e3;
        Ok(Report {
            verdict,
            violated,
            rules,
            prefilter,
            constitution: self.prepared.constitution.name().to_owned(),
            revision: self.prepared.constitution.revision(),
            picture: self.picture.hash(),
            models: self.prepared.models.clone(),
            templates: self.prepared.templates.clone(),
            stages: self.options.stages,
            timings_ms,
            passes: self.session.passes,
            from_cache: false,
        })
    }
}

/// Decides every rule that is still open: its chain is not asked, because of `outcome`.
pub(crate) fn leave_out(rules: &mut [Pending<'_>], relevance_threshold: f32, outcome: Outcome) {
    for pending in rules.iter_mut().filter(|pending| pending.evidence.is_none()) {
        pending.evidence = Some(pending.without_chain(relevance_threshold, outcome));
    }
}

fn missing_projection() -> JudgeError {
    let expected = "a projection of what is likely to follow from the picture".to_owned();
    JudgeError::MissingAnswer { stage: Stage::Projection, expected }
}

/// The first question of every precondition of every relevant rule, each once. Asking them all at once, also those
/// past a break, costs less than another round (performance.md); exceptions wait until a chain holds, for few do.
fn first_questions(rules: &[Pending<'_>]) -> Vec<Question> {
    let relevant = rules.iter().filter(|pending| pending.evidence.is_none());
    let statements = relevant.flat_map(|pending| pending.planned.preconditions.iter().flatten());
    distinct(statements.map(|statement| Question::Score(*statement, Look::Seen)))
}

/// Folds every undecided rule; returns the questions that they wait for, each once.
fn fold(known: &Known<'_>, rules: &mut [Pending<'_>]) -> Vec<Question> {
    let mut missing = Vec::new();
    for pending in rules.iter_mut().filter(|pending| pending.evidence.is_none()) {
        match known.rule(&pending.rule.id, pending.relevance, pending.planned) {
            Ok(evidence) => pending.evidence = Some(evidence),
            Err(questions) => missing.extend(questions),
        }
    }
    distinct(missing)
}

pub(crate) fn distinct(questions: impl IntoIterator<Item = Question>) -> Vec<Question> {
    let mut seen = std::collections::HashSet::new();
    questions.into_iter().filter(|question| seen.insert(*question)).collect()
}
