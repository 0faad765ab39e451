//! Policies and keys in a store, of which only what changed is read again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluegate_gate::policy::{ConstitutionSource, PieceKind, PolicyPiece};
use cluegate_gate::{ConstitutionText, Constitutions, Policies};
use cluegate_store::{Changes, Constitution, Store, Template, Tenant, TenantState};
use jiff::Timestamp;

use super::{Loaded, ReloadError};
use crate::keys::{Key, KeyKind, KeyRing};

/// Policies and keys in a store.
#[derive(Debug)]
pub struct Stored {
    store: Store,
    state: tokio::sync::Mutex<State>,
}

/// What was read last, as far as it could be built.
#[derive(Debug, Clone, Default)]
struct State {
    generation: Option<i64>,
    policies: Option<Policies>,
    texts: Texts,
    keys: BTreeMap<(String, String), Arc<Key>>,
    suspended: BTreeSet<String>,
}

/// A change that is to be made to a store: what is in it afterwards by that name, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposal {
    /// A template's policy.
    Template(String, Option<String>),
    /// A tenant's policy.
    Tenant(String, Option<String>),
    /// The current text of a constitution.
    Constitution(String, Option<String>),
}

/// The current texts of the store's constitutions.
#[derive(Debug, Clone, Default)]
struct Texts(BTreeMap<String, ConstitutionText>);

impl Constitutions for Texts {
    fn text(&self, name: &str) -> Result<ConstitutionText, String> {
        let known = || self.0.keys().map(String::as_str);
        self.0.get(name).cloned().ok_or_else(|| {
            let nearest = cluegate_constitution::nearest(name, known());
            let hint = cluegate_gate::policy::did_you_mean(nearest);
            format!("the store has none of this name{hint}; upload it, or `cluegate tenants import` it")
        })
    }
}

impl Stored {
    /// What is in `store`. Nothing is read yet.
    pub fn new(store: Store) -> Self {
        Self { store, state: tokio::sync::Mutex::default() }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The keys in the store.
    ///
    /// # Errors
    /// If the store cannot be reached, or what it holds cannot be used.
    pub async fn keys(&self) -> Result<KeyRing, ReloadError> {
        let changes = self.store.load().await.map_err(ReloadError::store)?;
        let keys = changes.keys.into_values().flatten().map(client_key).collect::<Result<Vec<_>, _>>()?;
        KeyRing::new(keys, KeyKind::Client, "the store").map_err(ReloadError::keys)
    }

    /// Looks whether the store could be used after some changes, and gives the policies that it would hold then.
    ///
    /// # Errors
    /// If the store cannot be reached, or could not be used.
    pub async fn check(&self, proposals: Vec<Proposal>) -> Result<Policies, ReloadError> {
        let state = self.state.lock().await.clone();
        let mut changes = self.changes(&state).await?;
        propose(&mut changes, &proposals);
        let texts: BTreeSet<String> = changes.constitutions.keys().cloned().collect();
        let checked = tokio::task::spawn_blocking(move || {
            let (before, everything) = (state.policies.clone(), changes.everything);
            let after = state.with(changes)?;
            let Some(policies) = after.policies else {
                return Err(ReloadError::policies("nothing was read"));
            };
            check_touched(&policies, before.filter(|_| !everything).as_ref(), &texts)?;
            Ok(policies)
        });
        checked.await.map_err(|panic| ReloadError::policies(format!("the check failed: {panic}")))?
    }

    /// Reads what changed since the last time, or all of it the first time.
    ///
    /// # Errors
    /// If the store cannot be reached, or what it holds cannot be used.
    pub(super) async fn load(&self) -> Result<Loaded, ReloadError> {
        let mut state = self.state.lock().await;
        let changes = self.changes(&state).await?;
        let next = tokio::task::spawn_blocking({
            let state = state.clone();
            move || state.with(changes)
        });
        let next =
            next.await.map_err(|panic| ReloadError::policies(format!("reading failed: {panic}")))??;
        // Only what could be built: else the same changes are read again.
        *state = next;
        state.loaded()
    }
}

impl Stored {
    async fn changes(&self, since: &State) -> Result<Changes, ReloadError> {
        let changes = match (&since.policies, since.generation) {
            (Some(_), Some(generation)) => self.store.changes_since(generation).await,
            _ => self.store.load().await,
        };
        changes.map_err(ReloadError::store)
    }
}

/// Puts what is proposed over what is in the store.
fn propose(changes: &mut Changes, proposals: &[Proposal]) {
    let (version, changed_ms, changed_by) = (0, 0, String::new());
    for proposal in proposals {
        let changed_by = changed_by.clone();
        match proposal.clone() {
            Proposal::Template(name, policy) => {
                let template = policy.map(|policy| Template {
                    name: name.clone(),
                    policy,
                    version,
                    changed_by,
                    changed_ms,
                });
                changes.templates.insert(name, template);
            }
            Proposal::Tenant(name, policy) => {
                let state = TenantState::Active;
                let tenant = policy.map(|policy| Tenant {
                    name: name.clone(),
                    policy,
                    state,
                    version,
                    changed_by,
                    changed_ms,
                });
                changes.tenants.insert(name, tenant);
            }
            Proposal::Constitution(name, text) => {
                let revision = "proposed".to_owned();
                let constitution = text.map(|text| Constitution {
                    name: name.clone(),
                    revision,
                    text,
                    version,
                    changed_by,
                    changed_ms,
                });
                changes.constitutions.insert(name, constitution);
            }
        }
    }
}

/// Reads the constitutions of all policies that are not as they were, or name one of `texts`.
fn check_touched(
    policies: &Policies,
    before: Option<&Policies>,
    texts: &BTreeSet<String>,
) -> Result<(), ReloadError> {
    let names = |source: &ConstitutionSource| matches!(source, ConstitutionSource::Named(name) if texts.contains(name));
    let mut seen = BTreeSet::new();
    for tenant in policies.tenants() {
        let Some(now) = policies.tenant(tenant) else { continue };
        let same = before.and_then(|before| before.tenant(tenant)).is_some_and(|old| Arc::ptr_eq(old, now));
        for policy in now.all() {
            let canary = policy.canary.as_ref().map(|canary| &canary.constitution);
            let touched = !same || names(&policy.constitution) || canary.is_some_and(names);
            // Policies that say the same share what they say.
            let terms: &cluegate_gate::policy::Terms = policy;
            if touched && seen.insert(std::ptr::from_ref(terms)) {
                policies.constitution(policy).map_err(ReloadError::policies)?;
            }
        }
    }
    Ok(())
}

impl State {
    /// The state after these changes.
    fn with(self, changes: Changes) -> Result<Self, ReloadError> {
        let before = if changes.everything { Self::default() } else { self };
        let Self { policies, mut texts, mut keys, mut suspended, .. } = before;
        for (name, constitution) in changes.constitutions {
            match constitution {
                Some(found) => {
                    let origin = format!("{name} (store, revision {:.12})", found.revision);
                    texts.0.insert(name, ConstitutionText { origin, text: found.text.into() });
                }
                None => {
                    texts.0.remove(&name);
                }
            }
        }
        let (mut pieces, mut removed) = (Vec::new(), Vec::new());
        let mut piece = |kind: PieceKind, name: &str, text: Option<String>| match text {
            Some(text) => {
                let origin = format!("{kind} {name} (store)");
                pieces.push(PolicyPiece { kind, name: name.to_owned(), origin, text });
            }
            None => removed.push((kind, name.to_owned())),
        };
        for (name, template) in changes.templates {
            piece(PieceKind::Template, &name, template.map(|template| template.policy));
        }
        for (name, tenant) in changes.tenants {
            match &tenant {
                Some(tenant) if tenant.state == TenantState::Suspended => suspended.insert(name.clone()),
                _ => suspended.remove(&name),
            };
            piece(PieceKind::Tenant, &name, tenant.map(|tenant| tenant.policy));
        }
        for ((tenant, id), key) in changes.keys {
            match key {
                Some(key) => keys.insert((tenant, id), Arc::new(client_key(key)?)),
                None => keys.remove(&(tenant, id)),
            };
        }
        let from = Arc::new(texts.clone());
        let policies = match policies {
            Some(policies) => {
                let removed: Vec<(PieceKind, &str)> =
                    removed.iter().map(|(kind, name)| (*kind, name.as_str())).collect();
                policies.with_changes(pieces, &removed).map(|policies| policies.with_constitutions(from))
            }
            None => Policies::from_pieces(pieces, from),
        };
        let policies = Some(policies.map_err(ReloadError::policies)?);
        Ok(Self { generation: Some(changes.generation), policies, texts, keys, suspended })
    }

    fn loaded(&self) -> Result<Loaded, ReloadError> {
        let Some(policies) = self.policies.clone() else {
            return Err(ReloadError::policies("nothing was read"));
        };
        let keys = KeyRing::new(self.keys.values().cloned(), KeyKind::Client, "the store");
        let keys = keys.map_err(ReloadError::keys)?;
        Ok(Loaded { policies, keys, generation: self.generation, suspended: self.suspended.clone() })
    }
}

/// A key of the store as the door knows it.
fn client_key(key: cluegate_store::Key) -> Result<Key, ReloadError> {
    let time = |ms: i64| {
        let out_of_range =
            |_| ReloadError::keys(format!("the key {:?} names a time beyond all times: {ms}", key.id));
        Timestamp::from_millisecond(ms).map_err(out_of_range)
    };
    Ok(Key {
        not_before: Some(time(key.not_before_ms)?),
        expires: key.expires_ms.map(time).transpose()?,
        revoked: key.revoked_ms.map(time).transpose()?,
        hash: key.sha256.0,
        note: Some(key.note.clone()).filter(|note| !note.is_empty()),
        role: None,
        tenant: Some(key.tenant.clone()),
        id: key.id.clone(),
    })
}
