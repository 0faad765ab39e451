//! Opens plugins and lets the gate use them.
//!
//! A plugin is a shared library that speaks the tables of [`cluegate_abi`]. [`Plugin::open`] finds it ([`Search`]), refuses
//! it unless its SHA-256 is allowed, loads it, and makes an instance of its configuration; every further call has a
//! deadline. In this process each call runs on a thread of the host's own: a plugin that hangs costs a thread, and is not
//! used any more. A plugin in a process of its own ([`Isolation`]) costs the request that it crashed in, and is started
//! again.
//!
//! A plugin is trusted code: it can read and write what the gate can. The allow-list says which code is trusted; a process
//! of its own protects from mistakes, not from malice.
//!
//! [`PluginSet`] holds the plugins of a configuration with the roles that they play, and is what the gate sees: it screens
//! pictures, hides regions, rewrites prompts, publishes decisions and draws. Whatever fails there withholds a picture.

// What is unsafe stands in `library`, `instance` and `isolated`, each with its reason.
#![allow(unsafe_code)]

mod error;
mod instance;
#[cfg(unix)]
mod isolated;
mod library;
mod local;
mod message;
mod needs;
mod plugin;
mod roles;
mod search;
mod set;
mod slots;

pub use error::{HostError, Result};
#[cfg(unix)]
pub use isolated::wire::parse_all;
#[cfg(unix)]
pub use isolated::{Isolation, WORKER_COMMAND, run_worker};
pub use message::{Change, Description, Drawing, Found, FoundLabel};
pub use needs::{lacking, remedy};
pub use plugin::{Answered, Plugin, Spec, Unwatched, Watch, inspect};
pub use roles::PluginGenerator;
pub use search::{FoundLibrary, PATH_VARIABLE, Search, sha256_of};
pub use set::{JudgeRole, PluginSet, Roles};
