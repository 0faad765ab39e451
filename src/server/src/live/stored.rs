//! Policies and keys in a store, of which only what changed is read again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluegate_gate::policy::{ConstitutionSource, PieceKind, PolicyPiece};
use cluegate_gate::{ConstitutionText, Constitutions, Policies};
use cluegate_store::{Changes, Constitution, Edit, Expect, Store, StoreError, Template, Tenant, TenantState};
use jiff::Timestamp;

use super::{Loaded, ReloadError};
use crate::keys::{Key, KeyKind, KeyRing};

/// Policies and keys in a store.
#[derive(Debug)]
pub struct Stored {
    store: Store,
    state: tokio::sync::Mutex<State>,
}

/// What was read last, as far as it could be built. Cheap to clone: what a change does not touch is shared.
#[derive(Debug, Clone, Default)]
struct State {
    generation: Option<i64>,
    policies: Option<Policies>,
    texts: Arc<Texts>,
    keys: KeyRing,
    suspended: Arc<BTreeSet<String>>,
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

impl Proposal {
    /// Makes the change in `edit`, and gives the new version; none of what is removed. Whether the store can be used
    /// afterwards is for [`Stored::check`] to say.
    ///
    /// # Errors
    /// If the store does not hold what is expected, or cannot be written.
    pub async fn make(&self, edit: &mut Edit, expect: Expect) -> Result<Option<i64>, StoreError> {
        match self {
            Self::Template(name, Some(policy)) => edit.put_template(name, policy, expect).await.map(Some),
            Self::Template(name, None) => edit.remove_template(name, expect).await.map(|()| None),
            Self::Tenant(name, Some(policy)) => edit.put_tenant(name, policy, expect).await.map(Some),
            Self::Tenant(name, None) => edit.remove_tenant(name, expect).await.map(|()| None),
            Self::Constitution(name, Some(text)) => {
                let parsed = cluegate_constitution::Constitution::parse(text, name);
                let unusable = |problem: cluegate_constitution::ConstitutionError| StoreError::Invalid {
                    what: "constitution",
                    problem: problem.to_string(),
                };
                let revision = parsed.map_err(unusable)?.revision().to_hex();
                edit.add_revision(name, &revision, text).await?;
                edit.set_current(name, &revision, expect).await.map(Some)
            }
            Self::Constitution(name, None) => edit.remove_constitution(name, expect).await.map(|()| None),
        }
    }
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
        with_keys(&KeyRing::default(), changes.keys)
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
        let Self { policies, mut texts, keys, mut suspended, .. } = before;
        for (name, constitution) in changes.constitutions {
            let Texts(texts) = Arc::make_mut(&mut texts);
            match constitution {
                Some(found) => {
                    let origin = format!("{name} (store, revision {:.12})", found.revision);
                    texts.insert(name, ConstitutionText { origin, text: found.text.into() });
                }
                None => {
                    texts.remove(&name);
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
            let suspend = tenant.as_ref().is_some_and(|tenant| tenant.state == TenantState::Suspended);
            if suspend != suspended.contains(&name) {
                let suspended = Arc::make_mut(&mut suspended);
                if suspend {
                    suspended.insert(name.clone())
                } else {
                    suspended.remove(&name)
                };
            }
            piece(PieceKind::Tenant, &name, tenant.map(|tenant| tenant.policy));
        }
        let keys = with_keys(&keys, changes.keys)?;
        let from: Arc<Texts> = Arc::clone(&texts);
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
        let (keys, suspended) = (self.keys.clone(), Arc::clone(&self.suspended));
        Ok(Loaded { policies, keys, generation: self.generation, suspended })
    }
}

/// These keys with others in the place of those that changed.
fn with_keys(
    keys: &KeyRing,
    changes: BTreeMap<(String, String), Option<cluegate_store::Key>>,
) -> Result<KeyRing, ReloadError> {
    if changes.is_empty() {
        return Ok(keys.clone());
    }
    let (names, added): (Vec<_>, Vec<_>) = changes.into_iter().unzip();
    let added = added.into_iter().flatten().map(client_key).collect::<Result<Vec<_>, _>>()?;
    keys.with_changes(&names, added, KeyKind::Client, "the store").map_err(ReloadError::keys)
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
