//! One rule after the other, several at a time: objectify, set parameters, take apart, name what decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cluegate_cache::Cache;
use cluegate_constitution::{Constitution, Setting, nearest};
use cluegate_perception::VisionLanguageModel;

use crate::ask::{Asked, Asker, Failure, FailureKind, Known};
use crate::compilation::{
    Cause, Compilation, CompileError, Compiled, CompiledStatement, Failed, Link, Note, NoteKind, Options,
    Wording,
};
use crate::grammar::{self, AnswerError, Formula, MAX_RULE_CHARS, Read, Revised};
use crate::guard;
use crate::parameters::Parameters;
use crate::split::{Source, Split, in_english, split};
use crate::templates::{Step, Templates};
use crate::text::subject_words;
use crate::write;

/// Compiles prose with one model.
pub struct Compiler<'a> {
    model: &'a dyn VisionLanguageModel,
    templates: &'a Templates,
    cache: &'a Cache,
    known: Known,
    options: Options,
}

impl<'a> Compiler<'a> {
    /// A compiler that keeps answers in `cache`, by the model, the templates and the prompt.
    pub fn new(
        model: &'a dyn VisionLanguageModel,
        templates: &'a Templates,
        cache: &'a Cache,
        options: Options,
    ) -> Self {
        Self { model, templates, cache, known: Known::new(), options }
    }

    /// The same compiler with answers that the same model gave earlier, of a record.
    #[must_use]
    pub fn with_known(mut self, asked: impl IntoIterator<Item = Asked>) -> Self {
        self.known.extend(asked.into_iter().map(|asked| (asked.prompt_hash, (asked.answer, asked.ended))));
        self
    }

    /// Compiles every rule of the prose. `done` is called after each.
    ///
    /// # Errors
    /// [`CompileError`]; what is wrong with one rule is listed with that rule.
    pub fn compile(&self, prose: &str, done: &(dyn Fn() + Sync)) -> Result<Compilation, CompileError> {
        let Split { rules, left_out } = split(prose)?;
        let ids = ids(&rules);
        self.check_ids(&ids)?;
        let asker = Asker {
            model: self.model,
            templates: self.templates,
            cache: self.cache,
            timeout: self.options.timeout,
            known: &self.known,
            troubles: AtomicUsize::new(0),
        };
        let next = AtomicUsize::new(0);
        let outcomes = Mutex::new(BTreeMap::new());
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((source, id)) = rules.get(index).zip(ids.get(index)) else { break };
                let outcome = Work::new(&asker, &self.options, id, source).run();
                outcomes.lock().unwrap_or_else(PoisonError::into_inner).insert(index, outcome);
                done();
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.options.parallel.clamp(1, rules.len()) {
                scope.spawn(work);
            }
        });
        let mut compilation = Compilation { compiled: Vec::new(), failed: Vec::new(), left_out };
        for outcome in outcomes.into_inner().unwrap_or_else(PoisonError::into_inner).into_values() {
            match outcome {
                Ok(compiled) => compilation.compiled.push(compiled),
                Err(failed) => compilation.failed.push(*failed),
            }
        }
        Ok(compilation)
    }

    fn check_ids(&self, ids: &[String]) -> Result<(), CompileError> {
        let settings = self.options.settings.iter().map(|setting| ("--set", &setting.rule));
        let allowed = self.options.allowed.iter().map(|id| ("--allow", id));
        for (option, id) in settings.chain(allowed) {
            if !ids.contains(id) {
                let nearest = nearest(id, ids.iter().map(String::as_str)).map(str::to_owned);
                return Err(CompileError::UnknownRule {
                    option,
                    id: id.clone(),
                    nearest,
                    known: ids.to_vec(),
                });
            }
        }
        Ok(())
    }
}

/// An id for each rule, from its own words: they stay the same whatever the model makes of it.
fn ids(rules: &[Source]) -> Vec<String> {
    const WORDS: usize = 4;
    const MOST: usize = 48;
    let mut taken = BTreeSet::new();
    let mut ids = Vec::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        let words = subject_words(&rule.text).into_iter();
        let ascii = words.map(|word| word.replace(|c: char| !c.is_ascii_alphanumeric(), ""));
        let words: Vec<String> = ascii.filter(|word| !word.is_empty()).take(WORDS).collect();
        let mut id: String = words.join("-").chars().take(MOST).collect();
        if id.is_empty() {
            id = format!("rule-{}", index + 1);
        }
        let base = id.trim_end_matches('-').to_owned();
        let mut unique = base.clone();
        let mut count = 1;
        while !taken.insert(unique.clone()) {
            count += 1;
            unique = format!("{base}-{count}");
        }
        ids.push(unique);
    }
    ids
}

/// The work on one rule.
struct Work<'a> {
    asker: &'a Asker<'a>,
    options: &'a Options,
    id: &'a str,
    source: &'a Source,
    history: Vec<Wording>,
    notes: Vec<Note>,
    asked: Vec<Asked>,
}

/// A wording, its numbers, and the text of which the model is asked: that with the numbers as it found them, so that a
/// value that a person sets needs no new answers.
struct Settled {
    kept: usize,
    text: String,
    parameters: Parameters,
}

impl<'a> Work<'a> {
    fn new(asker: &'a Asker<'a>, options: &'a Options, id: &'a str, source: &'a Source) -> Self {
        Self { asker, options, id, source, history: Vec::new(), notes: Vec::new(), asked: Vec::new() }
    }

    fn run(mut self) -> Result<Compiled, Box<Failed>> {
        match self.compile() {
            Ok(compiled) => {
                Ok(Compiled { history: self.history, notes: self.notes, asked: self.asked, ..compiled })
            }
            Err(failure) => Err(Box::new(Failed {
                id: self.id.to_owned(),
                source: self.source.clone(),
                failure,
                history: self.history,
                asked: self.asked,
            })),
        }
    }

    fn note(&mut self, kind: NoteKind, text: impl Into<String>) {
        self.notes.push(Note { kind, text: text.into() });
    }

    fn compile(&mut self) -> Result<Compiled, Failure> {
        self.admit()?;
        let settled = self.settle()?;
        let formula = self.preconditions(&settled.text)?;
        let mut words: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for statement in formula.statements() {
            if !words.contains_key(statement) {
                words.insert(statement.to_owned(), self.central(statement)?);
            }
        }
        let mut numbers = Vec::new();
        let mut chain = |links: &[Vec<String>]| -> Vec<Link> {
            let statement = |text: &String| CompiledStatement {
                text: settled.parameters.template(text, &mut numbers),
                central: words.get(text).cloned().unwrap_or_default(),
            };
            let mut statement = statement;
            links.iter().map(|any| any.iter().map(&mut statement).collect()).collect()
        };
        let (preconditions, unless) = (chain(&formula.preconditions), chain(&formula.unless));
        let text = settled.parameters.template(&settled.text, &mut Vec::new());
        numbers.sort();
        numbers.dedup();
        for number in numbers {
            self.note(NoteKind::NewNumber, format!("a statement speaks of {number}, the rule does not"));
        }
        let kept = self.history.get(settled.kept);
        let compiled = Compiled {
            id: self.id.to_owned(),
            source: self.source.clone(),
            history: Vec::new(),
            kept: settled.kept,
            text,
            objectiveness: kept.map_or(1, |wording| wording.rating),
            severity: self.options.severity,
            parameters: settled.parameters.list().cloned().collect(),
            preconditions,
            unless,
            notes: Vec::new(),
            asked: Vec::new(),
        };
        self.flag(settled.kept);
        check(&compiled)?;
        Ok(compiled)
    }

    /// Refuses a source before anything is asked.
    fn admit(&mut self) -> Result<(), Failure> {
        let refused = |problem| Err(Failure { kind: FailureKind::Refused, step: None, problem });
        let text = &self.source.text;
        let chars = text.chars().count();
        if chars > MAX_RULE_CHARS {
            return refused(format!(
                "expected a rule of at most {MAX_RULE_CHARS} characters, got {chars}; split it into several"
            ));
        }
        if let Some(hidden) = guard::invisible(text) {
            return refused(format!(
                "expected characters that a reviewer can see, got U+{:04X}; write the rule anew",
                u32::from(hidden)
            ));
        }
        if let Some(words) = guard::addresses_the_model(text) {
            if !self.options.allowed.contains(self.id) {
                return refused(format!(
                    "expected a rule about pictures, got one that speaks to the model ({words:?}); reword it, or let it \
                     through with --allow {}",
                    self.id
                ));
            }
            self.note(
                NoteKind::Addresses,
                format!("it seems to speak to the model ({words:?}) and was let through"),
            );
        }
        if !in_english(text) || text.chars().any(|c| c.is_alphabetic() && !c.is_ascii()) {
            self.note(
                NoteKind::NotEnglish,
                "the source may not be in English; the model and the judge may know it less well",
            );
        }
        Ok(())
    }

    /// Objectifies the rule, and again where a person set a number that makes the wording worse.
    fn settle(&mut self) -> Result<Settled, Failure> {
        let fixed = Parameters::propose(&self.source.text);
        let kept = self.objectify(Cause::Source, self.source.text.clone(), &fixed, false)?;
        let mut settled = self.settled(kept);
        for lost in fixed.missing_from(&settled.text) {
            self.note(NoteKind::LostNumber, format!("{lost}: in the source, not in the wording"));
        }
        let id = self.id;
        let settings: Vec<&Setting> =
            self.options.settings.iter().filter(|setting| setting.rule == id).collect();
        if settings.is_empty() {
            return Ok(settled);
        }
        let set = |parameters: &mut Parameters, settings: &[&Setting]| {
            let failed = |problem| Failure { kind: FailureKind::Setting, step: None, problem };
            parameters.set(settings).map_err(failed)
        };
        set(&mut settled.parameters, &settings)?;
        let text = settled.parameters.filled(&settled.text);
        if text == settled.text {
            return Ok(settled);
        }
        let kept = self.objectify(Cause::Set, text.clone(), &settled.parameters, true)?;
        if self.history.get(kept).is_some_and(|wording| wording.text == text) {
            return Ok(Settled { kept, ..settled });
        }
        // Reworded around the values that were set: they stand in the text itself.
        let earlier = settled.parameters;
        let mut settled = self.settled(kept);
        settled.parameters.keep_names(&earlier);
        Ok(settled)
    }

    fn settled(&self, kept: usize) -> Settled {
        let text = self.history.get(kept).map_or_else(String::new, |wording| wording.text.clone());
        Settled { kept, parameters: Parameters::propose(&text), text }
    }

    /// Rates `text` and revises it until it is objective enough (CLUE s 3.1). Gives the index of the best wording, the
    /// first of several.
    fn objectify(
        &mut self,
        cause: Cause,
        text: String,
        fixed: &Parameters,
        hard: bool,
    ) -> Result<usize, Failure> {
        let first = self.history.len();
        let (mut cause, mut text) = (cause, text);
        for round in 0..=self.options.rounds {
            let rating = self.asker.ask(
                Step::Objectiveness,
                &[("rule", &text)],
                &mut self.asked,
                grammar::read_rating,
            )?;
            self.history.push(Wording {
                cause,
                text: text.clone(),
                explanation: rating.explanation.clone(),
                rating: rating.rating,
            });
            if rating.rating >= self.options.target || round == self.options.rounds {
                break;
            }
            let told = fixed.told();
            let number = rating.rating.to_string();
            let values = [
                ("rule", text.as_str()),
                ("explanation", &rating.explanation),
                ("rating", &number),
                ("pinned", &told),
            ];
            let revised = self
                .asker
                .ask(Step::Revise, &values, &mut self.asked, |answer| revision(answer, fixed, hard))?;
            if self.history.iter().any(|wording| wording.text == revised.0) {
                self.note(NoteKind::Repeated, "the model repeated a wording; it was not asked for more");
                break;
            }
            (cause, text) = (Cause::Revised, revised.0);
        }
        let rounds = self.history.iter().enumerate().skip(first);
        let best = rounds.rev().max_by_key(|(_, wording)| wording.rating);
        Ok(best.map_or(first, |(index, _)| index))
    }

    fn preconditions(&mut self, text: &str) -> Result<Formula, Failure> {
        self.asker.ask(Step::Preconditions, &[("rule", text)], &mut self.asked, |answer| {
            let read = grammar::read_preconditions(answer)?;
            for statement in read.value.statements() {
                about_pictures(statement)?;
            }
            Ok(read)
        })
    }

    fn central(&mut self, statement: &str) -> Result<Vec<String>, Failure> {
        let values = [("statement", statement)];
        let read = self.asker.ask(Step::Central, &values, &mut self.asked, grammar::read_central)?;
        Ok(read.0)
    }

    /// Notes what a reviewer should look at.
    fn flag(&mut self, kept: usize) {
        let Some(wording) = self.history.get(kept).cloned() else { return };
        if wording.rating < self.options.target {
            let text = format!("rated {}, under {}", wording.rating, self.options.target);
            self.note(NoteKind::BelowTarget, text);
        }
        if let Some(lost) = guard::lost_subject(&self.source.text, &wording.text) {
            let text = format!("words of the source that the wording lacks: {}", lost.join(", "));
            self.note(NoteKind::LostSubject, text);
        }
        let mut repairs: Vec<String> = Vec::new();
        for asked in &self.asked {
            for repair in &asked.repairs {
                let text = format!("{}: {}", asked.step.as_str(), repair.as_str());
                if !repairs.contains(&text) {
                    repairs.push(text);
                }
            }
        }
        for repair in repairs {
            self.note(NoteKind::Repaired, repair);
        }
    }
}

/// Reads a revision that is about pictures and, where `hard`, keeps the fixed values.
fn revision(answer: &str, fixed: &Parameters, hard: bool) -> Result<Read<Revised>, AnswerError> {
    let read = grammar::read_revision(answer)?;
    about_pictures(&read.value.0)?;
    let lost = fixed.missing_from(&read.value.0);
    if hard && !lost.is_empty() {
        return Err(AnswerError::new(
            format!("a rule that keeps the fixed values ({})", fixed.told()),
            format!("one without {}", lost.join(", ")),
        ));
    }
    Ok(read)
}

fn about_pictures(text: &str) -> Result<(), AnswerError> {
    let expected = "words about a picture";
    if let Some(hidden) = guard::invisible(text) {
        return Err(AnswerError::new(
            expected,
            format!("the invisible character U+{:04X}", u32::from(hidden)),
        ));
    }
    match guard::addresses_the_model(text) {
        Some(words) => Err(AnswerError::new(expected, format!("words to a model: {words:?}"))),
        None => Ok(()),
    }
}

/// Whether a constitution takes the rule. What it refuses is a failure of that rule and of no other.
fn check(rule: &Compiled) -> Result<(), Failure> {
    let text = format!("{}\n{}", write::head("check", "", &[]), rule.to_toml());
    Constitution::parse(&text, "the compiled rule").map(drop).map_err(|error| Failure {
        kind: FailureKind::WrongForm,
        step: None,
        problem: error.problem().to_string(),
    })
}
