//! The command line of `cluegate tenants`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::cli::store::named;

/// Tenants and the templates that they build on.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantsCommand {
    /// Name all tenants and templates.
    #[command(after_help = "Examples:\n  cluegate tenants list --file policy.toml\n  \
                            cluegate tenants list --store sqlite:gate.db --json")]
    List(ListArgs),
    /// Print the table of a tenant as it is written. `policy show` prints what follows from it.
    Show(NamedArgs),
    /// Write the table of a tenant, or some of its keys; the tenant is added if there is none.
    #[command(
        after_help = "Examples:\n  cluegate tenants set kids --set tries=2 --set quota.pictures_per_day=500 --store sqlite:gate.db\n  \
                            cluegate tenants set base --template --from base.toml --file policy.toml\n\n\
                            The whole policy is checked first; what cannot be used is not written."
    )]
    Set(SetArgs),
    /// Remove a tenant; from a store, with its keys and its usage.
    Remove(NamedArgs),
    /// Refuse a tenant's requests from now on, or serve it again; everything about it is kept.
    Suspend(SuspendArgs),
    /// Print what a tenant's policy in a store said before, with who wrote it and when, newest first.
    #[command(after_help = "Example:\n  cluegate tenants history kids --store sqlite:gate.db")]
    History(HistoryArgs),
    /// Bring a policy file, with its constitutions, and a key file into a store.
    #[command(
        after_help = "Example:\n  cluegate tenants import --file policy.toml --keys keys.toml --store sqlite:gate.db\n\n\
                            What is there by the same name is replaced; keys that are there stay as they are."
    )]
    Import(ImportArgs),
    /// Write what is in a store to a folder: policy.toml, constitutions, keys.toml with hashes.
    #[command(after_help = "Example:\n  cluegate tenants export --store sqlite:gate.db --out policies")]
    Export(ExportArgs),
}

/// Where policies are kept.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub(crate) struct PolicyPlace {
    /// The policy file.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The store: sqlite:PATH, or postgres://...; without --file, the variable CLUEGATE_STORE names one too.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

impl PolicyPlace {
    /// The store, where there is no file.
    ///
    /// # Errors
    /// If neither is named.
    pub(crate) fn store(&self) -> anyhow::Result<String> {
        named(self.file.as_deref(), self.store.as_deref())
            .context("expected --file FILE, --store URL, or the variable CLUEGATE_STORE")
    }
}

/// Arguments of `tenants list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) place: PolicyPlace,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `tenants show` and `tenants remove`.
#[derive(Debug, Args)]
pub(crate) struct NamedArgs {
    /// The tenant's name.
    pub(crate) name: String,
    /// A template of this name.
    #[arg(long)]
    pub(crate) template: bool,
    #[command(flatten)]
    pub(crate) place: PolicyPlace,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `tenants set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The tenant's name.
    pub(crate) name: String,
    /// A template of this name.
    #[arg(long)]
    pub(crate) template: bool,
    /// A file with the whole table, as below [tenant.NAME] without that header; `-` for standard input.
    #[arg(long, value_name = "FILE", required_unless_present = "set")]
    pub(crate) from: Option<PathBuf>,
    /// Sets one key, such as tries=2 or action.default="block"; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// In a store: only if it is at this version.
    #[arg(long, value_name = "VERSION", conflicts_with = "file")]
    pub(crate) version: Option<i64>,
    #[command(flatten)]
    pub(crate) place: PolicyPlace,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `tenants suspend`.
#[derive(Debug, Args)]
pub(crate) struct SuspendArgs {
    /// The tenant's name.
    pub(crate) name: String,
    /// Serve it again.
    #[arg(long)]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) place: PolicyPlace,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `tenants history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The tenant's name.
    pub(crate) name: String,
    /// A template of this name.
    #[arg(long)]
    pub(crate) template: bool,
    /// Most versions.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: u32,
    /// The store: sqlite:PATH, or postgres://...
    #[arg(long, value_name = "URL", env = "CLUEGATE_STORE", hide_env_values = true)]
    pub(crate) store: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `tenants import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The policy file.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The key file.
    #[arg(long, value_name = "FILE")]
    pub(crate) keys: Option<PathBuf>,
    /// The store: sqlite:PATH, or postgres://...
    #[arg(long, value_name = "URL", env = "CLUEGATE_STORE", hide_env_values = true)]
    pub(crate) store: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `tenants export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The folder to make.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// The store: sqlite:PATH, or postgres://...
    #[arg(long, value_name = "URL", env = "CLUEGATE_STORE", hide_env_values = true)]
    pub(crate) store: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
