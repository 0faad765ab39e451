//! From text to a checked constitution.

use std::collections::{BTreeMap, HashMap};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::lint::{LINTS, Level};
use crate::nearest::nearest;
use crate::parameter::{Parameter, ParameterKind, Written};
use crate::raw::{
    CONSTITUTION, RawConstitution, RawParameter, RawPrecondition, RawRule, RawThresholds, Shape,
};
use crate::rule::{Constitution, Precondition, Rule, Severity, Statement, Thresholds};
use crate::template::{Template, is_name};
use crate::{ConstitutionError, Problem, Revision};

/// The longest text that is read. The fourteen rules of `general` take a hundredth of it.
const MAX_BYTES: usize = 1 << 20;

type Result<T> = std::result::Result<T, ConstitutionError>;

impl Constitution {
    /// Reads and checks a constitution file. `origin` is the file's name for messages.
    ///
    /// # Errors
    /// The first [`Problem`] found, with its line.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let source = Source { text, origin };
        if text.len() > MAX_BYTES {
            let problem = Problem::TooLarge { bytes: text.len(), limit: MAX_BYTES };
            return Err(ConstitutionError::new(origin, None, problem));
        }
        let tree = DeTable::parse(text).map_err(|error| source.toml(&error))?;
        source.check_keys(tree.get_ref(), &CONSTITUTION)?;
        let raw: RawConstitution = toml::from_str(text).map_err(|error| source.toml(&error))?;
        source.build(raw)
    }
}

/// The text under examination, which turns positions into lines.
struct Source<'a> {
    text: &'a str,
    origin: &'a str,
}

impl Source<'_> {
    /// Line of a byte offset, counted from 1.
    fn line(&self, offset: usize) -> usize {
        self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
    }

    fn error<T>(&self, at: &Spanned<T>, problem: Problem) -> ConstitutionError {
        ConstitutionError::new(self.origin, Some(self.line(at.span().start)), problem)
    }

    fn toml(&self, error: &toml::de::Error) -> ConstitutionError {
        let offset = error.span().map_or(0, |span| span.start);
        let line_start = self.text.as_bytes().iter().take(offset).rposition(|byte| *byte == b'\n');
        let column = offset - line_start.map_or(0, |newline| newline + 1) + 1;
        // serde names its types; the file's author knows numbers.
        let message = error.message().trim().replace('\n', "; ");
        let message = message
            .replace("expected i64", "expected an integer")
            .replace("expected f64", "expected a number");
        let problem = Problem::Toml { message, column };
        ConstitutionError::new(self.origin, error.span().map(|_| self.line(offset)), problem)
    }

    /// Refuses every key that `shape` does not know, at any depth.
    fn check_keys(&self, table: &DeTable<'_>, shape: &Shape) -> Result<()> {
        for (key, value) in table {
            let written: &str = key.get_ref();
            let known = shape.keys.iter().find(|(known, _)| *known == written);
            let Some(inner) = known.map(|(_, inner)| *inner).or(shape.named.map(Some)) else {
                return Err(self.error(key, unknown_key(written, shape)));
            };
            if let Some(inner) = inner {
                self.check_value(value.get_ref(), inner)?;
            }
        }
        Ok(())
    }

    fn check_value(&self, value: &DeValue<'_>, shape: &Shape) -> Result<()> {
        match value {
            DeValue::Table(table) => self.check_keys(table, shape),
            DeValue::Array(items) => {
                items.iter().try_for_each(|item| self.check_value(item.get_ref(), shape))
            }
            // A value of the wrong type is reported with its place when the raw types are read.
            _ => Ok(()),
        }
    }

    fn build(&self, raw: RawConstitution) -> Result<Constitution> {
        let name = self.id("a constitution name", raw.name)?;
        let thresholds = self.thresholds(&raw.thresholds)?;
        if raw.rule.is_empty() {
            return Err(ConstitutionError::new(self.origin, None, Problem::NoRules));
        }
        let mut first_lines = HashMap::new();
        let mut rules = Vec::with_capacity(raw.rule.len());
        for rule in raw.rule {
            let line = self.line(rule.get_ref().id.span().start);
            let id_place = Spanned::new(rule.get_ref().id.span(), ());
            let built = self.rule(rule)?;
            if let Some(first_line) = first_lines.insert(built.id.clone(), line) {
                return Err(self.error(&id_place, Problem::DuplicateId { id: built.id, first_line }));
            }
            rules.push(built);
        }
        let allow = self.allow(raw.allow)?;
        let description = raw.description.trim().to_owned();
        let mut constitution =
            Constitution { name, description, thresholds, allow, rules, revision: Revision::UNSET };
        constitution.revision = Revision::of(&constitution);
        Ok(constitution)
    }

    fn id(&self, what: &'static str, id: Spanned<String>) -> Result<String> {
        let value = id.get_ref();
        if is_name(value) {
            Ok(id.into_inner())
        } else {
            Err(self.error(&id, Problem::InvalidId { what, value: value.clone() }))
        }
    }

    fn thresholds(&self, raw: &RawThresholds) -> Result<Thresholds> {
        let unit = |key, value: &Option<Spanned<f64>>, default| {
            Ok(self.threshold(key, value, 0.0)?.unwrap_or(default))
        };
        let paper = Thresholds::default();
        #[allow(clippy::cast_possible_truncation)]
        Ok(Thresholds {
            relevance: self.threshold("relevance", &raw.relevance, -1.0)?.map(|value| value as f32),
            alpha1: unit("alpha1", &raw.alpha1, paper.alpha1)?,
            alpha2: unit("alpha2", &raw.alpha2, paper.alpha2)?,
            beta: unit("beta", &raw.beta, paper.beta)?,
            detection_confidence: self
                .threshold("detection_confidence", &raw.detection_confidence, 0.0)?
                .map_or(paper.detection_confidence, |value| value as f32),
            small_object_area: unit("small_object_area", &raw.small_object_area, paper.small_object_area)?,
        })
    }

    fn threshold(&self, key: &'static str, value: &Option<Spanned<f64>>, min: f64) -> Result<Option<f64>> {
        let Some(spanned) = value else { return Ok(None) };
        let value = *spanned.get_ref();
        // A NaN lies in no range, so it is refused here too.
        if (min..=1.0).contains(&value) {
            Ok(Some(value))
        } else {
            Err(self.error(spanned, Problem::Threshold { key, value, min, max: 1.0 }))
        }
    }

    fn rule(&self, raw: Spanned<RawRule>) -> Result<Rule> {
        let place = Spanned::new(raw.span(), ());
        let raw = raw.into_inner();
        let id = self.id("a rule id", raw.id)?;
        let text = raw.text.get_ref().trim().to_owned();
        if text.is_empty() {
            return Err(self.error(&raw.text, Problem::EmptyText { rule: id }));
        }
        let score = *raw.objectiveness.get_ref();
        let Some(objectiveness) = u8::try_from(score).ok().filter(|score| (1..=10).contains(score)) else {
            return Err(self.error(&raw.objectiveness, Problem::Objectiveness { rule: id, value: score }));
        };
        let Some(severity) = Severity::ALL.into_iter().find(|known| known.as_str() == raw.severity.get_ref())
        else {
            let value = raw.severity.get_ref().clone();
            return Err(self.error(&raw.severity, Problem::UnknownSeverity { rule: id, value }));
        };
        if raw.precondition.is_empty() {
            return Err(self.error(&place, Problem::EmptyChain { rule: id }));
        }
        let allow = self.allow(raw.allow)?;
        let parameters = self.parameters(&id, raw.parameter)?;
        let mut texts = Texts { source: self, rule: &id, parameters: &parameters, statements: Vec::new() };
        let written = texts.template(&raw.text, &text)?;
        let preconditions = texts.chain("precondition", raw.precondition)?;
        let unless = texts.chain("unless", raw.unless)?;
        let written = Written { text: written, statements: texts.statements };
        let used = |name: &str| {
            let all = written.statements.iter().chain([&written.text]);
            all.flat_map(Template::names).any(|known| known == name)
        };
        if let Some(unused) = parameters.iter().find(|parameter| !used(&parameter.name)) {
            let name = unused.name.clone();
            return Err(self.error(&place, Problem::UnusedParameter { rule: id, name }));
        }
        let consequence = raw.consequence;
        let mut rule = Rule {
            id,
            text,
            objectiveness,
            severity,
            preconditions,
            unless,
            consequence,
            parameters,
            allow,
            written,
        };
        rule.substitute();
        Ok(rule)
    }

    /// Names of lints; one that does not exist would set nothing aside.
    fn allow(&self, raw: Vec<Spanned<String>>) -> Result<Vec<String>> {
        let known = || LINTS.iter().filter(|lint| lint.level < Level::Error).map(|lint| lint.name);
        raw.into_iter()
            .map(|name| {
                if known().any(|known| known == name.get_ref()) {
                    return Ok(name.into_inner());
                }
                let nearest = nearest(name.get_ref(), known());
                let problem = Problem::UnknownLint { name: name.get_ref().clone(), nearest };
                Err(self.error(&name, problem))
            })
            .collect()
    }

    fn parameters(&self, rule: &str, raw: BTreeMap<String, Spanned<RawParameter>>) -> Result<Vec<Parameter>> {
        let build = |(name, raw): (String, Spanned<RawParameter>)| {
            let place = Spanned::new(raw.span(), ());
            let raw = raw.into_inner();
            if !is_name(&name) {
                return Err(self.error(&place, Problem::InvalidId { what: "a parameter name", value: name }));
            }
            let kind = ParameterKind::ALL.into_iter().find(|known| known.as_str() == raw.kind.get_ref());
            let Some(kind) = kind else {
                let value = raw.kind.get_ref().clone();
                let problem = Problem::UnknownKind { rule: rule.to_owned(), name, value };
                return Err(self.error(&raw.kind, problem));
            };
            let bound = |bound: &Option<Spanned<f64>>, default| {
                bound.as_ref().map_or(default, |bound| *bound.get_ref())
            };
            let parameter = Parameter {
                name,
                kind,
                value: *raw.value.get_ref(),
                min: bound(&raw.min, 0.0),
                max: bound(&raw.max, kind.most()),
            };
            parameter.checked(rule).map_err(|(key, problem)| {
                let at = match key {
                    "min" => raw.min.as_ref(),
                    "max" => raw.max.as_ref(),
                    _ => None,
                };
                self.error(at.unwrap_or(&raw.value), problem)
            })
        };
        raw.into_iter().map(build).collect()
    }
}

/// The texts of one rule, on their way from the file to the parameters' values.
struct Texts<'a> {
    source: &'a Source<'a>,
    rule: &'a str,
    parameters: &'a [Parameter],
    /// Those of the statements so far.
    statements: Vec<Template>,
}

impl Texts<'_> {
    /// Reads `text`, the trimmed content of `at`.
    fn template(&self, at: &Spanned<String>, text: &str) -> Result<Template> {
        let (rule, text) = (self.rule.to_owned(), text.to_owned());
        let template = match Template::parse(&text) {
            Ok(template) => template,
            Err(problem) => return Err(self.source.error(at, Problem::Brace { rule, text, problem })),
        };
        let known: Vec<String> = self.parameters.iter().map(|known| known.name.clone()).collect();
        let unknown = template.names().find(|name| !known.iter().any(|known| known == name));
        let Some(name) = unknown.map(str::to_owned) else { return Ok(template) };
        let nearest = nearest(&name, known.iter().map(String::as_str)).map(str::to_owned);
        Err(self.source.error(at, Problem::UnknownParameter { rule, name, nearest, known }))
    }

    fn chain(&mut self, link: &'static str, raw: Vec<Spanned<RawPrecondition>>) -> Result<Vec<Precondition>> {
        raw.into_iter()
            .map(|precondition| {
                if precondition.get_ref().any.is_empty() {
                    let problem = Problem::EmptyPrecondition { rule: self.rule.to_owned(), link };
                    return Err(self.source.error(&precondition, problem));
                }
                self.precondition(link, precondition.into_inner())
            })
            .collect()
    }

    fn precondition(&mut self, link: &'static str, raw: RawPrecondition) -> Result<Precondition> {
        let mut any = Vec::with_capacity(raw.any.len());
        for statement in raw.any {
            let text = statement.statement.get_ref().trim().to_owned();
            if text.is_empty() {
                let problem = Problem::EmptyStatement { rule: self.rule.to_owned(), link };
                return Err(self.source.error(&statement.statement, problem));
            }
            let template = self.template(&statement.statement, &text)?;
            self.statements.push(template);
            let mut central = Vec::with_capacity(statement.central.len());
            for word in statement.central {
                let trimmed = word.get_ref().trim().to_owned();
                if trimmed.is_empty() {
                    let problem = Problem::EmptyCentralWord { rule: self.rule.to_owned(), statement: text };
                    return Err(self.source.error(&word, problem));
                }
                if !central.contains(&trimmed) {
                    central.push(trimmed);
                }
            }
            any.push(Statement { text, central });
        }
        Ok(Precondition { any })
    }
}

/// The error for `key`, with the most similar known key if at least half of it is alike.
fn unknown_key(key: &str, shape: &Shape) -> Problem {
    let known: Vec<&'static str> = shape.keys.iter().map(|(known, _)| *known).collect();
    Problem::UnknownKey {
        key: key.to_owned(),
        place: shape.place,
        nearest: nearest(key, known.iter().copied()),
        known,
    }
}
