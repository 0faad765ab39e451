//! `cluegate policy`: what policies say, where each value comes from, and what differs between two.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use cluegate_gate::Policies;
use cluegate_gate::policy::Explained;
use serde_json::{Value, json};

use super::store::OpenStore;
use super::tenants::args::PolicyPlace;
use super::{Exit, say, say_json};

/// Policies.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Print every value of a tenant's policy, and where it comes from: its own table, a template, or the defaults.
    #[command(after_help = "Examples:\n  cluegate policy show kids --file policy.toml\n  \
                            cluegate policy show kids --model sdxl-turbo --store sqlite:gate.db --json")]
    Show(ShowArgs),
    /// Read policies, and every constitution that they name, and say what is wrong.
    #[command(after_help = "Examples:\n  cluegate policy check policy.toml\n  \
                            cluegate policy check --store sqlite:gate.db --json")]
    Check(CheckArgs),
    /// Say tenant by tenant which values differ between two policy files, or a file and a store.
    #[command(after_help = "Examples:\n  cluegate policy diff old.toml new.toml\n  \
                            cluegate policy diff sqlite:gate.db new.toml --json\n\n\
                            Exit codes: 0 they say the same; 1 they differ; 2 an error.")]
    Diff(DiffArgs),
    /// Print a policy with every default spelled out.
    Defaults,
    /// Print the JSON Schema of policy files.
    Schema,
}

/// Arguments of `policy show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The tenant.
    tenant: String,
    /// The generation model that a request names.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    #[command(flatten)]
    place: PolicyPlace,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `policy check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The policy file.
    #[arg(required_unless_present = "store")]
    file: Option<PathBuf>,
    /// The store: sqlite:PATH, or postgres://...
    #[arg(long, value_name = "URL", conflicts_with = "file")]
    store: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `policy diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// A policy file, or a store (sqlite:PATH, postgres://...).
    old: String,
    /// Another.
    new: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &PolicyCommand) -> anyhow::Result<Exit> {
    match command {
        PolicyCommand::Show(arguments) => show(arguments)?,
        PolicyCommand::Check(arguments) => check(arguments)?,
        PolicyCommand::Diff(arguments) => return diff(arguments),
        PolicyCommand::Defaults => say(Policies::with_defaults_toml().trim_end())?,
        PolicyCommand::Schema => say_json(&Policies::json_schema())?,
    }
    Ok(Exit::Clean)
}

/// The policies of a file, or of a store.
fn policies(named: &str) -> anyhow::Result<Policies> {
    if named.starts_with("sqlite:") || named.starts_with("postgres:") || named.starts_with("postgresql:") {
        let store = OpenStore::open(named)?;
        return store.check(store.stored().check(Vec::new()));
    }
    Ok(Policies::load(named)?)
}

fn of_place(place: &PolicyPlace) -> anyhow::Result<Policies> {
    match &place.file {
        Some(file) => Ok(Policies::load(file)?),
        None => policies(&place.store()?),
    }
}

fn show(arguments: &ShowArgs) -> anyhow::Result<()> {
    let policies = of_place(&arguments.place)?;
    let (tenant, model) = (arguments.tenant.as_str(), arguments.model.as_deref());
    let values = policies.explain(tenant, model)?;
    let found = policies.tenant(tenant).context("the tenant has no policy")?;
    let constitution = policies.constitution(found.for_model(model))?;
    if arguments.json {
        return say_json(&json!({
            "tenant": tenant, "model": model, "values": values,
            "constitution": { "name": constitution.name(), "revision": constitution.revision().to_hex() },
        }));
    }
    say(format_args!("# judged by {}, revision {}", constitution.name(), constitution.revision()))?;
    for Explained { key, value, source } in values {
        say(format_args!("{key} = {value}  # {source}"))?;
    }
    Ok(())
}

fn check(arguments: &CheckArgs) -> anyhow::Result<()> {
    let policies = match (&arguments.file, &arguments.store) {
        (Some(file), _) => Policies::load(file)?,
        (None, store) => policies(store.as_deref().unwrap_or_default())?,
    };
    let mut told = Vec::new();
    for tenant in policies.tenants().filter_map(|tenant| policies.tenant(tenant)) {
        for policy in tenant.all() {
            let constitution = policies.constitution(policy)?;
            told.push((policy, constitution));
        }
    }
    if arguments.json {
        let told = told.iter().map(|(policy, constitution)| {
            json!({
                "tenant": &*policy.tenant, "model": policy.model.as_deref(), "constitution": constitution.name(),
                "rules": constitution.rules().len(), "revision": constitution.revision().to_hex(),
            })
        });
        return say_json(&told.collect::<Vec<_>>());
    }
    for (policy, constitution) in told {
        let model = policy.model.as_ref().map_or_else(String::new, |model| format!(" for {model}"));
        let (name, rules) = (constitution.name(), constitution.rules().len());
        say(format_args!(
            "{}{model}: {name}, {rules} rules, revision {}",
            policy.tenant,
            constitution.revision()
        ))?;
    }
    Ok(())
}

/// The values of a tenant by key, and the revision that it is judged by.
fn values(policies: &Policies, tenant: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let Some(found) = policies.tenant(tenant) else { return Ok(BTreeMap::new()) };
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for policy in found.all() {
        let model = policy.model.as_deref();
        let prefix = model.map_or_else(String::new, |model| format!("model.{model:?}."));
        for Explained { key, value, .. } in policies.explain(tenant, model)? {
            values.insert(format!("{prefix}{key}"), value);
        }
        // Not a key: the text behind the name may have changed.
        let revision = policies.constitution(policy)?.revision().to_hex();
        values.insert(format!("{prefix}(revision)"), revision);
    }
    Ok(values)
}

fn diff(arguments: &DiffArgs) -> anyhow::Result<Exit> {
    let (old, new) = (policies(&arguments.old)?, policies(&arguments.new)?);
    let mut names: Vec<&str> = old.tenants().chain(new.tenants()).collect();
    names.sort_unstable();
    names.dedup();
    let mut differences: Vec<Value> = Vec::new();
    for tenant in names {
        let (before, after) = (values(&old, tenant)?, values(&new, tenant)?);
        let what = match (before.is_empty(), after.is_empty()) {
            (true, false) => "added",
            (false, true) => "removed",
            _ => "changed",
        };
        let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let changed = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
        let changes: Vec<Value> = match what {
            "changed" => changed
                .map(|key| json!({ "key": key, "old": before.get(key), "new": after.get(key) }))
                .collect(),
            _ => Vec::new(),
        };
        if what != "changed" || !changes.is_empty() {
            differences.push(json!({ "tenant": tenant, "what": what, "changes": changes }));
        }
    }
    if arguments.json {
        say_json(&differences)?;
    } else {
        for difference in &differences {
            let tenant = difference["tenant"].as_str().unwrap_or_default();
            say(format_args!("{tenant}: {}", difference["what"].as_str().unwrap_or_default()))?;
            for change in difference["changes"].as_array().into_iter().flatten() {
                let text = |key: &str| change[key].as_str().unwrap_or("absent").to_owned();
                say(format_args!("  {}: {} -> {}", text("key"), text("old"), text("new")))?;
            }
        }
    }
    Ok(if differences.is_empty() { Exit::Clean } else { Exit::Violation })
}
