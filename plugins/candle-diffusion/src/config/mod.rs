//! Configuration files of a diffusers folder: parsed as they are (raw), then checked and turned into what the
//! modules are built from.
//!
//! Options that this crate does not implement are refused unless they have the value that changes nothing. An
//! option that neither diffusers 0.42.1 nor this crate knows is accepted only if it is `null` or `false`: a newer
//! version that added it would otherwise compute something else in silence.

mod flow;
mod flux;
mod scheduler;
mod sd3;
mod t5;
mod text_encoder;
mod tiny;
mod unet;
mod vae;

use std::collections::BTreeMap;

use cluegate_models::ModelError;
use serde::Deserialize;
use serde_json::Value;

pub use flow::{FlowConfig, TimeShift};
pub use flux::FluxConfig;
pub use scheduler::{BetaSchedule, NoiseConfig, PredictionType, TimestepSpacing};
pub use sd3::Sd3Config;
pub use t5::T5Config;
pub use text_encoder::{TextActivation, TextEncoderConfig};
pub use tiny::TinyConfig;
pub use unet::{AddedConfig, UNetConfig, UNetLevel};
pub use vae::VaeConfig;

pub(crate) use scheduler::RawScheduler;

/// Result of building a configuration.
pub(crate) type Result<T> = std::result::Result<T, ModelError>;

/// One value for all levels, or one for each.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum PerLevel<T> {
    One(T),
    Each(Vec<T>),
}

impl<T: Copy> PerLevel<T> {
    /// One value for each of `levels`.
    fn expand(&self, path: &str, what: &str, levels: usize) -> Result<Vec<T>> {
        match self {
            Self::One(value) => Ok(vec![*value; levels]),
            Self::Each(values) if values.len() == levels => Ok(values.clone()),
            Self::Each(values) => Err(ModelError::malformed(
                path,
                format!("`{what}` has {} values for {levels} levels (block_out_channels)", values.len()),
            )),
        }
    }
}

/// The options of a file that have no field of their own.
pub(crate) type OtherOptions = BTreeMap<String, Value>;

/// Refuses what is not implemented: an option of `fixed` may only have one of the values (as JSON) beside it, those
/// of `ignored` do not matter here, any other may only be `null` or `false`.
fn check_options(
    path: &str,
    other: &OtherOptions,
    fixed: &[(&str, &[&str])],
    ignored: &[&str],
) -> Result<()> {
    for (key, value) in other {
        if key.starts_with('_') || ignored.contains(&key.as_str()) {
            continue;
        }
        let found = value.to_string();
        match fixed.iter().find(|(name, _)| name == key) {
            Some((_, accepted)) if accepted.contains(&found.as_str()) => {}
            Some((_, accepted)) => {
                return Err(ModelError::unsupported(path, format!("`{key}`"), found, accepted.join(" or ")));
            }
            None if value.is_null() || *value == Value::Bool(false) => {}
            None => {
                return Err(ModelError::unsupported(
                    path,
                    format!("`{key}`, an option that this loader does not know,"),
                    found,
                    "null or false",
                ));
            }
        }
    }
    Ok(())
}

/// Refuses a number of channels that the groups of a group norm do not divide.
fn check_groups(path: &str, channels: usize, groups: usize) -> Result<()> {
    if groups > 0 && channels > 0 && channels.is_multiple_of(groups) {
        return Ok(());
    }
    Err(ModelError::malformed(
        path,
        format!("`norm_num_groups` {groups} does not divide the {channels} channels of `block_out_channels`"),
    ))
}

/// Refuses sizes that are 0, or so large that a product of two would mean nothing.
fn check_sizes(path: &str, sizes: &[(&str, usize)]) -> Result<()> {
    /// Far over any model's widths and vocabularies.
    const MOST: usize = 1 << 20;
    let wrong = sizes.iter().find(|(_, size)| !(1..=MOST).contains(size));
    wrong.map_or(Ok(()), |(key, size)| {
        Err(ModelError::malformed(path, format!("`{key}` is {size}, expected 1 to {MOST}")))
    })
}

/// A malformed file unless `valid`.
fn ensure(valid: bool, path: &str, detail: impl FnOnce() -> String) -> Result<()> {
    if valid { Ok(()) } else { Err(ModelError::malformed(path, detail())) }
}
