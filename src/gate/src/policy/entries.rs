//! The tables of tenants and templates as they are written, and the chains of `extends` between them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use cluegate_constitution::nearest;
use toml::{Table, Value};

use super::{PolicyError, RawPolicies, RawPolicy, keys};

/// Longest chain of `extends`.
const MAX_CHAIN: usize = 32;
/// Longest name of a tenant or a template in bytes.
const MAX_NAME: usize = 128;
/// Longest text of one tenant or template in bytes.
const MAX_PIECE_BYTES: usize = 1 << 20;
/// Most tenants and templates together.
const MAX_ENTRIES: usize = 200_000;

/// What a table of a policy file is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PieceKind {
    /// Keys for others to take over.
    Template,
    /// A tenant.
    Tenant,
}

impl fmt::Display for PieceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Template => "template",
            Self::Tenant => "tenant",
        })
    }
}

/// The table of one tenant or template, from wherever it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyPiece {
    /// Tenant or template.
    pub kind: PieceKind,
    /// Its name.
    pub name: String,
    /// Where the text came from, for errors.
    pub origin: String,
    /// TOML as below `[tenant.NAME]` in a policy file, without that header: `tries = 2`, `[action]`.
    pub text: String,
}

/// The name of a table: `tenant.kids`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) kind: PieceKind,
    pub(super) name: Arc<str>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind, quoted(&self.name))
    }
}

/// A key as TOML needs it.
pub(super) fn quoted(key: &str) -> String {
    let bare =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if bare { key.to_owned() } else { Value::from(key).to_string() }
}

/// One table as it is written.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) origin: Arc<str>,
    /// What the table was read from: a whole file, or the table alone.
    text: Arc<str>,
    whole: bool,
    /// Its keys. Parameters are split into rule and name: `"a.b" = 1` is `a.b = 1`.
    pub(super) table: Table,
}

pub(super) type Entries = BTreeMap<Place, Arc<Entry>>;

/// The tables of a policy file.
pub(super) fn read_file(text: &str, origin: &str) -> Result<Entries, PolicyError> {
    let table: Table = text.parse().map_err(|source| toml_error(origin, &source))?;
    refuse_unknown(&table, schema_of_file(), origin, "")?;
    let (text, origin): (Arc<str>, Arc<str>) = (text.into(), origin.into());
    let mut entries = Entries::new();
    for (kind, tables) in table {
        let kind = if kind == "template" { PieceKind::Template } else { PieceKind::Tenant };
        // What is no table at all is told with its place by the typed reading.
        let Value::Table(tables) = tables else { return Err(mistyped(&text, &origin)) };
        for (name, table) in tables {
            let Value::Table(table) = table else { return Err(mistyped(&text, &origin)) };
            let place = Place { kind, name: name.into() };
            let (text, origin) = (Arc::clone(&text), Arc::clone(&origin));
            add(&mut entries, Entry { place, origin, text, whole: true, table })?;
        }
    }
    Ok(entries)
}

/// The table of one piece, for [`add`].
pub(super) fn read_piece(piece: PolicyPiece) -> Result<Entry, PolicyError> {
    let PolicyPiece { kind, name, origin, text } = piece;
    let place = Place { kind, name: name.into() };
    if text.len() > MAX_PIECE_BYTES {
        return Err(PolicyError::Value {
            origin,
            path: place.to_string(),
            expected: "a text of at most 1048576 bytes",
            found: format!("{} bytes", text.len()),
        });
    }
    let table: Table = text.parse().map_err(|source| toml_error(&origin, &source))?;
    refuse_unknown(&table, schema_of_piece(), &origin, &format!("{place}."))?;
    Ok(Entry { place, origin: origin.into(), text: text.into(), whole: false, table })
}

/// Adds an entry of which there may be no other of the name.
pub(super) fn add(entries: &mut Entries, mut entry: Entry) -> Result<(), PolicyError> {
    check(&mut entry)?;
    if let Some(first) = entries.get(&entry.place) {
        return Err(PolicyError::Twice {
            place: entry.place.to_string(),
            first: first.origin.to_string(),
            second: entry.origin.to_string(),
        });
    }
    if entries.len() >= MAX_ENTRIES {
        return Err(PolicyError::Value {
            origin: entry.origin.to_string(),
            path: entry.place.to_string(),
            expected: "one of at most 200000 tenants and templates",
            found: "one more".to_owned(),
        });
    }
    entries.insert(entry.place.clone(), Arc::new(entry));
    Ok(())
}

/// Checks the name, and splits the keys of parameters.
fn check(entry: &mut Entry) -> Result<(), PolicyError> {
    let name = &entry.place.name;
    if name.trim().is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(PolicyError::Value {
            origin: entry.origin.to_string(),
            path: entry.place.kind.to_string(),
            expected: "tables with names of 1 to 128 bytes that are not blank and have no control characters",
            found: format!("{name:?}"),
        });
    }
    split_parameters(&mut entry.table);
    if let Some(Value::Table(models)) = entry.table.get_mut("model") {
        models.iter_mut().for_each(|(_, model)| {
            if let Value::Table(model) = model {
                split_parameters(model);
            }
        });
    }
    Ok(())
}

/// `"rule.name" = 1` means what `rule.name = 1` does, so that a tenant replaces a template's value in either form.
fn split_parameters(table: &mut Table) {
    let Some(Value::Table(parameters)) = table.get_mut("parameter") else { return };
    let dotted: Vec<String> = parameters.keys().filter(|key| key.contains('.')).cloned().collect();
    for key in dotted {
        let Some((rule, name)) = key.split_once('.') else { continue };
        let Some(value) = parameters.remove(&key) else { continue };
        if let Value::Table(rule) = parameters.entry(rule).or_insert_with(|| Value::Table(Table::new())) {
            rule.insert(name.to_owned(), value);
        }
    }
}

fn refuse_unknown(
    table: &Table,
    schema: &serde_json::Value,
    origin: &str,
    prefix: &str,
) -> Result<(), PolicyError> {
    match keys::find_unknown(table, schema) {
        None => Ok(()),
        Some(keys::UnknownKey { path, nearest, known }) => Err(PolicyError::UnknownKey {
            origin: origin.to_owned(),
            path: format!("{prefix}{path}"),
            nearest,
            known,
        }),
    }
}

/// The schema of a policy file, made once.
pub(super) fn schema_of_file() -> &'static serde_json::Value {
    static SCHEMA: OnceLock<serde_json::Value> = OnceLock::new();
    SCHEMA.get_or_init(|| schemars::schema_for!(RawPolicies).to_value())
}

fn schema_of_piece() -> &'static serde_json::Value {
    static SCHEMA: OnceLock<serde_json::Value> = OnceLock::new();
    SCHEMA.get_or_init(|| schemars::schema_for!(RawPolicy).to_value())
}

fn toml_error(origin: &str, source: &toml::de::Error) -> PolicyError {
    PolicyError::Toml { origin: origin.to_owned(), problem: source.to_string().trim_end().to_owned() }
}

/// The error of a file in which a value has the wrong type, with line and column.
fn mistyped(text: &str, origin: &str) -> PolicyError {
    match toml::from_str::<RawPolicies>(text) {
        Err(source) => toml_error(origin, &source),
        Ok(_) => {
            let problem = "`tenant` and `template` must be tables of tables".to_owned();
            PolicyError::Toml { origin: origin.to_owned(), problem }
        }
    }
}

impl Entry {
    /// What the typed reading of this table's text says against it, with line and column.
    pub(super) fn type_error(&self) -> Option<PolicyError> {
        let read = if self.whole {
            toml::from_str::<RawPolicies>(&self.text).map(drop)
        } else {
            toml::from_str::<RawPolicy>(&self.text).map(drop)
        };
        read.err().map(|source| toml_error(&self.origin, &source))
    }

    /// The template that this table builds on.
    fn extends(&self) -> Result<Option<&str>, PolicyError> {
        match self.table.get("extends") {
            None => Ok(None),
            Some(Value::String(name)) => Ok(Some(name)),
            Some(other) => Err(self.type_error().unwrap_or_else(|| PolicyError::Value {
                origin: self.origin.to_string(),
                path: format!("{}.extends", self.place),
                expected: "the name of a template",
                found: other.to_string(),
            })),
        }
    }
}

/// The tables that make up `entry`, its own first, the template at the root last.
pub(super) fn chain(entries: &Entries, entry: &Arc<Entry>) -> Result<Vec<Arc<Entry>>, PolicyError> {
    let mut chain = vec![Arc::clone(entry)];
    loop {
        let Some(last) = chain.last() else { return Ok(chain) };
        let Some(name) = last.extends()? else { return Ok(chain) };
        let place = Place { kind: PieceKind::Template, name: name.into() };
        let written = || {
            let names = chain.iter().map(|entry| entry.place.to_string()).chain([place.to_string()]);
            names.collect::<Vec<_>>().join(" -> ")
        };
        let origin = || last.origin.to_string();
        if chain.iter().any(|known| known.place == place) {
            return Err(PolicyError::Cycle { origin: origin(), chain: written() });
        }
        if chain.len() >= MAX_CHAIN {
            return Err(PolicyError::ChainTooLong { origin: origin(), chain: written(), most: MAX_CHAIN });
        }
        let Some(next) = entries.get(&place) else {
            let templates = entries.keys().filter(|known| known.kind == PieceKind::Template);
            let nearest = nearest(name, templates.map(|known| &*known.name)).map(str::to_owned);
            return Err(PolicyError::UnknownTemplate {
                origin: origin(),
                chain: written(),
                template: name.to_owned(),
                nearest,
            });
        };
        let next = Arc::clone(next);
        chain.push(next);
    }
}

/// Lays `over` on `base`: tables key by key, anything else is replaced.
pub(super) fn lay_over(base: &mut Table, over: &Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => lay_over(base, over),
            (_, value) => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}
