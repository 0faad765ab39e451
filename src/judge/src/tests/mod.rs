//! Tests of the judge over scripted models.

mod caches;
mod failures;
mod lines;
mod literal;
mod prompts;
mod properties;
mod reports;
mod support;
