//! `cluegate keys`: API keys of clients and of the administration, in a file or in a store.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use cluegate_server::keys::{Key, KeyEdit, KeyFile, KeyKind, NewKey, Role, edit_key_file, moment, rotated};
use cluegate_store::KeyHash;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::store::{OpenStore, named};
use super::{Exit, say, say_json};

/// API keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key and show it once; only its hash is kept.
    #[command(after_help = "Examples:\n  cluegate keys new --tenant kids --id tablet --file keys.toml\n  \
                            cluegate keys new --tenant newsroom --id desk-7 --expires 90d --store sqlite:gate.db\n  \
                            cluegate keys new --role write --id ops --file admin.keys")]
    New(NewKeyArgs),
    /// Name the keys, whose they are, and whether they hold.
    #[command(after_help = "Examples:\n  cluegate keys list --file keys.toml\n  \
                            cluegate keys list --tenant kids --store sqlite:gate.db --json")]
    List(ListKeysArgs),
    /// Make a key in the place of another, which holds for a while yet, and show the new one once.
    #[command(after_help = "Examples:\n  cluegate keys rotate tablet --file keys.toml\n  \
                            cluegate keys rotate tablet --tenant kids --overlap 7d --store sqlite:gate.db")]
    Rotate(RotateKeyArgs),
    /// End a key now.
    #[command(after_help = "Examples:\n  cluegate keys revoke tablet --file keys.toml\n  \
                            cluegate keys revoke tablet --tenant kids --store sqlite:gate.db")]
    Revoke(RevokeKeyArgs),
}

/// Where keys are kept.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub(crate) struct KeyPlace {
    /// The key file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The store: sqlite:PATH, or postgres://...; without --file, the variable CLUEGATE_STORE names one too.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

impl KeyPlace {
    /// The store, if keys are to be kept there.
    fn store(&self) -> Option<String> {
        named(self.file.as_deref(), self.store.as_deref())
    }
}

/// Arguments of `keys new`.
#[derive(Debug, Args)]
pub(crate) struct NewKeyArgs {
    /// Whose policy applies to who brings the key; with --role, the only tenant that it may see.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new(), required_unless_present = "role")]
    tenant: Option<String>,
    /// Makes a key of the administration, which may look (read) or change everything (write). Not in a store.
    #[arg(long, value_name = "ROLE", value_parser = role, conflicts_with = "store")]
    role: Option<Role>,
    /// Name of the key in logs; each has its own.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    id: String,
    /// When it begins to hold: a time such as 2027-01-01T00:00:00Z, or how long from now, such as 90d or 12h.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    not_before: Option<Timestamp>,
    /// When it ceases to hold, likewise; without it, never.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    expires: Option<Timestamp>,
    /// A word on it, for people.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// The key file to add it to, made if there is none, or the store; without either, the entry is printed.
    #[command(flatten)]
    place: KeyPlace,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `keys list`.
#[derive(Debug, Args)]
pub(crate) struct ListKeysArgs {
    /// Only this tenant's.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[command(flatten)]
    place: KeyPlace,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `keys rotate`.
#[derive(Debug, Args)]
pub(crate) struct RotateKeyArgs {
    /// The key's id.
    id: String,
    /// Its tenant; needed with a store, where two tenants may use one id.
    #[arg(long, value_name = "NAME", required_unless_present = "file")]
    tenant: Option<String>,
    /// For how long the old key holds beside the new one, such as 24h or 7d; 0s ends it now.
    #[arg(long, value_name = "TIME", value_parser = moment, default_value = "24h")]
    overlap: Timestamp,
    /// The new key's id; by default the old one with the next free number.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    new_id: Option<String>,
    #[command(flatten)]
    place: KeyPlace,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `keys revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeKeyArgs {
    /// The key's id.
    id: String,
    /// Its tenant; needed with a store, where two tenants may use one id.
    #[arg(long, value_name = "NAME", required_unless_present = "file")]
    tenant: Option<String>,
    #[command(flatten)]
    place: KeyPlace,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn role(text: &str) -> Result<Role, String> {
    match text {
        "read" => Ok(Role::Read),
        "write" => Ok(Role::Write),
        _ => Err("expected read or write".to_owned()),
    }
}

pub(super) fn run(command: &KeysCommand) -> anyhow::Result<Exit> {
    match command {
        KeysCommand::New(arguments) => new(arguments),
        KeysCommand::List(arguments) => list(arguments),
        KeysCommand::Rotate(arguments) => rotate(arguments),
        KeysCommand::Revoke(arguments) => revoke(arguments),
    }?;
    Ok(Exit::Clean)
}

fn new(arguments: &NewKeyArgs) -> anyhow::Result<()> {
    let secret = NewKey::generate();
    let (tenant, id) = (arguments.tenant.as_deref(), &arguments.id);
    let key = match arguments.role {
        Some(role) => secret.of_admin(id, role, tenant),
        None => secret.of_tenant(id, tenant.unwrap_or_default()),
    };
    let key = Key {
        not_before: arguments.not_before,
        expires: arguments.expires,
        note: arguments.note.clone(),
        ..key
    };
    let kind = if arguments.role.is_some() { KeyKind::Admin } else { KeyKind::Client };
    // Keys of the administration are kept in no store.
    let store = arguments.place.store().filter(|_| kind == KeyKind::Client);
    match (&arguments.place.file, &store) {
        (Some(file), _) => {
            edit_key_file(file, kind, KeyEdit::Add(key.clone()))?;
        }
        (None, Some(url)) => {
            let store = OpenStore::open(url)?;
            let mut edit = store.edit()?;
            store.wait(edit.add_key(tenant.unwrap_or_default(), &stored(&key)))?;
            store.wait(edit.commit())?;
        }
        (None, None) => {
            let entry = key.entry();
            return Ok(say(format_args!(
                "# The key, shown once: give it to the client.\n# {}\n# Its entry for the key file:\n{}",
                secret.reveal(),
                entry.trim_end()
            ))?);
        }
    }
    show(&secret, &key, arguments.json)
}

/// Shows a key once.
fn show(secret: &NewKey, key: &Key, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return say_json(&json!({ "id": key.id, "key": secret.reveal(), "expires": key.expires }));
    }
    Ok(say(secret.reveal())?)
}

/// The key as a store takes it.
fn stored(key: &Key) -> cluegate_store::NewKey {
    cluegate_store::NewKey {
        id: key.id.clone(),
        sha256: KeyHash(key.hash),
        note: key.note.clone().unwrap_or_default(),
        not_before_ms: key.not_before.map(Timestamp::as_millisecond),
        expires_ms: key.expires.map(Timestamp::as_millisecond),
    }
}

fn list(arguments: &ListKeysArgs) -> anyhow::Result<()> {
    let keys: Vec<Key> = match (&arguments.place.file, &arguments.place.store()) {
        (Some(file), _) => {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            KeyFile::keys(&text, &file.display().to_string())?
        }
        (None, Some(url)) => {
            let store = OpenStore::open(url)?;
            let ring = store.check(store.stored().keys())?;
            let mut keys: Vec<Key> = ring.iter().map(|key| Key::clone(key)).collect();
            keys.sort_by(|one, other| (&one.tenant, &one.id).cmp(&(&other.tenant, &other.id)));
            keys
        }
        (None, None) => bail!("expected --file FILE or --store URL"),
    };
    let now = Timestamp::now();
    let asked = |key: &&Key| arguments.tenant.is_none() || key.tenant == arguments.tenant;
    let keys = keys.iter().filter(asked);
    if arguments.json {
        return say_json(&keys.map(|key| described(key, now)).collect::<Vec<_>>());
    }
    for key in keys {
        let owner = match (&key.tenant, key.role) {
            (Some(tenant), Some(role)) => format!("{} for {tenant}", role.as_str()),
            (None, Some(role)) => role.as_str().to_owned(),
            (tenant, None) => tenant.clone().unwrap_or_default(),
        };
        let state = key.lapse(now).map_or_else(
            || key.expires.map_or("holds".to_owned(), |end| format!("holds until {end:.0}")),
            |lapse| lapse.to_string(),
        );
        let note = key.note.as_ref().map_or_else(String::new, |note| format!("; {note}"));
        say(format_args!("{}: {owner}, {state}{note}", key.id))?;
    }
    Ok(())
}

fn described(key: &Key, now: Timestamp) -> Value {
    json!({
        "id": key.id, "tenant": key.tenant, "role": key.role, "not_before": key.not_before, "expires": key.expires,
        "revoked": key.revoked, "note": key.note, "holds": key.lapse(now).is_none(),
    })
}

fn rotate(arguments: &RotateKeyArgs) -> anyhow::Result<()> {
    let secret = NewKey::generate();
    let (id, until) = (arguments.id.clone(), arguments.overlap);
    let key = match (&arguments.place.file, &arguments.place.store()) {
        (Some(file), _) => {
            let kind = file_kind(file)?;
            let (new_id, hash) = (arguments.new_id.clone(), secret.hash());
            edit_key_file(file, kind, KeyEdit::Rotate { id, new_id, hash, until })?
        }
        (None, Some(url)) => {
            let store = OpenStore::open(url)?;
            let tenant = arguments.tenant.as_deref().unwrap_or_default();
            let ring = store.check(store.stored().keys())?;
            let own = || ring.iter().filter(|key| key.tenant.as_deref() == Some(tenant));
            let old = own().find(|key| key.id == id);
            let old = old.with_context(|| format!("the tenant {tenant:?} has no key {id:?}"))?;
            let taken = |id: &str| own().any(|key| key.id == id);
            let key = rotated(old, arguments.new_id.clone(), secret.hash(), taken);
            let mut edit = store.edit()?;
            store.wait(edit.rotate_key(tenant, &id, &stored(&key), until.as_millisecond()))?;
            store.wait(edit.commit())?;
            key
        }
        (None, None) => bail!("expected --file FILE or --store URL"),
    };
    show(&secret, &key, arguments.json)
}

/// Whose keys are in a file: one of the administration's has roles.
fn file_kind(file: &std::path::Path) -> anyhow::Result<KeyKind> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let keys = KeyFile::keys(&text, &file.display().to_string())?;
    let admin = keys.iter().any(|key| key.role.is_some());
    Ok(if admin { KeyKind::Admin } else { KeyKind::Client })
}

fn revoke(arguments: &RevokeKeyArgs) -> anyhow::Result<()> {
    let (id, at) = (arguments.id.clone(), Timestamp::now());
    match (&arguments.place.file, &arguments.place.store()) {
        (Some(file), _) => {
            edit_key_file(file, file_kind(file)?, KeyEdit::Revoke { id, at })?;
        }
        (None, Some(url)) => {
            let store = OpenStore::open(url)?;
            let mut edit = store.edit()?;
            store.wait(edit.revoke_key(arguments.tenant.as_deref().unwrap_or_default(), &id))?;
            store.wait(edit.commit())?;
        }
        (None, None) => bail!("expected --file FILE or --store URL"),
    }
    match arguments.json {
        true => say_json(&json!({ "id": arguments.id, "revoked": at })),
        false => Ok(say(format_args!("{} is revoked", arguments.id))?),
    }
}
