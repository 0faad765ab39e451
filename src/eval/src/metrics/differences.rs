//! What one method has over another on the same rows.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measures::{FIGURES, Judged, Rates, clusters, rule_counts, sum};
use super::{Bootstrap, Confusion, Interval};

/// One figure of a method less that of another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// The difference; above 0 where the first method has more.
    pub value: f64,
    /// Its 95 % interval by the paired bootstrap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
}

impl Difference {
    /// Whether the interval lies on one side of 0.
    pub fn is_clear(&self) -> bool {
        self.interval.is_some_and(|[low, high]| low > 0.0 || high < 0.0)
    }
}

/// The figures of a method less those of another, by name; those that both have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Differences {
    /// Safe or unsafe.
    pub image_level: BTreeMap<&'static str, Difference>,
    /// Every labelled rule on every row; empty where one of them names none.
    pub rule_level: BTreeMap<&'static str, Difference>,
}

/// What `first` has over `second`: the same rows in the same order.
pub fn differences(
    first: &[Judged<'_>],
    second: &[Judged<'_>],
    rules: &[String],
    bootstrap: Bootstrap,
) -> Differences {
    let clusters = clusters(first);
    let counted = |count: &dyn Fn(&Judged<'_>) -> Confusion| -> Vec<(Confusion, Confusion)> {
        let of = |judged: &[Judged<'_>], rows: &[usize]| {
            sum(&rows.iter().filter_map(|row| judged.get(*row)).map(count).collect::<Vec<_>>())
        };
        clusters.iter().map(|rows| (of(first, rows), of(second, rows))).collect()
    };
    let names = |judged: &[Judged<'_>]| judged.iter().any(|row| row.names_rules(rules));
    Differences {
        image_level: of(&counted(&|row| row.image_level()), bootstrap),
        rule_level: if names(first) && names(second) {
            of(&counted(&|row| rule_counts(row, rules)), bootstrap)
        } else {
            BTreeMap::new()
        },
    }
}

fn of(clusters: &[(Confusion, Confusion)], bootstrap: Bootstrap) -> BTreeMap<&'static str, Difference> {
    let (firsts, seconds): (Vec<Confusion>, Vec<Confusion>) = clusters.iter().copied().unzip();
    let (first, second) = (Rates::of(sum(&firsts)), Rates::of(sum(&seconds)));
    let intervals = bootstrap.differences(clusters, FIGURES.map(|(_, figure)| figure));
    let known = FIGURES.iter().enumerate().filter_map(|(index, (name, _))| {
        let value = first.figure(name)? - second.figure(name)?;
        Some((*name, Difference { value, interval: intervals.map(|intervals| intervals[index]) }))
    });
    known.collect()
}
