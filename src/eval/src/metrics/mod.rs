//! From answers to figures: counts, rates, what they are worth, and where the errors are.

mod bootstrap;
mod confusion;
mod curve;
mod differences;
mod histogram;
mod measures;
pub mod scores;
#[cfg(test)]
mod tests;

pub use bootstrap::{Bootstrap, Interval};
pub use confusion::Confusion;
pub use curve::{CurvePoint, best, curve};
pub use differences::{Difference, Differences, differences};
pub use histogram::{Histogram, ScoreKind, histogram};
pub use measures::{
    FIGURES, Group, Grouping, Judged, Measures, MistakenRule, NamedPolicy, PairMeasures, Rates, Said, Scan,
    measure,
};
