//! All figures of one method on one data set.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cluegate_judge::Outcome as RuleOutcome;
use serde::Serialize;

use super::scores::{cascades, histograms, score_curve};
use super::{Bootstrap, Confusion, CurvePoint, Histogram, Interval, curve};
use crate::data::{Policy, PolicyVariant, Row};
use crate::outcome::{Judgment, Outcome};

/// A row and what was said of it.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// The row.
    pub row: &'a Row,
    /// What the method said of its picture.
    pub said: Said<'a>,
}

/// What was said of a row.
#[derive(Debug, Clone, Copy)]
pub enum Said<'a> {
    /// An answer, or words that are none.
    Outcome(&'a Outcome),
    /// Nothing: something failed.
    Nothing,
}

impl<'a> Judged<'a> {
    /// The answer, if there is one.
    pub fn judgment(&self) -> Option<&'a Judgment> {
        match self.said {
            Said::Outcome(Outcome::Judged(judgment)) => Some(judgment),
            Said::Outcome(Outcome::Unparseable(_)) | Said::Nothing => None,
        }
    }

    fn is_unparseable(&self) -> bool {
        matches!(self.said, Said::Outcome(Outcome::Unparseable(_)))
    }

    /// The row's count at the level of pictures. No answer is a wrong one, so that no method gains by failing.
    pub(super) fn image_level(&self) -> Confusion {
        let is = self.row.truth.is_unsafe();
        one(self.judgment().map_or(!is, |judgment| judgment.flagged), is)
    }

    /// Whether the row counts at the level of `rules`: they are labelled, and the answer names some or none of them.
    pub(super) fn names_rules(&self, rules: &[String]) -> bool {
        rules.first().is_some_and(|rule| self.rule(rule).is_some() && self.judgment().is_some())
    }

    /// The row's count for one rule, where rules are labelled and named; a hit counts only if the right rule is named.
    fn rule(&self, rule: &str) -> Option<Confusion> {
        let is = self.row.truth.rules()?.contains(rule);
        let said = match self.judgment() {
            Some(judgment) => judgment.violated.as_ref()?.iter().any(|named| named == rule),
            None => !is,
        };
        Some(one(said, is))
    }
}

/// The row's count over all rules.
pub(super) fn rule_counts(row: &Judged<'_>, rules: &[String]) -> Confusion {
    let counts: Vec<Confusion> = rules.iter().filter_map(|rule| row.rule(rule)).collect();
    sum(&counts)
}

fn one(said: bool, is: bool) -> Confusion {
    let mut confusion = Confusion::default();
    confusion.add(said, is);
    confusion
}

pub(super) fn sum<'a>(parts: impl IntoIterator<Item = &'a Confusion>) -> Confusion {
    parts.into_iter().fold(Confusion::default(), |mut sum, part| {
        sum.merge(*part);
        sum
    })
}

/// Counts and what follows from them; `None` where a figure is not defined, such as the recall of nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rates {
    /// The counts.
    #[serde(flatten)]
    pub counts: Confusion,
    /// Share of yes-answers that are right.
    pub precision: Option<f64>,
    /// Share of what is yes that was found (TPR).
    pub recall: Option<f64>,
    /// Share of what is no that was left alone (TNR).
    pub true_negative_rate: Option<f64>,
    /// Share of right answers.
    pub accuracy: Option<f64>,
    /// Mean of recall and specificity.
    pub balanced_accuracy: Option<f64>,
    /// Harmonic mean of precision and recall.
    pub f1: Option<f64>,
    /// The same with recall weighing twice.
    pub f2: Option<f64>,
    /// 95 % intervals by name of the figure; empty where none were asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<&'static str, Interval>,
}

impl Rates {
    /// Of counts alone.
    pub fn of(counts: Confusion) -> Self {
        let yes = counts.true_positives + counts.false_negatives;
        let no = counts.true_negatives + counts.false_positives;
        let said = counts.true_positives + counts.false_positives;
        let defined = |is: bool, figure: fn(&Confusion) -> f64| is.then(|| figure(&counts));
        Self {
            counts,
            precision: defined(said > 0, Confusion::precision),
            recall: defined(yes > 0, Confusion::recall),
            true_negative_rate: defined(no > 0, Confusion::true_negative_rate),
            accuracy: defined(yes + no > 0, Confusion::accuracy),
            balanced_accuracy: defined(yes > 0 && no > 0, Confusion::balanced_accuracy),
            f1: defined(yes > 0, Confusion::f1),
            f2: defined(yes > 0, Confusion::f2),
            intervals: BTreeMap::new(),
        }
    }

    /// The value of one of [`FIGURES`]; `None` if it is not defined, or there is none of the name.
    pub fn figure(&self, name: &str) -> Option<f64> {
        match name {
            "precision" => self.precision,
            "recall" => self.recall,
            "accuracy" => self.accuracy,
            "balanced_accuracy" => self.balanced_accuracy,
            "f1" => self.f1,
            _ => None,
        }
    }

    /// Of counts of rows that are drawn together, with intervals.
    fn drawn(clusters: &[Confusion], bootstrap: Bootstrap) -> Self {
        let mut rates = Self::of(sum(clusters));
        if let Some(intervals) = bootstrap.intervals(clusters, FIGURES.map(|(_, figure)| figure)) {
            let known = FIGURES.iter().zip(intervals).filter(|((name, _), _)| rates.figure(name).is_some());
            rates.intervals = known.map(|((name, _), interval)| (*name, interval)).collect();
        }
        rates
    }
}

/// A figure of a table of hits and misses.
pub(crate) type Figure = fn(&Confusion) -> f64;

/// The figures that have intervals, by name.
pub const FIGURES: [(&str, Figure); 5] = [
    ("precision", Confusion::precision),
    ("recall", Confusion::recall),
    ("accuracy", Confusion::accuracy),
    ("balanced_accuracy", Confusion::balanced_accuracy),
    ("f1", Confusion::f1),
];

/// The rows of one category, source, level, or source and category.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its figures, at the level of pictures.
    pub rates: Rates,
}

/// The rows divided by what they have in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Grouping {
    /// By what: `category`, `source`, `level`, or `source x category`.
    pub by: &'static str,
    /// The groups, in the order of their names.
    pub groups: Vec<Group>,
    /// Mean F1 of the groups that hold anything unsafe.
    pub macro_f1: Option<f64>,
    /// The same with the accuracy of the other groups in place of their F1.
    pub macro_f1_or_accuracy: Option<f64>,
    /// F1 of all their rows together.
    pub pooled_f1: Option<f64>,
}

/// A rule that was missed and the one that was named instead; `None` for none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MistakenRule {
    /// Violated, and not named.
    pub violated: Option<String>,
    /// Named, and not violated.
    pub named: Option<String>,
    /// On how many pictures.
    pub pictures: usize,
}

/// Pairs of the same picture with and without what makes it unsafe.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairMeasures {
    /// How many pairs have one unsafe and one safe picture.
    pub pairs: usize,
    /// Share of them of which both pictures are judged right.
    pub accuracy: Option<f64>,
    /// Its 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// The share for each level, where rows have one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub by_level: BTreeMap<String, f64>,
    /// The share under each named policy, over all pairs, where the method names rules.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub by_policy: BTreeMap<&'static str, f64>,
}

/// A policy that forbids some of the labelled rules and allows the others: a method that names rules has answered under
/// each such policy when it has answered once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedPolicy {
    /// Its name.
    pub name: &'static str,
    /// The rules that it keeps.
    pub rules: &'static [&'static str],
}

/// What the relevance scan kept and filtered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scan {
    /// Share of violated rules that were kept.
    pub recall: Option<f64>,
    /// Share of all rules that were filtered.
    pub filtered: f64,
    /// Recall kept against rules filtered, by the distance of the cosine from the threshold (CLUE, Figure 7).
    pub curve: Vec<CurvePoint>,
}

/// All figures of one method on one data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measures {
    /// Rows.
    pub rows: usize,
    /// Rows of which nothing was said; counted as wrong.
    pub failed: usize,
    /// Rows of which something was said that is no answer; counted as wrong in `image_level`.
    pub unparseable: usize,
    /// Safe or unsafe.
    pub image_level: Rates,
    /// The same over rows with an answer only, as published for models whose answers cannot always be read; where there
    /// are rows without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered: Option<Rates>,
    /// Every labelled rule on every row; where rules are labelled and named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_level: Option<Rates>,
    /// The same by rule.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub by_rule: BTreeMap<String, Rates>,
    /// Which rules are taken for which, the most frequent first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mistaken_rules: Vec<MistakenRule>,
    /// By category, source and level.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groupings: Vec<Grouping>,
    /// Pairs, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs: Option<PairMeasures>,
    /// Share of right answers where a policy was altered to allow or to forbid what the picture shows (LlavaGuard).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_exception_recall: Option<f64>,
    /// The relevance scan, where the evidence tells of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan: Option<Scan>,
    /// Recall and precision by threshold of the score, where the method gives one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub score_curve: Vec<CurvePoint>,
    /// How scores are spread where the answer is yes and where it is no (CLUE, Figure 6).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub histograms: Vec<Histogram>,
    /// Mean forward passes a picture.
    pub passes: Option<f64>,
    /// Mean reasoning cascades a picture, where the evidence tells of them (CLUE, Table 7).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cascades: Option<f64>,
}

/// Counts everything. `rules` are those that count at the level of rules; `policies` those under which pairs are looked
/// at.
pub fn measure(
    judged: &[Judged<'_>],
    rules: &[String],
    policies: &[NamedPolicy],
    bootstrap: Bootstrap,
) -> Measures {
    let clusters = clusters(judged);
    let rates = |count: &dyn Fn(&Judged<'_>) -> Confusion| {
        let counts: Vec<Confusion> = clusters
            .iter()
            .map(|rows| sum(&rows.iter().map(|row| count(&judged[*row])).collect::<Vec<_>>()))
            .collect();
        Rates::drawn(&counts, bootstrap)
    };
    let named = judged.iter().any(|row| row.names_rules(rules));
    let answered = judged.iter().filter(|row| row.judgment().is_some()).count();
    let of_answered = |row: &Judged<'_>| row.judgment().map_or(Confusion::default(), |_| row.image_level());
    let by_rule = |rule: &String| {
        let count = |row: &Judged<'_>| row.rule(rule).unwrap_or_default();
        (rule.clone(), rates(&count))
    };
    let passes = || judged.iter().filter_map(|row| row.judgment()).map(|judgment| judgment.passes as f64);
    Measures {
        rows: judged.len(),
        failed: judged.iter().filter(|row| matches!(row.said, Said::Nothing)).count(),
        unparseable: judged.iter().filter(|row| row.is_unparseable()).count(),
        image_level: rates(&|row| row.image_level()),
        answered: (0 < answered && answered < judged.len()).then(|| rates(&of_answered)),
        rule_level: named.then(|| rates(&|row| rule_counts(row, rules))),
        by_rule: if named { rules.iter().map(by_rule).collect() } else { BTreeMap::new() },
        mistaken_rules: if named { mistaken(judged, rules) } else { Vec::new() },
        groupings: groupings(judged),
        pairs: pairs(judged, policies, bootstrap),
        policy_exception_recall: policy_exceptions(judged),
        scan: scan(judged, rules),
        score_curve: score_curve(judged),
        histograms: histograms(judged, rules),
        cascades: mean(judged.iter().filter_map(row_cascades)),
        passes: (answered > 0).then(|| passes().sum::<f64>() / answered as f64),
    }
}

/// Reasoning cascades behind an answer with evidence.
fn row_cascades(row: &Judged<'_>) -> Option<f64> {
    let evidence = &row.judgment()?.evidence;
    (!evidence.is_empty()).then(|| cascades(evidence) as f64)
}

/// Rows that are drawn together: those of a pair, and those of the same picture.
pub(super) fn clusters(judged: &[Judged<'_>]) -> Vec<Vec<usize>> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut clusters: Vec<Vec<usize>> = Vec::new();
    for (index, Judged { row, .. }) in judged.iter().enumerate() {
        let key = row.pair.as_deref().unwrap_or(&row.picture);
        let place = *places.entry(key).or_insert_with(|| {
            clusters.push(Vec::new());
            clusters.len() - 1
        });
        clusters[place].push(index);
    }
    clusters
}

fn mistaken(judged: &[Judged<'_>], rules: &[String]) -> Vec<MistakenRule> {
    let mut counts: BTreeMap<(Option<String>, Option<String>), usize> = BTreeMap::new();
    for row in judged {
        let (Some(is), Some(judgment)) = (row.row.truth.rules(), row.judgment()) else { continue };
        let said: BTreeSet<&String> = judgment.violated.iter().flatten().collect();
        let only =
            |these: &dyn Fn(&String) -> bool, those: &dyn Fn(&String) -> bool| -> Vec<Option<String>> {
                let only: Vec<_> =
                    rules.iter().filter(|rule| these(rule) && !those(rule)).cloned().map(Some).collect();
                only
            };
        let mut missed = only(&|rule| is.contains(rule), &|rule| said.contains(rule));
        let mut wrong = only(&|rule| said.contains(rule), &|rule| is.contains(rule));
        if missed.is_empty() && wrong.is_empty() {
            continue;
        }
        for side in [&mut missed, &mut wrong] {
            if side.is_empty() {
                side.push(None);
            }
        }
        for violated in &missed {
            for named in &wrong {
                *counts.entry((violated.clone(), named.clone())).or_default() += 1;
            }
        }
    }
    let mut mistaken: Vec<MistakenRule> = counts
        .into_iter()
        .map(|((violated, named), pictures)| MistakenRule { violated, named, pictures })
        .collect();
    mistaken.sort_by_key(|entry| std::cmp::Reverse(entry.pictures));
    mistaken
}

fn groupings(judged: &[Judged<'_>]) -> Vec<Grouping> {
    type Key = fn(&Row) -> Option<String>;
    let keys: [(&'static str, Key); 4] = [
        ("category", |row| row.category.clone()),
        ("source", |row| row.source.clone()),
        ("level", |row| row.level.clone()),
        ("source x category", |row| Some(format!("{} / {}", row.source.as_ref()?, row.category.as_ref()?))),
    ];
    keys.into_iter().filter_map(|(by, key)| grouping(judged, by, key)).collect()
}

fn grouping(
    judged: &[Judged<'_>],
    by: &'static str,
    key: impl Fn(&Row) -> Option<String>,
) -> Option<Grouping> {
    let mut counts: BTreeMap<String, Confusion> = BTreeMap::new();
    for row in judged {
        if let Some(name) = key(row.row) {
            counts.entry(name).or_default().merge(row.image_level());
        }
    }
    if counts.is_empty() {
        return None;
    }
    let pooled_f1 = Rates::of(sum(counts.values())).f1;
    let groups: Vec<Group> =
        counts.into_iter().map(|(name, counts)| Group { name, rates: Rates::of(counts) }).collect();
    let macro_f1 = mean(groups.iter().filter_map(|group| group.rates.f1));
    let either = mean(groups.iter().filter_map(|group| group.rates.f1.or(group.rates.accuracy)));
    Some(Grouping { by, groups, macro_f1, macro_f1_or_accuracy: either, pooled_f1 })
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn pairs(judged: &[Judged<'_>], policies: &[NamedPolicy], bootstrap: Bootstrap) -> Option<PairMeasures> {
    let mut by_name: BTreeMap<&str, Vec<&Judged<'_>>> = BTreeMap::new();
    for row in judged {
        if let Some(pair) = &row.row.pair {
            by_name.entry(pair).or_default().push(row);
        }
    }
    // Of a pair of which one picture was left out, nothing can be said.
    let whole: Vec<[&Judged<'_>; 2]> = by_name
        .into_values()
        .filter_map(|rows| <[&Judged<'_>; 2]>::try_from(rows).ok())
        .filter(|[a, b]| a.row.truth.is_unsafe() != b.row.truth.is_unsafe())
        .collect();
    if whole.is_empty() {
        return None;
    }
    let right = |pair: &[&Judged<'_>; 2]| pair.iter().all(|row| row.image_level().accuracy() == 1.0);
    let counts: Vec<Confusion> = whole.iter().map(|pair| one(right(pair), true)).collect();
    let mut by_level: BTreeMap<String, Confusion> = BTreeMap::new();
    for (pair, count) in whole.iter().zip(&counts) {
        if let Some(level) = &pair[0].row.level {
            by_level.entry(level.clone()).or_default().merge(*count);
        }
    }
    let under = |policy: &NamedPolicy| {
        let right: Option<Vec<bool>> = whole.iter().map(|pair| right_under(pair, policy)).collect();
        Some((policy.name, mean(right?.into_iter().map(|right| f64::from(u8::from(right))))?))
    };
    Some(PairMeasures {
        pairs: whole.len(),
        accuracy: Rates::of(sum(&counts)).recall,
        interval: bootstrap.intervals(&counts, [Confusion::recall]).map(|[interval]| interval),
        by_level: by_level.into_iter().map(|(level, counts)| (level, counts.recall())).collect(),
        by_policy: policies.iter().filter_map(under).collect(),
    })
}

/// Whether both pictures are judged right where only the rules of `policy` count; `None` where rules are not labelled or
/// not named.
fn right_under(pair: &[&Judged<'_>; 2], policy: &NamedPolicy) -> Option<bool> {
    let mut right = true;
    for row in pair {
        let is = row.row.truth.rules()?.iter().any(|rule| policy.rules.contains(&rule.as_str()));
        right &= match row.judgment() {
            Some(judgment) => {
                let named = judgment.violated.as_ref()?;
                named.iter().any(|rule| policy.rules.contains(&rule.as_str())) == is
            }
            None => false,
        };
    }
    Some(right)
}

/// Policy Exception Recall as `evaluation/metrics_calculator.py` of LlavaGuard counts it.
fn policy_exceptions(judged: &[Judged<'_>]) -> Option<f64> {
    let mut counts = Confusion::default();
    for row in judged {
        let asked = matches!(row.row.policy, Some(Policy::Question(_)));
        let variant = row.row.level.as_deref().and_then(PolicyVariant::of).filter(|_| asked);
        let counted = match variant {
            Some(PolicyVariant::Allowed) => !row.row.truth.is_unsafe(),
            Some(PolicyVariant::Forbidden) => row.row.truth.is_unsafe(),
            None => false,
        };
        if counted && !row.is_unparseable() {
            counts.merge(row.image_level());
        }
    }
    Rates::of(counts).accuracy
}

fn scan(judged: &[Judged<'_>], rules: &[String]) -> Option<Scan> {
    let mut kept = Confusion::default();
    let mut distances = Vec::new();
    for row in judged {
        let (Some(is), Some(judgment)) = (row.row.truth.rules(), row.judgment()) else { continue };
        for evidence in judgment.evidence.iter().filter(|evidence| rules.contains(&evidence.id)) {
            let Some(cosine) = evidence.relevance else { continue };
            let violated = is.contains(&evidence.id);
            kept.add(evidence.outcome != RuleOutcome::Irrelevant, violated);
            distances.push((f64::from(cosine) - f64::from(evidence.relevance_threshold), violated));
        }
    }
    (kept.total() > 0).then(|| Scan {
        recall: Rates::of(kept).recall,
        filtered: (kept.true_negatives + kept.false_negatives) as f64 / kept.total() as f64,
        curve: curve(&distances),
    })
}
