//! `cluegate replay`: what another policy would have made of the decisions in a log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use cluegate_audit::{Candidate, Change, Replay};
use cluegate_gate::policy::{PieceKind, PolicyPiece};
use cluegate_gate::{JudgeProvider as _, Policies};

use super::args::ModelArgs;
use super::log::{Filter, LogSource};
use super::{Exit, open_engine, progress, say, say_json};

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    source: LogSource,
    #[command(flatten)]
    filter: Filter,
    /// The policy file on trial, which must have the tenant; the policies in use, from file or store, if not given.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Another constitution: a shipped name, a file beside the policy file, or, where policies are in a store, the name of
    /// one that is there.
    #[arg(long, value_name = "NAME")]
    constitution: Option<String>,
    /// Another value for a key of the tenant's policy, such as thresholds.alpha1=0.2 or action.rule.sword="hold"; may be given
    /// several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Judge the kept pictures anew, in place of the stored evidence; needed for other statements, rules or models.
    #[arg(long)]
    pictures: bool,
    /// The models that judge kept pictures; --models stands above the configuration's.
    #[command(flatten)]
    models: ModelArgs,
    /// Most examples of each kind of change.
    #[arg(long, value_name = "N", default_value_t = 5)]
    examples: usize,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &ReplayArgs) -> anyhow::Result<Exit> {
    let log = arguments.source.open(|_| {})?;
    let tenant = arguments
        .filter
        .tenant()
        .ok_or_else(|| anyhow!("a policy is one tenant's: name it with --tenant"))?;
    let policies = log.policies(arguments.policy.as_deref())?;
    let trial = on_trial(&policies, tenant, arguments)?;
    let policy = trial.require(tenant)?;
    let constitution = trial.constitution(policy)?;
    let known = known_thresholds([log.policies(None).ok(), Some(policies), Some(trial.clone())]);
    let mut models = arguments.models.clone();
    models.models = models.models.or_else(|| log.models.clone());
    let inspector = match arguments.pictures {
        true => {
            let engine = open_engine(&models)?;
            Some(engine.judges(false).inspector(constitution.as_ref().clone())?)
        }
        false => None,
    };
    let candidate = Candidate {
        policy,
        constitution,
        known: &known,
        inspector: inspector.as_deref(),
        examples: arguments.examples,
    };
    let bar = progress::counter("replaying");
    let replay = log
        .places
        .replay(&arguments.filter.query(&log.places)?, &candidate, &mut |count| bar.set_position(count))?;
    bar.finish_and_clear();
    if arguments.json {
        say_json(&replay)?;
    } else {
        print(&replay)?;
    }
    Ok(if replay.differing() == 0 { Exit::Clean } else { Exit::Violation })
}

/// The policies with what the command line changes of the tenant's.
fn on_trial(policies: &Policies, tenant: &str, arguments: &ReplayArgs) -> anyhow::Result<Policies> {
    policies.require(tenant)?;
    if arguments.set.is_empty() && arguments.constitution.is_none() {
        return Ok(policies.clone());
    }
    let mut own = policies.own_keys(tenant).cloned().unwrap_or_default();
    if let Some(constitution) = &arguments.constitution {
        own.insert("constitution".to_owned(), constitution.as_str().into());
    }
    for setting in &arguments.set {
        set(&mut own, setting)?;
    }
    let piece = PolicyPiece {
        kind: PieceKind::Tenant,
        name: tenant.to_owned(),
        text: toml::to_string(&own)?,
        origin: format!("{tenant} with --set"),
    };
    Ok(policies.with_changes([piece], &[])?)
}

/// Sets `a.b.c=VALUE`; a value that is no TOML is a text.
fn set(table: &mut toml::Table, setting: &str) -> anyhow::Result<()> {
    let (key, value) = setting.split_once('=').with_context(|| format!("{setting:?}: expected KEY=VALUE"))?;
    let parsed =
        format!("value = {value}").parse::<toml::Table>().ok().and_then(|mut read| read.remove("value"));
    let value = parsed.unwrap_or_else(|| value.into());
    let mut place = table;
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let inner = place.entry(part).or_insert_with(|| toml::Table::new().into());
        place = inner.as_table_mut().with_context(|| format!("{key}: {part} is no table"))?;
    }
    place.insert(last.to_owned(), value);
    Ok(())
}

/// Thresholds of the constitutions that the gateway uses now, and of those on trial, by revision.
fn known_thresholds(all: [Option<Policies>; 3]) -> BTreeMap<String, cluegate_constitution::Thresholds> {
    let mut known = BTreeMap::new();
    for policies in all.iter().flatten() {
        for policy in policies.iter() {
            // One that cannot be read is not on trial here.
            if let Ok(constitution) = policies.constitution(policy) {
                known.insert(constitution.revision().to_hex(), *constitution.thresholds());
            }
        }
    }
    known
}

fn print(replay: &Replay) -> anyhow::Result<()> {
    say(format_args!(
        "{} decisions under {} ({})",
        replay.decisions,
        replay.constitution,
        replay.revision.get(..12).unwrap_or(&replay.revision)
    ))?;
    for (change, count) in &replay.changes {
        say(format_args!("  {change:<16} {count}"))?;
    }
    if replay.assumed > 0 {
        say(format_args!(
            "  {} of them were judged under a revision that is not at hand; its detection threshold and least object are taken \
             to be those on trial",
            replay.assumed
        ))?;
    }
    say(format_args!(
        "{:<24} {:>8} {:>8} {:>8} {:>10} {:>10}",
        "rule", "then", "now", "newly", "no longer", "undecided"
    ))?;
    for (id, rule) in &replay.rules {
        say(format_args!(
            "{id:<24} {:>8} {:>8} {:>8} {:>10} {:>10}  {}",
            rule.then,
            rule.now,
            rule.newly,
            rule.no_longer,
            rule.undecided,
            rule.examples.join(" ")
        ))?;
    }
    for (change, examples) in &replay.examples {
        // Why they are undecided says more.
        if *change == Change::Undecided.as_str() {
            continue;
        }
        say(format_args!("{change}:"))?;
        for example in examples {
            let or_none =
                |rules: &[String]| if rules.is_empty() { "nothing".to_owned() } else { rules.join(", ") };
            let (then, now) = (or_none(&example.violated_then), or_none(&example.violated));
            say(format_args!(
                "  {} (request {}): violated {then}, would violate {now}",
                example.decision_id, example.request
            ))?;
        }
    }
    for (why, count) in &replay.undecided {
        say(format_args!("undecided: {count} because {why}"))?;
    }
    Ok(())
}
