//! From files into a store, and back.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use anyhow::{Context, bail};
use cluegate_constitution::Constitution;
use cluegate_gate::Policies;
use cluegate_gate::policy::{ConstitutionSource, PieceKind};
use cluegate_server::Proposal;
use cluegate_server::keys::{KeyFile, KeyKind, KeyRing};
use cluegate_store::{Edit, Expect, KeyHash, NewKey};
use serde_json::json;

use super::args::{ExportArgs, ImportArgs};
use super::file::{PolicyText, check_constitutions};
use crate::cli::store::OpenStore;
use crate::cli::{say, say_json, write_file};

/// What is brought into a store.
struct Parcel {
    templates: Vec<(String, String)>,
    tenants: Vec<(String, String)>,
    /// Name, revision and text.
    constitutions: Vec<(String, String, String)>,
    keys: KeyRing,
}

pub(super) fn import(arguments: &ImportArgs) -> anyhow::Result<()> {
    let parcel = pack(&arguments.file, arguments.keys.as_deref())?;
    let store = OpenStore::open(&arguments.store)?;
    let mut proposals: Vec<Proposal> = Vec::new();
    for (name, _, text) in &parcel.constitutions {
        proposals.push(Proposal::Constitution(name.clone(), Some(text.clone())));
    }
    for (name, text) in &parcel.templates {
        proposals.push(Proposal::Template(name.clone(), Some(text.clone())));
    }
    for (name, text) in &parcel.tenants {
        proposals.push(Proposal::Tenant(name.clone(), Some(text.clone())));
    }
    store.check(store.stored().check(proposals))?;
    let known = store.check(store.stored().keys())?;
    // All of it or nothing.
    let mut edit = store.edit()?;
    let added = store.wait(unpack(&mut edit, &parcel, &known))?;
    store.wait(edit.commit())?;
    let (templates, tenants) = (parcel.templates.len(), parcel.tenants.len());
    let constitutions = parcel.constitutions.len();
    if arguments.json {
        return say_json(
            &json!({ "templates": templates, "tenants": tenants, "constitutions": constitutions, "keys": added }),
        );
    }
    Ok(say(format_args!(
        "imported {templates} templates, {tenants} tenants, {constitutions} constitutions and {added} keys"
    ))?)
}

/// Reads and checks the files.
fn pack(file: &Path, keys: Option<&Path>) -> anyhow::Result<Parcel> {
    let policies = Policies::load(file)?;
    check_constitutions(&policies)?;
    let text = PolicyText::read(file)?;
    let tables = |kind| -> anyhow::Result<Vec<(String, String)>> {
        let names = text.names(kind).into_iter();
        names.map(|name| Ok((name.clone(), text.table(kind, &name)?.unwrap_or_default()))).collect()
    };
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut named = BTreeSet::new();
    for tenant in policies.tenants().filter_map(|tenant| policies.tenant(tenant)) {
        for policy in tenant.all() {
            let canary = policy.canary.as_ref().map(|canary| &canary.constitution);
            for source in [Some(&policy.constitution), canary].into_iter().flatten() {
                if let ConstitutionSource::Named(name) = source {
                    named.insert(name.clone());
                }
            }
        }
    }
    let constitutions = named.into_iter().map(|name| {
        let path = folder.join(&name);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let revision = Constitution::parse(&text, &name)?.revision().to_hex();
        Ok((name, revision, text))
    });
    let keys = match keys {
        Some(keys) => KeyFile::load(keys, KeyKind::Client)?,
        None => KeyRing::default(),
    };
    Ok(Parcel {
        templates: tables(PieceKind::Template)?,
        tenants: tables(PieceKind::Tenant)?,
        constitutions: constitutions.collect::<anyhow::Result<_>>()?,
        keys,
    })
}

/// Writes everything into an edit, and says how many keys are new.
async fn unpack(
    edit: &mut Edit,
    parcel: &Parcel,
    known: &KeyRing,
) -> Result<usize, cluegate_store::StoreError> {
    for (name, revision, text) in &parcel.constitutions {
        edit.add_revision(name, revision, text).await?;
        edit.set_current(name, revision, Expect::Any).await?;
    }
    for (name, text) in &parcel.templates {
        edit.put_template(name, text, Expect::Any).await?;
    }
    for (name, text) in &parcel.tenants {
        edit.put_tenant(name, text, Expect::Any).await?;
    }
    let mut added = 0;
    for key in parcel.keys.iter() {
        let tenant = key.tenant.as_deref().unwrap_or_default();
        let same = |other: &&std::sync::Arc<cluegate_server::keys::Key>| {
            other.hash == key.hash && other.tenant.as_deref() == Some(tenant) && other.id == key.id
        };
        if known.iter().any(|other| same(&other)) {
            continue;
        }
        let new = NewKey {
            id: key.id.clone(),
            sha256: KeyHash(key.hash),
            note: key.note.clone().unwrap_or_default(),
            // A key of a file holds from the beginning, whenever it is imported.
            not_before_ms: Some(key.not_before.map_or(0, |begin| begin.as_millisecond())),
            expires_ms: key.expires.map(|end| end.as_millisecond()),
        };
        edit.add_key(tenant, &new).await?;
        if key.revoked.is_some() {
            edit.revoke_key(tenant, &key.id).await?;
        }
        added += 1;
    }
    Ok(added)
}

pub(super) fn export(arguments: &ExportArgs) -> anyhow::Result<()> {
    let out = &arguments.out;
    if out.exists() {
        bail!("{} is there already; name a folder that is not", out.display());
    }
    let store = OpenStore::open(&arguments.store)?;
    let contents = store.wait(store.store().load())?;
    let keys = store.check(store.stored().keys())?;
    let (mut policy, mut counted) = (toml_edit::DocumentMut::new(), (0, 0, 0));
    let part = out.with_extension("part");
    std::fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    let written = (|| -> anyhow::Result<()> {
        for (kind, tables) in [
            (
                "template",
                contents.templates.values().flatten().map(|one| (&one.name, &one.policy)).collect::<Vec<_>>(),
            ),
            ("tenant", contents.tenants.values().flatten().map(|one| (&one.name, &one.policy)).collect()),
        ] {
            for (name, text) in tables {
                super::file::insert(&mut policy, kind, name, text)?;
                counted.0 += 1;
            }
        }
        write_file(&part.join("policy.toml"), policy.to_string().as_bytes())?;
        for constitution in contents.constitutions.values().flatten() {
            // A name is a path from the policy's folder, and must not lead out of it.
            let path = Path::new(&constitution.name);
            if !path.components().all(|part| matches!(part, Component::Normal(_))) {
                bail!("the constitution {:?} has a name that is no path below a folder", constitution.name);
            }
            let path = part.join(path);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            write_file(&path, constitution.text.as_bytes())?;
            counted.1 += 1;
        }
        let mut sorted: Vec<_> = keys.iter().collect();
        sorted.sort_by(|one, other| (&one.tenant, &one.id).cmp(&(&other.tenant, &other.id)));
        let entries: Vec<String> = sorted.iter().map(|key| key.entry()).collect();
        counted.2 = entries.len();
        write_file(&part.join("keys.toml"), entries.join("\n").as_bytes())?;
        Ok(std::fs::rename(&part, out)?)
    })();
    if written.is_err() {
        let _ = std::fs::remove_dir_all(&part);
    }
    written?;
    let (tables, constitutions, keys) = counted;
    if arguments.json {
        return say_json(&json!({ "tables": tables, "constitutions": constitutions, "keys": keys }));
    }
    Ok(say(format_args!(
        "exported {tables} tenants and templates, {constitutions} constitutions and {keys} keys"
    ))?)
}
