//! `cluegate tenants`: tenants and templates, in a policy file or in a store.

pub(crate) mod args;
pub(crate) mod file;
mod moving;

use std::io::Read as _;

use anyhow::{Context, bail};
use cluegate_gate::policy::PieceKind;
use cluegate_server::Proposal;
use cluegate_store::{Expect, Kind, PolicyVersion, TenantState};
use jiff::Timestamp;
use serde_json::{Value, json};

use self::args::{HistoryArgs, ListArgs, NamedArgs, PolicyPlace, SetArgs, SuspendArgs, TenantsCommand};
use self::file::{PolicyText, with_keys};
use super::store::OpenStore;
use super::{Exit, say, say_json};

/// Most names that are read at a time.
const PAGE: u32 = 1000;

pub(super) fn run(command: &TenantsCommand) -> anyhow::Result<Exit> {
    match command {
        TenantsCommand::List(arguments) => list(arguments),
        TenantsCommand::Show(arguments) => show(arguments),
        TenantsCommand::Set(arguments) => set(arguments),
        TenantsCommand::Remove(arguments) => remove(arguments),
        TenantsCommand::History(arguments) => history(arguments),
        TenantsCommand::Suspend(arguments) => suspend(arguments),
        TenantsCommand::Import(arguments) => moving::import(arguments),
        TenantsCommand::Export(arguments) => moving::export(arguments),
    }?;
    Ok(Exit::Clean)
}

fn kind(template: bool) -> PieceKind {
    if template { PieceKind::Template } else { PieceKind::Tenant }
}

/// A table, and where it stands.
struct Found {
    text: String,
    version: Option<i64>,
    state: Option<TenantState>,
}

/// The table of this name, if there is one.
fn find(place: &PolicyPlace, kind: PieceKind, name: &str) -> anyhow::Result<Option<Found>> {
    if let Some(file) = &place.file {
        let text = PolicyText::read(file)?.table(kind, name)?;
        return Ok(text.map(|text| Found { text, version: None, state: None }));
    }
    let store = OpenStore::open(&place.store()?)?;
    Ok(match kind {
        PieceKind::Template => store.wait(store.store().template(name))?.map(|found| Found {
            text: found.policy,
            version: Some(found.version),
            state: None,
        }),
        PieceKind::Tenant => store.wait(store.store().tenant(name))?.map(|found| Found {
            text: found.policy,
            version: Some(found.version),
            state: Some(found.state),
        }),
    })
}

fn list(arguments: &ListArgs) -> anyhow::Result<()> {
    let mut all: Vec<Value> = Vec::new();
    if let Some(file) = &arguments.place.file {
        let policy = PolicyText::read(file)?;
        for kind in [PieceKind::Template, PieceKind::Tenant] {
            let names = policy.names(kind).into_iter();
            all.extend(names.map(|name| json!({ "kind": kind.to_string(), "name": name })));
        }
    } else {
        let store = OpenStore::open(&arguments.place.store()?)?;
        let mut after = String::new();
        loop {
            let page = store.wait(store.store().templates(&after, PAGE))?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.name);
            all.extend(page.into_iter().map(|one| {
                json!({ "kind": "template", "name": one.name, "version": one.version, "changed_by": one.changed_by })
            }));
        }
        after.clear();
        loop {
            let page = store.wait(store.store().tenants(&after, PAGE))?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.name);
            all.extend(page.into_iter().map(|one| {
                json!({
                    "kind": "tenant", "name": one.name, "state": one.state, "version": one.version,
                    "changed_by": one.changed_by,
                })
            }));
        }
    }
    if arguments.json {
        return say_json(&all);
    }
    for one in all {
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        let version =
            one["version"].as_i64().map_or_else(String::new, |version| format!(", version {version}"));
        let state = if text("state") == "suspended" { ", suspended" } else { "" };
        say(format_args!("{} {}{version}{state}", text("kind"), text("name")))?;
    }
    Ok(())
}

fn show(arguments: &NamedArgs) -> anyhow::Result<()> {
    let (kind, name) = (kind(arguments.template), &arguments.name);
    let found =
        find(&arguments.place, kind, name)?.with_context(|| format!("there is no {kind} {name:?}"))?;
    match arguments.json {
        true => say_json(&json!({
            "kind": kind.to_string(), "name": name, "version": found.version, "state": found.state, "policy": found.text,
        })),
        false => Ok(say(found.text.trim_end())?),
    }
}

fn set(arguments: &SetArgs) -> anyhow::Result<()> {
    let (kind, name) = (kind(arguments.template), &arguments.name);
    let found = find(&arguments.place, kind, name)?;
    let before = match &arguments.from {
        Some(path) if path.as_os_str() == "-" => {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text)?;
            text
        }
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => found.as_ref().map_or_else(String::new, |found| found.text.clone()),
    };
    let text = with_keys(&before, &arguments.set)?;
    let version = if let Some(file) = &arguments.place.file {
        let mut policy = PolicyText::read(file)?;
        policy.put(kind, name, Some(&text))?;
        policy.write()?;
        None
    } else {
        // What was read is what is changed: of two who change at once, one is refused.
        let known = found.and_then(|found| found.version);
        let expect = arguments.version.or(known).map_or(Expect::Absent, Expect::Version);
        change_store(&arguments.place.store()?, kind, name, Some(text), expect)?
    };
    told(arguments.json, kind, name, version, "is written")
}

/// Writes a table into a store, or removes it there, if the store can be used afterwards.
fn change_store(
    url: &str,
    kind: PieceKind,
    name: &str,
    policy: Option<String>,
    expect: Expect,
) -> anyhow::Result<Option<i64>> {
    let store = OpenStore::open(url)?;
    let proposal = match kind {
        PieceKind::Template => Proposal::Template(name.to_owned(), policy),
        PieceKind::Tenant => Proposal::Tenant(name.to_owned(), policy),
    };
    store.check(store.stored().check(vec![proposal.clone()]))?;
    let mut edit = store.edit()?;
    let version = store.wait(proposal.make(&mut edit, expect))?;
    store.wait(edit.commit())?;
    Ok(version)
}

fn remove(arguments: &NamedArgs) -> anyhow::Result<()> {
    let (kind, name) = (kind(arguments.template), &arguments.name);
    if let Some(file) = &arguments.place.file {
        let mut policy = PolicyText::read(file)?;
        policy.put(kind, name, None)?;
        policy.write()?;
    } else {
        change_store(&arguments.place.store()?, kind, name, None, Expect::Any)?;
    }
    told(arguments.json, kind, name, None, "is removed")
}

/// Prints what a policy said, newest first.
fn history(arguments: &HistoryArgs) -> anyhow::Result<()> {
    let (kind, name) = (if arguments.template { Kind::Template } else { Kind::Tenant }, &arguments.name);
    let store = OpenStore::open(&arguments.store)?;
    let versions = store.wait(store.store().policy_versions(kind, name, None, arguments.limit))?;
    if versions.is_empty() {
        bail!("the store never had a {kind} {name:?}");
    }
    if arguments.json {
        return say_json(&versions);
    }
    for PolicyVersion { generation, version, policy, changed_by, changed_ms } in versions {
        let at = Timestamp::from_millisecond(changed_ms)?;
        say(format_args!(
            "# version {version}, by {changed_by} at {at:.0}, generation {generation}\n{}\n",
            policy.trim_end()
        ))?;
    }
    Ok(())
}

fn suspend(arguments: &SuspendArgs) -> anyhow::Result<()> {
    let (state, what) = match arguments.resume {
        true => (TenantState::Active, "is served again"),
        false => (TenantState::Suspended, "is suspended"),
    };
    if let Some(file) = &arguments.place.file {
        let mut policy = PolicyText::read(file)?;
        let kind = PieceKind::Tenant;
        let before = policy.table(kind, &arguments.name)?;
        let before = before.with_context(|| format!("there is no {kind} {:?}", arguments.name))?;
        let suspended = state == TenantState::Suspended;
        policy.put(kind, &arguments.name, Some(&with_keys(&before, &[format!("suspended={suspended}")])?))?;
        policy.write()?;
        return told(arguments.json, kind, &arguments.name, None, what);
    }
    let store = OpenStore::open(&arguments.place.store()?)?;
    let mut edit = store.edit()?;
    let version = store.wait(edit.set_state(&arguments.name, state, Expect::Any))?;
    store.wait(edit.commit())?;
    told(arguments.json, PieceKind::Tenant, &arguments.name, Some(version), what)
}

fn told(as_json: bool, kind: PieceKind, name: &str, version: Option<i64>, what: &str) -> anyhow::Result<()> {
    if as_json {
        return say_json(&json!({ "kind": kind.to_string(), "name": name, "version": version }));
    }
    let version = version.map_or_else(String::new, |version| format!(", version {version}"));
    Ok(say(format_args!("{kind} {name} {what}{version}"))?)
}
