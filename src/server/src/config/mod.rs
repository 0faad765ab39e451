//! The gateway's configuration: read into raw types ([`RawConfig`]), checked, and built ([`Config`]).

mod built;
mod examine;
mod hosts;
mod places;
mod plugins;
mod raw;
mod settings;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use built::{
    AdminConfig, Config, PictureOptions, ServerLimits, StoreAddress, StoreConfig, UpstreamConfig,
};
use cluegate_gate::policy::did_you_mean;
pub use examine::Finding;
pub use hosts::FetchHost;
pub use plugins::{RawPlugin, RawPluginJudge, RawPlugins};
pub use raw::{
    FrontName, RawA1111, RawAdmin, RawComfyUi, RawConfig, RawKeys, RawMetrics, RawPictures, RawReload,
    RawServerLimits, RawStore, RawTls, RawUpstream, UpstreamKind, WhenGone,
};
pub use settings::{KeySetting, mask_address};
use thiserror::Error;

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {problem}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: String,
    },
    /// The text is not TOML, or a value has the wrong type.
    #[error("{origin}: {problem}")]
    Toml {
        /// Where the text came from.
        origin: String,
        /// What the parser said, with line and column.
        problem: String,
    },
    /// A key that nothing reads.
    #[error("{origin}: unknown key `{path}`{}; known here: {}", did_you_mean(nearest.as_deref()), known.join(", "))]
    UnknownKey {
        /// Where the text came from.
        origin: String,
        /// Dotted path of the key.
        path: String,
        /// The known key that is spelled most alike.
        nearest: Option<String>,
        /// All known keys of the table.
        known: Vec<String>,
    },
    /// A value out of range.
    #[error("{origin}: `{path}` must be {expected}, not {found}")]
    Value {
        /// Where the text came from.
        origin: String,
        /// Dotted path of the key.
        path: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
}

impl RawConfig {
    /// The text of the shipped configuration file: every key at its default, and what has none as a comment.
    pub fn with_defaults_toml() -> &'static str {
        include_str!("../../gate.toml")
    }
}
