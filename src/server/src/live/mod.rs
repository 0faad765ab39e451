//! What may change while the server runs: policies, constitutions and keys, from files or from a store.
//!
//! A reload reads and checks everything before anything is replaced. What was refused is told in the log, by the
//! administration and in a metric, and the last that could be used stays. Requests in work keep the policy that they began
//! with; none is dropped.

mod files;
mod reload;
mod stored;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use cluegate_constitution::nearest;
use cluegate_gate::Policies;
use cluegate_gate::policy::did_you_mean;
use cluegate_store::StoreError;
use cluegate_telemetry::catalogue;
use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

pub use self::files::Files;
use self::files::Looks;
pub use self::stored::{Proposal, Stored};
use crate::client::Client;
use crate::config::{Config, StoreConfig, WhenGone};
use crate::keys::{KeyError, KeyRing};
use crate::problem::{Problem, ProblemKind};

/// Why policies and keys cannot be used, or not be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{problem}")]
pub struct ReloadError {
    what: Part,
    problem: String,
}

/// What of a reload is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Part {
    /// Policies, templates or constitutions.
    Policies,
    /// Keys.
    Keys,
    /// The store cannot be reached.
    Store,
}

impl Part {
    fn as_str(self) -> &'static str {
        match self {
            Self::Policies => "policies",
            Self::Keys => "keys",
            Self::Store => "store",
        }
    }
}

impl ReloadError {
    pub(crate) fn policies(problem: impl std::fmt::Display) -> Self {
        Self { what: Part::Policies, problem: problem.to_string() }
    }

    pub(crate) fn keys(problem: impl std::fmt::Display) -> Self {
        Self { what: Part::Keys, problem: problem.to_string() }
    }

    pub(crate) fn store(problem: impl std::fmt::Display) -> Self {
        Self { what: Part::Store, problem: problem.to_string() }
    }
}

/// What was read and can be used, as far as it can be told before it replaces anything.
#[derive(Debug, Clone)]
pub struct Loaded {
    policies: Policies,
    keys: KeyRing,
    generation: Option<i64>,
    suspended: Arc<BTreeSet<String>>,
}

impl Loaded {
    /// The policies, for a gate.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    pub(crate) fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// Refuses keys of tenants that have no policy; `origin` says where the keys are from. In a store there are none.
    fn check_keys(&self, origin: &str) -> Result<(), ReloadError> {
        let named = self.keys.iter().filter_map(|key| Some((key.id.as_str(), key.tenant.as_deref()?)));
        // The same one each time that there are several.
        match named.filter(|(_, tenant)| self.policies.get(tenant).is_none()).min() {
            Some((id, tenant)) => {
                let problem = format!("the key {id:?} is of {}", self.nobody(tenant));
                Err(ReloadError::keys(KeyError::new(origin, problem)))
            }
            None => Ok(()),
        }
    }

    /// Refuses a tenant of those who bring no key that has no policy.
    pub(crate) fn check_anonymous(&self, anonymous: Option<&str>) -> Result<(), ReloadError> {
        match anonymous.filter(|tenant| self.policies.get(tenant).is_none()) {
            Some(tenant) => Err(ReloadError::keys(format!(
                "the configuration: `keys.anonymous` names {}",
                self.nobody(tenant)
            ))),
            None => Ok(()),
        }
    }

    fn nobody(&self, tenant: &str) -> String {
        let nearest = nearest(tenant, self.policies.tenants());
        format!("the tenant {tenant:?}, which has no policy{}", did_you_mean(nearest))
    }
}

/// A reload that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Refused {
    /// When.
    pub(crate) at: Timestamp,
    /// Which part of it.
    pub(crate) what: Part,
    /// Why.
    pub(crate) problem: String,
}

/// Where the gateway stands with its policies and keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    /// `files` or `store`.
    pub(crate) source: &'static str,
    /// The store's generation that is in use.
    pub(crate) generation: Option<i64>,
    /// When what is in use was read.
    pub(crate) loaded_at: Timestamp,
    /// Reloads that replaced something, since the start.
    pub(crate) reloads: u64,
    /// Reloads that were refused, since the start.
    pub(crate) refusals: u64,
    /// The last one, if nothing that could be used came after it.
    pub(crate) refused: Option<Refused>,
    /// Number of keys.
    pub(crate) keys: usize,
    /// Whether the store counts as gone.
    pub(crate) store_gone: bool,
}

/// Where policies and keys come from.
#[derive(Debug, Clone)]
pub enum PolicySource {
    /// Files.
    Files(Files),
    /// A store.
    Store(Arc<Stored>),
}

impl PolicySource {
    /// A store.
    pub fn store(store: cluegate_store::Store) -> Self {
        Self::Store(Arc::new(Stored::new(store)))
    }

    /// The files that a configuration without a store names.
    pub fn files(config: &Config) -> Self {
        Self::Files(Files { policy: config.policy.clone(), keys: config.keys.clone() })
    }

    /// Reads everything.
    ///
    /// # Errors
    /// If it cannot be read or used.
    pub async fn load(&self) -> Result<Loaded, ReloadError> {
        match self {
            Self::Files(files) => {
                let files = files.clone();
                let loaded = tokio::task::spawn_blocking(move || files.load()).await;
                loaded.map_err(|panic| ReloadError::policies(format!("reading failed: {panic}")))?
            }
            Self::Store(stored) => stored.load().await,
        }
    }

    /// Reads the files, where they are the source.
    pub(crate) fn load_files(&self) -> Result<Loaded, ReloadError> {
        match self {
            Self::Files(files) => files.load(),
            Self::Store(_) => {
                Err(ReloadError::policies("a store is read with its own runtime: open the gateway with it"))
            }
        }
    }

    /// What is read from a store, if it is one.
    pub(crate) fn stored(&self) -> Option<&Arc<Stored>> {
        match self {
            Self::Files(_) => None,
            Self::Store(stored) => Some(stored),
        }
    }

    /// How the files look now that belong to these policies.
    fn looks(&self, policies: &Policies) -> Looks {
        match self {
            Self::Files(files) => files.looks(policies),
            Self::Store(_) => Looks::default(),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Files(_) => "files",
            Self::Store(_) => "store",
        }
    }
}

/// Policies and keys, and how they are kept up to date.
#[derive(Debug)]
pub(crate) struct Live {
    source: PolicySource,
    /// Held by whoever reloads.
    turn: tokio::sync::Mutex<Seen>,
    status: Mutex<Status>,
    /// What is in use.
    policies: ArcSwap<Policies>,
    /// Tenants whom the store says to be suspended; a policy may say so too.
    suspended: ArcSwap<BTreeSet<String>>,
    /// When the store was last heard.
    contact: Mutex<Instant>,
    /// The administration's key file, which is looked at too.
    admin_keys: Option<PathBuf>,
    store: Option<StoreConfig>,
    poll: Option<Duration>,
}

/// What the source looked like when it was read last, whether it could be used or not.
#[derive(Debug, Default)]
struct Seen {
    files: Looks,
    generation: Option<i64>,
}

impl Live {
    /// Begins with what was loaded from `source`.
    pub(crate) fn new(config: &Config, source: PolicySource, loaded: &Loaded) -> Self {
        let status = Status {
            source: source.name(),
            generation: loaded.generation,
            loaded_at: Timestamp::now(),
            reloads: 0,
            refusals: 0,
            refused: None,
            keys: loaded.keys.len(),
            store_gone: false,
        };
        let admin_keys = config.admin.as_ref().map(|admin| admin.key_file.clone());
        let files = source.looks(&loaded.policies).and(admin_keys.as_deref());
        Self {
            source,
            turn: tokio::sync::Mutex::new(Seen { files, generation: loaded.generation }),
            status: Mutex::new(status),
            policies: ArcSwap::from_pointee(loaded.policies.clone()),
            suspended: ArcSwap::new(Arc::clone(&loaded.suspended)),
            contact: Mutex::new(Instant::now()),
            admin_keys,
            store: config.store.clone(),
            poll: config.poll,
        }
    }

    /// The policies in use, as they are written.
    pub(crate) fn policies(&self) -> Arc<Policies> {
        self.policies.load_full()
    }

    /// Where policies and keys come from.
    pub(crate) fn source(&self) -> &PolicySource {
        &self.source
    }

    /// Where the gateway stands.
    pub(crate) fn status(&self) -> Status {
        Status { store_gone: self.is_gone(), ..self.lock().clone() }
    }

    /// Refuses a client whose tenant is suspended.
    ///
    /// # Errors
    /// `Suspended`.
    pub(crate) fn refuse_suspended(&self, client: Client) -> Result<Client, Problem> {
        let by_policy = self.policies.load().get(&client.tenant).is_some_and(|policy| policy.suspended);
        if !by_policy && !self.suspended.load().contains(&*client.tenant) {
            return Ok(client);
        }
        let message = "this API key's tenant is suspended; ask whoever runs this server";
        Err(Problem::new(ProblemKind::Suspended, message))
    }

    /// Refuses new work while the store is gone, if the configuration says so.
    ///
    /// # Errors
    /// `StoreGone`.
    pub(crate) fn refuse_if_gone(&self, retry_after: Duration) -> Result<(), Problem> {
        let refuses = self.store.as_ref().is_some_and(|store| store.when_gone == WhenGone::Refuse);
        if refuses && self.is_gone() { Err(Problem::store_gone(retry_after)) } else { Ok(()) }
    }

    /// Whether the store has been silent for too long.
    fn is_gone(&self) -> bool {
        let contact = *self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        self.store.as_ref().is_some_and(|store| contact.elapsed() > store.gone_after)
    }

    /// Notes that the store was heard now.
    fn heard(&self) {
        if self.is_gone() {
            tracing::info!("the store is there again");
        }
        *self.contact.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        catalogue::DATABASE_UP.set(1.0, &[]);
    }

    /// Notes that the store could not be reached.
    fn silent(&self, error: &StoreError) {
        let contact = *self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        let silent_s = contact.elapsed().as_secs();
        catalogue::DATABASE_UP.set(0.0, &[]);
        tracing::warn!(silent_s, gone = self.is_gone(), %error, "the store cannot be reached");
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // Nothing that runs under the lock leaves the status half-changed.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a reload ended.
    fn note(&self, by: &str, ended: &Result<(Option<i64>, usize), ReloadError>) {
        let mut status = self.lock();
        match ended {
            Ok((generation, keys)) => {
                (status.reloads, status.refused) = (status.reloads + 1, None);
                (status.loaded_at, status.generation) = (Timestamp::now(), *generation);
                catalogue::POLICY_RELOADS.add(1, &["replaced"]);
                catalogue::POLICY_LOADED.set(status.loaded_at.as_second() as f64, &[]);
                catalogue::POLICY_STALE.set(0.0, &[]);
                status.keys = *keys;
                tracing::info!(by, generation, keys, "policies and keys were read again and are in use");
            }
            Err(error) => {
                let known = status.refused.as_ref().is_some_and(|known| known.problem == error.problem);
                let (what, problem) = (error.what, error.problem.clone());
                status.refusals += 1;
                catalogue::POLICY_RELOADS.add(1, &["refused"]);
                catalogue::POLICY_STALE.set(1.0, &[]);
                status.refused = Some(Refused { at: Timestamp::now(), what, problem });
                if !known {
                    let what = what.as_str();
                    tracing::error!(by, what, %error, "a reload was refused; what is in use stays");
                }
            }
        }
    }
}
