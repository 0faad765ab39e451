//! What goes wrong with plugins.

use std::path::PathBuf;
use std::time::Duration;

use cluegate_abi::{ErrorCode, PluginError};
use thiserror::Error;

/// Why a plugin cannot be used, or did not do what it was asked for. None of them is ever a release.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostError {
    /// There is no such library.
    #[error("no plugin library {library:?}; looked for {}", .searched.join(", "))]
    NotFound {
        /// As it was named.
        library: String,
        /// All places.
        searched: Vec<String>,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {problem}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: String,
    },
    /// A library that nobody has allowed.
    #[error("{} is not allowed: if you trust it, add \"{sha256}\", its SHA-256, to `plugins.allow`", .path.display())]
    NotAllowed {
        /// The library.
        path: PathBuf,
        /// Its SHA-256 in lower-case hexadecimal.
        sha256: String,
    },
    /// Libraries that the plugin needs are not there.
    #[error("{} needs shared libraries that the system does not find: {}; {}", .path.display(), .libraries.join(", "),
            crate::needs::remedy(.libraries))]
    MissingLibrary {
        /// The plugin.
        path: PathBuf,
        /// What it needs, itself or through others.
        libraries: Vec<String>,
    },
    /// The loader refuses the file.
    #[error("{} cannot be loaded: {problem}", .path.display())]
    Load {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        problem: String,
    },
    /// A library without the entry of a plugin.
    #[error("{} exports no function {symbol}: it is no plugin, or one for another major version of the tables", .path.display())]
    NoEntry {
        /// The library.
        path: PathBuf,
        /// The entry's name.
        symbol: &'static str,
    },
    /// Tables that cannot be used.
    #[error("{}: {problem}", .path.display())]
    Table {
        /// The library.
        path: PathBuf,
        /// What was expected and what came.
        problem: String,
    },
    /// A configuration that the plugin's schema does not know.
    #[error("plugin {plugin}: {problem}")]
    Config {
        /// The plugin.
        plugin: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The plugin said no.
    #[error("plugin {plugin} ({}): {}", .error.code().as_str(), .error.message())]
    Plugin {
        /// The plugin.
        plugin: String,
        /// What it said.
        error: PluginError,
    },
    /// It took too long, and is not used any more.
    #[error("plugin {plugin} gave no answer within {} ms", .deadline.as_millis())]
    TimedOut {
        /// The plugin.
        plugin: String,
        /// What it was given.
        deadline: Duration,
    },
    /// It was found broken before.
    #[error("plugin {plugin} is not used any more: {why}; reload the configuration to try it again")]
    Broken {
        /// The plugin.
        plugin: String,
        /// Why.
        why: String,
    },
    /// Nobody waits for the answer any more.
    #[error("plugin {plugin}: {problem}")]
    Over {
        /// The plugin.
        plugin: String,
        /// The deadline, or who called it off.
        problem: String,
        /// Whether time ran out.
        late: bool,
    },
    /// Its process ended.
    #[error("plugin {plugin}: its process ended: {how}")]
    Crashed {
        /// The plugin.
        plugin: String,
        /// By which signal, or with which status.
        how: String,
    },
    /// Its process ended before and is not to be started again yet.
    #[error("plugin {plugin}: its process ended ({how}) and is started again in {} ms at the earliest", .wait.as_millis())]
    Resting {
        /// The plugin.
        plugin: String,
        /// How it ended.
        how: String,
        /// How long it rests.
        wait: Duration,
    },
    /// It cannot do this.
    #[error("plugin {plugin} cannot {what}; it can {}", .has.join(", "))]
    Unsupported {
        /// The plugin.
        plugin: String,
        /// What was asked.
        what: &'static str,
        /// What it can.
        has: Vec<String>,
    },
    /// A plugin that a role names is not there.
    #[error("`plugins.{role}` names the plugin {name:?}, which `plugins.use` does not have{}",
            cluegate_gate::policy::did_you_mean(.nearest.as_deref()))]
    Unnamed {
        /// The key.
        role: &'static str,
        /// The name.
        name: String,
        /// The name that is spelled most alike.
        nearest: Option<String>,
    },
    /// A process or a thread for it cannot be started.
    #[error("plugin {plugin}: {problem}")]
    System {
        /// The plugin.
        plugin: String,
        /// What the system said.
        problem: String,
    },
}

impl HostError {
    /// Stable name in kebab-case, for logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "plugin-not-found",
            Self::Read { .. } => "plugin-read",
            Self::NotAllowed { .. } => "plugin-not-allowed",
            Self::MissingLibrary { .. } => "plugin-missing-library",
            Self::Load { .. } => "plugin-load",
            Self::NoEntry { .. } => "plugin-no-entry",
            Self::Table { .. } => "plugin-table",
            Self::Config { .. } => "plugin-config",
            Self::Plugin { error, .. } => match error.code() {
                ErrorCode::Panic => "plugin-panic",
                ErrorCode::Contract => "plugin-contract",
                ErrorCode::Timeout => "timeout",
                ErrorCode::Cancelled => "cancelled",
                _ => "plugin-failed",
            },
            Self::TimedOut { .. } => "timeout",
            Self::Broken { .. } => "plugin-broken",
            Self::Over { late: true, .. } => "timeout",
            Self::Over { late: false, .. } => "cancelled",
            Self::Crashed { .. } => "plugin-crashed",
            Self::Resting { .. } => "plugin-resting",
            Self::Unsupported { .. } => "plugin-unsupported",
            Self::Unnamed { .. } => "plugin-unnamed",
            Self::System { .. } => "plugin-system",
        }
    }
}

/// Result of anything with plugins.
pub type Result<T> = std::result::Result<T, HostError>;
