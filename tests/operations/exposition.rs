//! The text format of Prometheus, read strictly (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::collections::{BTreeMap, BTreeSet};

/// A metric with its series.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) help: String,
    pub(crate) kind: String,
    pub(crate) samples: Vec<Sample>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Family {
    /// The sum of all series that have these labels.
    pub(crate) fn sum(&self, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            labels.iter().all(|(name, value)| sample.labels.get(*name).is_some_and(|own| own == value))
        };
        self.samples.iter().filter(has).map(|sample| sample.value).sum()
    }
}

/// Reads a scrape, and refuses whatever Prometheus or `promtool check metrics` would complain of.
pub(crate) fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line has no end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            let (what, rest) = comment.split_once(' ').expect("a comment of two words");
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            assert!(is_name(name), "{line}");
            if current != name {
                assert!(!families.contains_key(name), "{name} is in two places");
                current = name.to_owned();
            }
            let family = families.entry(current.clone()).or_default();
            assert!(family.samples.is_empty(), "{line} behind its samples");
            let field = if what == "HELP" { &mut family.help } else { &mut family.kind };
            assert!(["HELP", "TYPE"].contains(&what) && field.is_empty() && !rest.is_empty(), "{line}");
            *field = rest.to_owned();
        } else {
            let sample = sample(line);
            let family = families.get_mut(&current).unwrap_or_else(|| panic!("{line} without a type"));
            let ending =
                sample.name.strip_prefix(&*current).unwrap_or_else(|| panic!("{line} below {current}"));
            let endings: &[&str] =
                if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(endings.contains(&ending), "{line}");
            let again =
                family.samples.iter().any(|own| own.name == sample.name && own.labels == sample.labels);
            assert!(!again, "{line} twice");
            family.samples.push(sample);
        }
    }
    families.iter().for_each(|(name, family)| lint(name, family));
    families
}

fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn sample(line: &str) -> Sample {
    let split = line.find(['{', ' ']).expect("a value");
    let (name, mut rest) = line.split_at(split);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, tail) = rest.split_once("=\"").expect("a label");
            assert!(is_name(label) && !label.starts_with("__"), "{line}");
            let (value, tail) = quoted(tail);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}: {label} twice");
            if let Some(tail) = tail.strip_prefix(',') {
                rest = tail;
            } else {
                rest = tail.strip_prefix('}').expect("the end of the labels");
                break;
            }
        }
    }
    let value = rest.strip_prefix(' ').expect("a blank before the value");
    // No time stamp follows.
    let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
    Sample { name: name.to_owned(), labels, value }
}

/// A value up to its closing quote, and what follows.
fn quoted(text: &str) -> (String, &str) {
    let (mut value, mut characters) = (String::new(), text.char_indices());
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match characters.next().expect("an escaped character").1 {
                'n' => value.push('\n'),
                c @ ('\\' | '"') => value.push(c),
                c => panic!("\\{c} is no escape: {text}"),
            },
            c => value.push(c),
        }
    }
    panic!("no closing quote: {text}")
}

fn lint(name: &str, family: &Family) {
    assert!(!family.help.is_empty(), "{name} has no HELP");
    assert!(!family.samples.is_empty(), "{name} has no samples");
    assert_eq!(name.ends_with("_total"), family.kind == "counter", "{name} is a {}", family.kind);
    for sample in &family.samples {
        let names = sample.labels.keys().collect::<Vec<_>>();
        assert!(family.kind == "histogram" || !names.iter().any(|label| *label == "le"), "{sample:?}");
        assert!(sample.value.is_finite(), "{sample:?}");
        assert!(family.kind == "gauge" || sample.value >= 0.0, "{sample:?}");
    }
    if family.kind == "histogram" {
        histogram(name, &family.samples);
    }
}

fn histogram(name: &str, samples: &[Sample]) {
    let without = |sample: &Sample| {
        let own = sample.labels.iter().filter(|(label, _)| *label != "le");
        own.map(|(label, value)| (label.clone(), value.clone())).collect::<Vec<_>>()
    };
    let series: BTreeSet<_> = samples.iter().map(without).collect();
    for labels in series {
        let of = |ending: &str| -> Vec<&Sample> {
            let own = samples.iter().filter(|sample| without(sample) == labels);
            own.filter(|sample| sample.name == format!("{name}{ending}")).collect()
        };
        let bounds: Vec<f64> =
            of("_bucket").iter().map(|sample| sample.labels["le"].parse().expect("a bound")).collect();
        let counts: Vec<f64> = of("_bucket").iter().map(|sample| sample.value).collect();
        assert!(bounds.is_sorted() && bounds.last() == Some(&f64::INFINITY), "{name} {labels:?}: {bounds:?}");
        assert!(counts.is_sorted(), "{name} {labels:?}: {counts:?}");
        assert_eq!((of("_sum").len(), of("_count").len()), (1, 1), "{name} {labels:?}");
        assert_eq!(counts.last(), Some(&of("_count")[0].value), "{name} {labels:?}");
    }
}
