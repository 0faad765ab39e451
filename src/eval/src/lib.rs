//! Measures how well pictures are judged: data sets, methods, what they say, and figures.
//!
//! A [`DataSet`](data::DataSet) gives labelled pictures, a [`Method`](methods::Method) says of each whether it is
//! unsafe, [`Results`](results::Results) keep what was said on disk, and [`measure`](metrics::measure) counts it, now or
//! from the [record](record) of an earlier run. Every step gives the same bytes whenever it is done again with the same models.

pub mod ablation;
pub mod build;
pub mod costs;
pub mod data;
pub mod journal;
pub mod methods;
pub mod metrics;
pub mod osbench;
pub mod outcome;
pub mod previews;
pub mod prompts;
pub mod record;
pub mod report;
pub mod results;
pub mod run;
pub mod scenes;
pub mod worst;
