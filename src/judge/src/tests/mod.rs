//! Tests of the judge over scripted models.

mod caches;
mod consequences;
mod failures;
mod glance;
mod lines;
mod literal;
mod prefilter;
mod prompts;
mod properties;
mod reports;
mod support;
