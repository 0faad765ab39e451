//! What differs between two constitutions, rule by rule.

use serde::Serialize;
use serde_json::{Map, Value};
use similar::{Algorithm, ChangeTag, DiffTag, TextDiff, capture_diff_slices};

use crate::parameter::Parameter;
use crate::rule::{Constitution, Precondition, Rule};

/// A text before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TextChange {
    /// Before.
    pub from: String,
    /// After.
    pub to: String,
}

/// A value before and after; none where there was or is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ValueChange {
    /// The key, or a parameter's name.
    pub name: String,
    /// Before.
    pub from: Option<String>,
    /// After.
    pub to: Option<String>,
}

/// What became of a link, a word, or a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// In both.
    Same,
    /// In the first only.
    Removed,
    /// In the second only.
    Added,
}

/// A part of something, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// What became of it.
    pub kind: Kind,
    /// The link, or the words.
    pub text: String,
}

/// A rule that is not the same in both.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum RuleDifference {
    /// In the second only.
    Added(Box<Rule>),
    /// In the first only.
    Removed(Box<Rule>),
    /// In both, and different.
    Changed(Box<RuleChange>),
}

/// How a rule changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleChange {
    /// Its id.
    pub id: String,
    /// Its text, parameters in their places.
    pub text: Option<TextChange>,
    /// Severity, objectiveness and whatever else is one value.
    pub values: Vec<ValueChange>,
    /// Its parameters.
    pub parameters: Vec<ValueChange>,
    /// Every link of its chain, if that changed.
    pub precondition: Vec<Piece>,
    /// Every link of its exception, if that changed.
    pub unless: Vec<Piece>,
}

/// What differs between two constitutions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The name.
    pub name: Option<TextChange>,
    /// The description.
    pub description: Option<TextChange>,
    /// The thresholds, and the lints that are set aside.
    pub values: Vec<ValueChange>,
    /// Rules that differ: in the order of the second constitution, then those that it lacks.
    pub rules: Vec<RuleDifference>,
    /// Whether the rules that both have stand in another order.
    pub reordered: bool,
}

impl Difference {
    /// What has to change in `from` to make `to` of it.
    pub fn between(from: &Constitution, to: &Constitution) -> Self {
        let mut rules = Vec::new();
        for rule in to.rules() {
            match from.rule(&rule.id) {
                None => rules.push(RuleDifference::Added(Box::new(rule.clone()))),
                Some(before) if before == rule => {}
                Some(before) => rules.extend(RuleChange::between(before, rule)),
            }
        }
        let removed = from.rules().iter().filter(|rule| to.rule(&rule.id).is_none());
        rules.extend(removed.map(|rule| RuleDifference::Removed(Box::new(rule.clone()))));
        let common = |of: &Constitution, other: &Constitution| -> Vec<String> {
            let ids = of.rules().iter().map(|rule| rule.id.clone());
            ids.filter(|id| other.rule(id).is_some()).collect()
        };
        let mut values = value_changes(&object(from.thresholds()), &object(to.thresholds()), &[]);
        values.extend(value_changes(&allowed(from.allow()), &allowed(to.allow()), &[]));
        Self {
            name: text_change(from.name(), to.name()),
            description: text_change(from.description(), to.description()),
            values,
            rules,
            reordered: common(from, to) != common(to, from),
        }
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        let Self { name, description, values, rules, reordered } = self;
        name.is_none() && description.is_none() && values.is_empty() && rules.is_empty() && !reordered
    }
}

impl RuleChange {
    /// None if only what was written differs and not what it says.
    fn between(from: &Rule, to: &Rule) -> Option<RuleDifference> {
        const TOLD_APART: [&str; 5] = ["id", "text", "preconditions", "unless", "parameters"];
        let parameters = |rule: &Rule| -> Map<String, Value> {
            rule.parameters.iter().map(|one| (one.name.clone(), Value::from(described(one)))).collect()
        };
        let change = Self {
            id: to.id.clone(),
            text: text_change(&from.text, &to.text),
            values: value_changes(&object(from), &object(to), &TOLD_APART),
            parameters: value_changes(&parameters(from), &parameters(to), &[]),
            precondition: links(&from.preconditions, &to.preconditions),
            unless: links(&from.unless, &to.unless),
        };
        let Self { text, values, parameters, precondition, unless, .. } = &change;
        let same = text.is_none()
            && [values, parameters].into_iter().all(Vec::is_empty)
            && [precondition, unless].into_iter().all(Vec::is_empty);
        (!same).then(|| RuleDifference::Changed(Box::new(change)))
    }
}

fn described(parameter: &Parameter) -> String {
    let Parameter { kind, value, min, max, .. } = parameter;
    format!("{value} ({}, {min} to {max})", kind.as_str())
}

fn allowed(names: &[String]) -> Map<String, Value> {
    let names = names.join(", ");
    if names.is_empty() {
        Map::new()
    } else {
        [("allow".to_owned(), Value::from(names))].into_iter().collect()
    }
}

/// A value as a JSON object, through text, so that 32-bit numbers keep their short form.
fn object(value: &impl Serialize) -> Map<String, Value> {
    let text = serde_json::to_string(value).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn value_changes(from: &Map<String, Value>, to: &Map<String, Value>, skip: &[&str]) -> Vec<ValueChange> {
    let written = |value: Option<&Value>| match value {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
    };
    let mut names: Vec<&String> =
        from.keys().chain(to.keys().filter(|name| !from.contains_key(*name))).collect();
    names.retain(|name| !skip.contains(&name.as_str()));
    let change = |name: &String| {
        let (from, to) = (written(from.get(name)), written(to.get(name)));
        (from != to).then(|| ValueChange { name: name.clone(), from, to })
    };
    names.into_iter().filter_map(change).collect()
}

fn text_change(from: &str, to: &str) -> Option<TextChange> {
    (from != to).then(|| TextChange { from: from.to_owned(), to: to.to_owned() })
}

/// A link in one line: `[a dog is visible (dog)] or [a cat is visible (cat)]`, central words in parentheses.
pub fn link_text(link: &Precondition) -> String {
    let statement = |statement: &crate::Statement| match statement.central.as_slice() {
        [] => format!("[{}]", statement.text),
        central => format!("[{} ({})]", statement.text, central.join(", ")),
    };
    link.any.iter().map(statement).collect::<Vec<_>>().join(" or ")
}

/// Every link of two chains, if they differ.
fn links(from: &[Precondition], to: &[Precondition]) -> Vec<Piece> {
    let texts = |chain: &[Precondition]| chain.iter().map(link_text).collect::<Vec<_>>();
    let (from, to) = (texts(from), texts(to));
    if from == to {
        return Vec::new();
    }
    let pieces = |kind, texts: &[String]| {
        texts.iter().map(|text| Piece { kind, text: text.clone() }).collect::<Vec<_>>()
    };
    capture_diff_slices(Algorithm::Myers, &from, &to)
        .iter()
        .flat_map(|step| {
            let (old, new) = (&from[step.old_range()], &to[step.new_range()]);
            match step.tag() {
                DiffTag::Equal => pieces(Kind::Same, old),
                _ => [pieces(Kind::Removed, old), pieces(Kind::Added, new)].concat(),
            }
        })
        .collect()
}

impl TextChange {
    /// The change word by word; what is not removed makes the text after, what is not added the one before.
    pub fn words(&self) -> Vec<Piece> {
        let diff = TextDiff::from_words(&self.from, &self.to);
        let mut pieces: Vec<Piece> = Vec::new();
        for change in diff.iter_all_changes() {
            let kind = match change.tag() {
                ChangeTag::Equal => Kind::Same,
                ChangeTag::Delete => Kind::Removed,
                ChangeTag::Insert => Kind::Added,
            };
            match pieces.last_mut() {
                Some(last) if last.kind == kind => last.text.push_str(change.value()),
                _ => pieces.push(Piece { kind, text: change.value().to_owned() }),
            }
        }
        pieces
    }
}
