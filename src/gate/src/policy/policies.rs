//! The policies of all tenants: read from one file or from many pieces, merged, built, and changed piece by piece.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use cluegate_constitution::Constitution;
use toml::{Table, Value};

use super::built::{Policy, TenantPolicy, Terms};
use super::check::Check;
use super::entries::{
    Entries, Entry, PieceKind, Place, PolicyPiece, add, chain, lay_over, quoted, read_file, read_piece,
};
use super::glob::{self, Glob};
use super::{PolicyError, RawPolicy};
use crate::GateError;
use crate::constitutions::{Constitutions, Folder, Resolver};

/// Longest policy file in bytes: ten thousand tenants take a tenth of it.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Most `model` tables of one tenant or template, inherited ones included.
const MAX_MODELS: usize = 256;

/// The policies of all tenants, and where their constitutions are found. Cheap to clone; to change it makes another, which
/// shares with this one all that is the same.
#[derive(Debug, Clone)]
pub struct Policies {
    entries: Arc<Entries>,
    tenants: Arc<BTreeMap<Arc<str>, Arc<TenantPolicy>>>,
    constitutions: Arc<dyn Constitutions>,
}

impl Policies {
    /// Reads a policy file. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// If the file cannot be read or used; the error names the file and the key.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, PolicyError> {
        let path = path.as_ref();
        let fail = |problem: String| PolicyError::Read { path: path.to_path_buf(), problem };
        let size = fs::metadata(path).map_err(|source| fail(source.to_string()))?.len();
        if size > MAX_FILE_BYTES {
            return Err(fail(format!("it has {size} bytes, more than {MAX_FILE_BYTES}")));
        }
        let text = fs::read_to_string(path).map_err(|source| fail(source.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::from_file(&text, &path.display().to_string(), folder)
    }

    /// Reads a policy file's text; `origin` says in errors where it came from. Paths in it are relative to the current
    /// folder.
    ///
    /// # Errors
    /// If it cannot be used; the error names the key.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, PolicyError> {
        Self::from_file(text, origin, Path::new(""))
    }

    fn from_file(text: &str, origin: &str, folder: &Path) -> Result<Self, PolicyError> {
        let entries = read_file(text, origin)?;
        if !entries.keys().any(|place| place.kind == PieceKind::Tenant) {
            return Err(PolicyError::NoTenant { origin: origin.to_owned() });
        }
        Self::none(Arc::new(Folder::new(folder))).changed(entries, None)
    }

    /// Policies from pieces, such as the rows of a store. There may be no tenant among them.
    ///
    /// # Errors
    /// If one of them cannot be used; the error names its origin and the key.
    pub fn from_pieces(
        pieces: impl IntoIterator<Item = PolicyPiece>,
        constitutions: Arc<dyn Constitutions>,
    ) -> Result<Self, PolicyError> {
        let mut entries = Entries::new();
        pieces.into_iter().try_for_each(|piece| add(&mut entries, read_piece(piece)?))?;
        Self::none(constitutions).changed(entries, None)
    }

    /// These policies with some pieces replaced or added, and others removed. What they do not touch is not read again.
    ///
    /// # Errors
    /// If a piece cannot be used, or a template is missed by a tenant that builds on it.
    pub fn with_changes(
        &self,
        changed: impl IntoIterator<Item = PolicyPiece>,
        removed: &[(PieceKind, &str)],
    ) -> Result<Self, PolicyError> {
        let mut entries = Entries::clone(&self.entries);
        let mut touched = BTreeSet::new();
        for (kind, name) in removed {
            let place = Place { kind: *kind, name: (*name).into() };
            entries.remove(&place);
            touched.insert(place);
        }
        for piece in changed {
            let entry = read_piece(piece)?;
            if touched.insert(entry.place.clone()) {
                entries.remove(&entry.place);
            }
            add(&mut entries, entry)?;
        }
        self.changed(entries, Some(&touched))
    }

    /// The same policies with constitutions from elsewhere.
    #[must_use]
    pub fn with_constitutions(self, constitutions: Arc<dyn Constitutions>) -> Self {
        Self { constitutions, ..self }
    }

    fn none(constitutions: Arc<dyn Constitutions>) -> Self {
        Self { entries: Arc::default(), tenants: Arc::default(), constitutions }
    }

    /// Builds what stands in `entries` from tables that are `touched`, or from all of them; the rest is taken over.
    fn changed(&self, entries: Entries, touched: Option<&BTreeSet<Place>>) -> Result<Self, PolicyError> {
        let mut tenants = BTreeMap::new();
        if let Some(touched) = touched {
            tenants.clone_from(&self.tenants);
            touched.iter().filter(|place| place.kind == PieceKind::Tenant).for_each(|place| {
                tenants.remove(&place.name);
            });
        }
        let mut shared = HashMap::new();
        for entry in possibly_touched(&entries, touched) {
            // Whatever builds on nothing has nothing to look up.
            let chain = match entry.table.contains_key("extends") {
                true => chain(&entries, entry)?,
                false => vec![Arc::clone(entry)],
            };
            if touched.is_some_and(|touched| !chain.iter().any(|entry| touched.contains(&entry.place))) {
                continue;
            }
            let built = Building { chain: &chain, entry, shared: &mut shared }.build()?;
            if entry.place.kind == PieceKind::Tenant {
                tenants.insert(Arc::clone(&entry.place.name), Arc::new(built));
            }
        }
        let (entries, tenants) = (Arc::new(entries), Arc::new(tenants));
        Ok(Self { entries, tenants, constitutions: Arc::clone(&self.constitutions) })
    }

    /// The policy of `tenant`.
    ///
    /// # Errors
    /// [`GateError::UnknownTenant`] if there is none, with the tenant that is spelled most alike.
    pub fn require(&self, tenant: &str) -> Result<&Arc<Policy>, GateError> {
        self.get(tenant).ok_or_else(|| GateError::unknown_tenant(tenant, self.tenants()))
    }

    /// The policy of `tenant` for generation models that it does not name, if it has one.
    pub fn get(&self, tenant: &str) -> Option<&Arc<Policy>> {
        self.tenants.get(tenant).map(|tenant| tenant.policy())
    }

    /// All policies of `tenant`, if it has any.
    pub fn tenant(&self, tenant: &str) -> Option<&Arc<TenantPolicy>> {
        self.tenants.get(tenant)
    }

    /// Each tenant's policy for generation models that it does not name, in the order of the tenants' names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.tenants.values().map(|tenant| tenant.policy())
    }

    /// Names of all tenants.
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        self.tenants.keys().map(|name| &**name)
    }

    /// All tenants with all their policies, by name.
    pub(crate) fn all(&self) -> &BTreeMap<Arc<str>, Arc<TenantPolicy>> {
        &self.tenants
    }

    /// Where constitutions are found that do not ship with the program.
    pub(crate) fn constitutions(&self) -> &Arc<dyn Constitutions> {
        &self.constitutions
    }

    /// The constitution that pictures are judged by under `policy`: its rules, thresholds and parameters in place.
    ///
    /// # Errors
    /// If it cannot be read or used, or the policy names a rule or a parameter that it does not have, or sets one outside
    /// its bounds.
    pub fn constitution(&self, policy: &Policy) -> Result<Arc<Constitution>, GateError> {
        Ok(Resolver::default().begin(self.constitutions.as_ref()).rulings(policy)?.stable)
    }

    /// The keys that stand in the table of `tenant` itself, without those of templates; none for an unknown tenant.
    pub fn own_keys(&self, tenant: &str) -> Option<&Table> {
        let place = Place { kind: PieceKind::Tenant, name: tenant.into() };
        self.entries.get(&place).map(|entry| &entry.table)
    }

    pub(super) fn entries(&self) -> &Entries {
        &self.entries
    }
}

/// The tables that may be built from one that is touched. Any may build on a template, and templates come first, so that a
/// mistake in one is told where it was made; nothing builds on a tenant.
fn possibly_touched<'a>(entries: &'a Entries, touched: Option<&BTreeSet<Place>>) -> Vec<&'a Arc<Entry>> {
    match touched {
        Some(touched) if touched.iter().all(|place| place.kind == PieceKind::Tenant) => {
            touched.iter().filter_map(|place| entries.get(place)).collect()
        }
        _ => entries.values().collect(),
    }
}

/// The keys of one table and all that it builds on.
pub(super) struct Merged {
    /// Without `extends` and `model`.
    pub(super) own: Table,
    /// What the `model` tables say, by pattern, from the most specific.
    pub(super) models: Vec<(Glob, String, Table)>,
}

/// Merges the tables of a chain, the last of which is the root.
pub(super) fn merge(chain: &[Arc<Entry>]) -> Result<Merged, PolicyError> {
    let mut own = Table::new();
    for entry in chain.iter().rev() {
        lay_over(&mut own, &entry.table);
    }
    own.remove("extends");
    let models = match own.remove("model") {
        None => Table::new(),
        Some(Value::Table(models)) => models,
        Some(_) => return Err(mistyped(chain, "`model` must be a table of tables")),
    };
    let mut ranked = Vec::new();
    for (pattern, keys) in models {
        let Value::Table(keys) = keys else {
            return Err(mistyped(chain, &format!("`model.{}` must be a table", quoted(&pattern))));
        };
        let refuse = |key: &str, expected, found: String| PolicyError::Value {
            origin: origin(chain),
            path: format!("{}.model.{}{key}", place(chain), quoted(&pattern)),
            expected,
            found,
        };
        for key in ["extends", "model", "suspended"] {
            if keys.contains_key(key) {
                let expected = "left out: a `model` table only replaces keys of its own tenant or template";
                return Err(refuse(&format!(".{key}"), expected, "there".to_owned()));
            }
        }
        let Some(glob) = Glob::new(&pattern) else {
            return Err(refuse("", glob::EXPECTED, format!("{pattern:?}")));
        };
        if ranked.len() >= MAX_MODELS {
            return Err(refuse("", "one of at most 256 patterns", "one more".to_owned()));
        }
        ranked.push((glob, pattern, keys));
    }
    ranked.sort_by_cached_key(|(glob, _, _)| glob.rank());
    Ok(Merged { own, models: ranked })
}

/// Where the first table of a chain came from.
fn origin(chain: &[Arc<Entry>]) -> String {
    chain.first().map_or_else(String::new, |entry| entry.origin.to_string())
}

fn place(chain: &[Arc<Entry>]) -> String {
    chain.first().map_or_else(String::new, |entry| entry.place.to_string())
}

/// The error of a chain in which a value has the wrong type.
fn mistyped(chain: &[Arc<Entry>], problem: &str) -> PolicyError {
    let found = chain.iter().find_map(|entry| entry.type_error());
    found.unwrap_or_else(|| PolicyError::Toml {
        origin: origin(chain),
        problem: format!("{}: {problem}", place(chain)),
    })
}

/// One table that is built into policies.
struct Building<'a> {
    chain: &'a [Arc<Entry>],
    entry: &'a Entry,
    /// Terms by the merged keys that they were built from.
    shared: &'a mut HashMap<(bool, String), Arc<Terms>>,
}

impl Building<'_> {
    fn build(mut self) -> Result<TenantPolicy, PolicyError> {
        let Merged { own, models } = merge(self.chain)?;
        let place = self.entry.place.to_string();
        let policy = self.policy(None, &own, &place)?;
        let models = models.into_iter().map(|(glob, pattern, keys)| {
            let mut whole = own.clone();
            lay_over(&mut whole, &keys);
            let place = format!("{place}.model.{}", quoted(&pattern));
            Ok((glob, self.policy(Some(pattern.into()), &whole, &place)?))
        });
        let models = models.collect::<Result<_, PolicyError>>()?;
        Ok(TenantPolicy { policy, models })
    }

    fn policy(
        &mut self,
        model: Option<Arc<str>>,
        keys: &Table,
        place: &str,
    ) -> Result<Arc<Policy>, PolicyError> {
        let template = self.entry.place.kind == PieceKind::Template;
        let tenant = Arc::clone(&self.entry.place.name);
        let text = toml::to_string(keys).map_err(|source| mistyped(self.chain, &source.to_string()))?;
        let key = (template, text);
        let terms = match self.shared.get(&key) {
            Some(terms) => Arc::clone(terms),
            None => {
                let raw: RawPolicy = keys
                    .clone()
                    .try_into()
                    .map_err(|source: toml::de::Error| mistyped(self.chain, source.message()))?;
                let terms = Arc::new(Check { origin: &self.entry.origin, place, template }.terms(raw)?);
                self.shared.insert(key, Arc::clone(&terms));
                terms
            }
        };
        Ok(Arc::new(Policy { tenant, model, terms }))
    }
}
