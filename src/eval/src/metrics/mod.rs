//! From answers to figures: counts, rates, what they are worth, and where the errors are.

mod bootstrap;
mod confusion;
mod curve;
mod measures;
#[cfg(test)]
mod tests;

pub use bootstrap::{Bootstrap, Interval};
pub use confusion::Confusion;
pub use curve::{CurvePoint, curve};
pub use measures::{
    Group, Grouping, Judged, Measures, MistakenRule, NamedPolicy, PairMeasures, Rates, Said, Scan, measure,
};
