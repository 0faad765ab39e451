//! What is left of the method without one of its parts (CLUE, Tables 5 to 7), one switch each.

use std::collections::BTreeMap;

use cluegate_constitution::{Constitution, ConstitutionError};
use cluegate_judge::{Stages, TemplateError, Templates};
use serde::Serialize;
use thiserror::Error;
use toml::{Table, Value};

use crate::metrics::Difference;

/// A part of the method that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ablation {
    /// Scores are taken as they are.
    Debiasing,
    /// Scores are not compared with those without a picture.
    NoImageComparison,
    /// Scores are not compared with those without the central objects.
    RegionComparison,
    /// A rule is asked as one question, not as a chain of preconditions.
    Preconditions,
    /// Every rule is asked.
    RelevanceScan,
    /// What is undecided is decided by its score.
    Reasoning,
    /// Small objects are looked at in the whole picture.
    Crop,
    /// Rules are asked as one question in the words that they had before they were made objective.
    ObjectiveRules,
}

impl Ablation {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Debiasing,
        Self::NoImageComparison,
        Self::RegionComparison,
        Self::Preconditions,
        Self::RelevanceScan,
        Self::Reasoning,
        Self::Crop,
        Self::ObjectiveRules,
    ];

    /// The name used on the command line and in tables: what is missing.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debiasing => "no-debiasing",
            Self::NoImageComparison => "no-no-image-comparison",
            Self::RegionComparison => "no-region-comparison",
            Self::Preconditions => "no-preconditions",
            Self::RelevanceScan => "no-relevance-scan",
            Self::Reasoning => "no-reasoning",
            Self::Crop => "no-crop",
            Self::ObjectiveRules => "original-rules",
        }
    }

    /// The stages that run without it.
    pub fn stages(self) -> Stages {
        match self {
            Self::Debiasing => Stages { debias: false, ..Stages::ALL },
            Self::NoImageComparison => Stages { no_image_comparison: false, ..Stages::ALL },
            Self::RegionComparison => Stages { region_comparison: false, ..Stages::ALL },
            Self::RelevanceScan => Stages { relevance_scan: false, ..Stages::ALL },
            Self::Reasoning => Stages { reasoning: false, ..Stages::ALL },
            Self::Crop => Stages { crop: false, ..Stages::ALL },
            Self::Preconditions | Self::ObjectiveRules => Stages::ALL,
        }
    }

    /// What the paper reports of the method without this part; `None` where it gives no figure for it alone.
    pub fn reported(self) -> Option<Reported> {
        let reported = |figure, with, without, what| Some(Reported { figure, with, without, what });
        match self {
            Self::Debiasing => reported("f1", 0.879, 0.746, "F1, InternVL2-8B-AWQ"),
            Self::Preconditions => reported("f1", 0.879, 0.823, "F1, InternVL2-8B-AWQ"),
            Self::RegionComparison => reported("recall", 0.912, 0.905, "recall, InternVL2-8B-AWQ"),
            Self::ObjectiveRules => reported("accuracy", 0.98, 0.74, "accuracy of one rule"),
            Self::NoImageComparison | Self::RelevanceScan | Self::Reasoning | Self::Crop => None,
        }
    }

    /// Whether a rule is asked as one question, for which [`whole_rules`] makes the constitution and
    /// [`rule_templates`] the prompts.
    pub fn asks_whole_rules(self) -> bool {
        matches!(self, Self::Preconditions | Self::ObjectiveRules)
    }
}

/// A figure that the paper gives for the method with and without one of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Reported {
    /// Which figure, by its name in [`FIGURES`](crate::metrics::FIGURES).
    pub figure: &'static str,
    /// With the part, 0 to 1.
    pub with: f64,
    /// Without it.
    pub without: f64,
    /// What the figure is of, in words.
    pub what: &'static str,
}

impl Reported {
    /// How a difference of ours, the method without the part less the whole one, stands to the paper's.
    pub fn agrees(&self, ours: &Difference) -> Agreement {
        let same_sign = ours.value * (self.without - self.with) > 0.0;
        match (same_sign, ours.is_clear()) {
            (true, true) => Agreement::Same,
            (false, true) if ours.value != 0.0 => Agreement::Opposite,
            _ => Agreement::Unclear,
        }
    }
}

/// Whether a part matters here the way that the paper reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Agreement {
    /// In the same direction, and the interval is on one side of 0.
    Same,
    /// In the other direction, and the interval is on one side of 0.
    Opposite,
    /// The interval holds 0, or there is none.
    Unclear,
}

/// A constitution that cannot be changed as asked.
#[derive(Debug, Error)]
pub enum VariantError {
    /// The changed text is no constitution any more.
    #[error(transparent)]
    Constitution(#[from] ConstitutionError),
    /// The text is no TOML of a constitution's form.
    #[error("{file}: expected a constitution: {reason}")]
    Form {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Rules without their original words.
    #[error("there are no original words for {}; add them to the file of originals, as `id = \"words\"`", .0.join(", "))]
    NoOriginal(Vec<String>),
}

/// A constitution file: its text, and how messages call it.
#[derive(Debug, Clone, Copy)]
pub struct ConstitutionFile<'a> {
    /// The name.
    pub file: &'a str,
    /// The text.
    pub text: &'a str,
}

impl ConstitutionFile<'_> {
    /// The constitution as it stands.
    ///
    /// # Errors
    /// The text is none.
    pub fn parse(self) -> Result<Constitution, VariantError> {
        Ok(Constitution::parse(self.text, self.file)?)
    }

    /// The same with one threshold set to another value, for a sweep.
    ///
    /// # Errors
    /// The text is no constitution, there is no such threshold, or the value is out of range.
    pub fn with_threshold(self, name: &str, value: f64) -> Result<Constitution, VariantError> {
        let mut table = self.table()?;
        match table.entry("thresholds").or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(thresholds) => thresholds.insert(name.to_owned(), Value::Float(value)),
            other => return Err(self.form(format!("`thresholds` is a {}, not a table", other.type_str()))),
        };
        self.rebuilt(&table)
    }

    /// The same with each rule as one statement, its whole text: that of `originals` by rule id, or its own without
    /// them. The central objects are those of all its statements; exceptions are part of the text, and their chains are
    /// left out.
    ///
    /// # Errors
    /// The text is no constitution, or `originals` lack a rule.
    pub fn whole_rules(
        self,
        originals: Option<&BTreeMap<String, String>>,
    ) -> Result<Constitution, VariantError> {
        let built = self.parse()?;
        let mut table = self.table()?;
        let words = |id: &str, own: &str| match originals {
            Some(originals) => originals.get(id).cloned(),
            None => Some(own.to_owned()),
        };
        let missing: Vec<String> = built
            .rules()
            .iter()
            .filter(|rule| words(&rule.id, &rule.text).is_none())
            .map(|rule| rule.id.clone())
            .collect();
        if !missing.is_empty() {
            return Err(VariantError::NoOriginal(missing));
        }
        let Some(Value::Array(rules)) = table.get_mut("rule") else {
            return Err(self.form("no rules".to_owned()));
        };
        for (raw, rule) in rules.iter_mut().zip(built.rules()) {
            let Value::Table(raw) = raw else { return Err(self.form("a rule is no table".to_owned())) };
            let text = words(&rule.id, &rule.text).unwrap_or_default();
            let central = central_words(rule);
            let text = Value::String(text.replace('{', "{{").replace('}', "}}"));
            let statement = Table::from_iter([
                ("statement".to_owned(), text.clone()),
                ("central".to_owned(), Value::Array(central.into_iter().map(Value::String).collect())),
            ]);
            let link = Table::from_iter([("any".to_owned(), Value::Array(vec![Value::Table(statement)]))]);
            raw.insert("text".to_owned(), text);
            raw.insert("precondition".to_owned(), Value::Array(vec![Value::Table(link)]));
            for key in ["unless", "parameter", "consequence"] {
                raw.remove(key);
            }
        }
        self.rebuilt(&table)
    }

    fn table(self) -> Result<Table, VariantError> {
        self.text.parse().map_err(|error: toml::de::Error| self.form(error.to_string()))
    }

    fn rebuilt(self, table: &Table) -> Result<Constitution, VariantError> {
        let text = toml::to_string(table).map_err(|error| self.form(error.to_string()))?;
        Ok(Constitution::parse(&text, self.file)?)
    }

    fn form(self, reason: String) -> VariantError {
        VariantError::Form { file: self.file.to_owned(), reason }
    }
}

/// The central words of all statements of a rule, each once.
fn central_words(rule: &cluegate_constitution::Rule) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for statement in rule.preconditions.iter().flat_map(|link| &link.any) {
        for word in &statement.central {
            if !words.contains(word) {
                words.push(word.clone());
            }
        }
    }
    words
}

/// The prompts for a rule that is asked as one question: Yes means that it is violated. The first is one on which the
/// embedded judge was trained.
///
/// # Errors
/// None in practice: a test reads them.
pub fn rule_templates(templates: &Templates) -> Result<Templates, TemplateError> {
    Templates::parse(
        include_str!("../templates/rule-direct.txt"),
        include_str!("../templates/rule-thought.txt"),
        &templates.rating(""),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TEXT: &str = "name = \"two\"\n[[rule]]\nid = \"a\"\ntext = \"No more than {n} cats {{at all}}.\"\n\
        objectiveness = 9\nseverity = \"low\"\n[rule.parameter.n]\nkind = \"count\"\nvalue = 2\n\
        [[rule.precondition]]\nany = [{ statement = \"{n} cats are visible\", central = [\"cat\"] }]\n\
        [[rule.precondition]]\nany = [{ statement = \"a dog is visible\", central = [\"dog\", \"cat\"] }]\n";

    fn file() -> ConstitutionFile<'static> {
        ConstitutionFile { file: "two.toml", text: TEXT }
    }

    #[test]
    fn a_rule_becomes_one_statement() {
        let whole = file().whole_rules(None).unwrap();
        let rule = &whole.rules()[0];
        assert_eq!(rule.text, "No more than 2 cats {at all}.");
        assert_eq!((rule.preconditions.len(), rule.preconditions[0].any.len()), (1, 1));
        let statement = &rule.preconditions[0].any[0];
        assert_eq!(
            (statement.text.as_str(), statement.central.join(" ")),
            (rule.text.as_str(), "cat dog".to_owned())
        );
        let originals = BTreeMap::from([("a".to_owned(), "Not too many cats.".to_owned())]);
        let original = file().whole_rules(Some(&originals)).unwrap();
        assert_eq!(original.rules()[0].text, "Not too many cats.");
        let missing = file().whole_rules(Some(&BTreeMap::new())).unwrap_err().to_string();
        assert!(missing.contains("no original words for a"), "{missing}");
        assert!(
            [&whole, &original].iter().all(|other| other.revision() != file().parse().unwrap().revision())
        );
    }

    #[test]
    fn a_threshold_is_set_within_its_range() {
        let changed = file().with_threshold("alpha1", 0.1).unwrap();
        assert!((changed.thresholds().alpha1 - 0.1).abs() < 1e-12);
        assert!(file().with_threshold("alpha1", 7.0).is_err());
        assert!(file().with_threshold("alpha3", 0.1).unwrap_err().to_string().contains("alpha3"));
    }

    #[test]
    fn a_direction_is_said_only_of_a_clear_difference() {
        let reported = Ablation::Debiasing.reported().unwrap();
        let agrees = |value, interval| reported.agrees(&Difference { value, interval });
        assert_eq!(agrees(-0.1, Some([-0.15, -0.05])), Agreement::Same);
        assert_eq!(agrees(0.1, Some([0.05, 0.15])), Agreement::Opposite);
        assert_eq!(agrees(-0.1, Some([-0.2, 0.01])), Agreement::Unclear);
        assert_eq!(agrees(-0.1, None), Agreement::Unclear);
    }

    #[test]
    fn each_switch_leaves_out_one_thing() {
        let all: Vec<Stages> = Ablation::ALL.into_iter().map(Ablation::stages).collect();
        for (ablation, stages) in Ablation::ALL.into_iter().zip(&all) {
            assert_eq!(*stages == Stages::ALL, ablation.asks_whole_rules(), "{}", ablation.as_str());
        }
        let training = include_str!("../../mini/training/questions.py");
        let question = include_str!("../templates/rule-direct.txt").trim_end();
        assert!(training.contains(&question.replace("{{ statement }}", "{}")));
        rule_templates(&Templates::shipped().unwrap()).unwrap();
    }
}
