//! The gate itself: tenants with their judges, and the door to sessions.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use cluegate_constitution::Constitution;

use crate::inspector::{Inspector, JudgeProvider};
use crate::policy::{ConstitutionSource, Policies, Policy};
use crate::session::{RequestInfo, Session};
use crate::watchdog::{Watchdog, guard};
use crate::{DecisionLog, GateError};

/// One tenant, ready to judge.
pub(crate) struct Tenant {
    pub(crate) policy: Arc<Policy>,
    pub(crate) inspector: Arc<dyn Inspector>,
    pub(crate) log: Arc<dyn DecisionLog>,
    pub(crate) watchdog: Arc<Watchdog>,
}

/// Stands between generators and those who ask for pictures. Shared by all threads; a [`Session`] belongs to one
/// request.
///
/// A host that owns its generation loop opens a [`Session`] and asks it at each step and for each finished picture
/// ([`Gate::session`]); otherwise the gate drives a generator through such a session ([`Gate::drive`]). There is no
/// other way to a [`crate::ReleasedPicture`].
pub struct Gate {
    tenants: BTreeMap<String, Arc<Tenant>>,
}

impl Gate {
    /// Makes the judges of all tenants ready, so that whatever is wrong with a policy, a constitution or a model shows
    /// now and not at the first picture.
    ///
    /// # Errors
    /// If a constitution cannot be read or used, an action names a rule that it does not have, or its judge cannot be made
    /// ready.
    pub fn new(
        policies: &Policies,
        judges: &dyn JudgeProvider,
        log: Arc<dyn DecisionLog>,
    ) -> Result<Self, GateError> {
        let watchdog = Arc::new(Watchdog::default());
        let mut inspectors: BTreeMap<String, Arc<dyn Inspector>> = BTreeMap::new();
        let mut tenants = BTreeMap::new();
        for policy in policies.iter() {
            let constitution = policy.load_constitution()?;
            let revision = constitution.revision().to_hex();
            let inspector = match inspectors.get(&revision) {
                Some(inspector) => Arc::clone(inspector),
                None => {
                    let inspector = prepare(policy, constitution, judges)?;
                    inspectors.insert(revision, Arc::clone(&inspector));
                    inspector
                }
            };
            let tenant = Tenant {
                policy: Arc::clone(policy),
                inspector,
                log: Arc::clone(&log),
                watchdog: Arc::clone(&watchdog),
            };
            tenants.insert(policy.tenant.clone(), Arc::new(tenant));
        }
        Ok(Self { tenants })
    }

    /// Opens a session for a request.
    ///
    /// # Errors
    /// If the tenant has no policy, or the request is over one of its limits.
    pub fn session(&self, request: RequestInfo) -> Result<Session, GateError> {
        let Some(tenant) = self.tenants.get(&request.tenant) else {
            return Err(GateError::unknown_tenant(&request.tenant, self.tenants()));
        };
        Session::open(Arc::clone(tenant), request)
    }

    /// The policy of a tenant.
    pub fn policy(&self, tenant: &str) -> Option<&Arc<Policy>> {
        self.tenants.get(tenant).map(|tenant| &tenant.policy)
    }

    /// The constitution that a tenant's pictures are judged by, the policy's thresholds in place.
    pub fn constitution(&self, tenant: &str) -> Option<&Constitution> {
        self.tenants.get(tenant).map(|tenant| tenant.inspector.constitution())
    }

    /// Names of all tenants.
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        self.tenants.keys().map(String::as_str)
    }
}

impl Policy {
    /// The constitution that this tenant's pictures are judged by: the policy's rules, thresholds and parameters in
    /// place.
    ///
    /// # Errors
    /// If it cannot be read or used, or the policy names a rule or a parameter that it does not have, or sets one outside
    /// its bounds.
    pub fn load_constitution(&self) -> Result<Constitution, GateError> {
        let unreadable = |path: &str, problem: String| GateError::ConstitutionFile {
            tenant: self.tenant.clone(),
            path: path.to_owned(),
            problem,
        };
        let refused =
            |source| GateError::Constitution { tenant: self.tenant.clone(), source: Box::new(source) };
        let (text, origin) = match &self.constitution {
            ConstitutionSource::Shipped(name) => {
                let text = Constitution::shipped_text(name).unwrap_or_default();
                (text.to_owned(), format!("{name}.toml (shipped)"))
            }
            ConstitutionSource::File(path) => {
                let origin = path.display().to_string();
                let text =
                    fs::read_to_string(path).map_err(|source| unreadable(&origin, source.to_string()))?;
                (text, origin)
            }
        };
        let constitution = Constitution::parse(&text, &origin).map_err(refused)?;
        self.check_rules(&constitution)?;
        let constitution = constitution.with_parameters(&self.parameters).map_err(refused)?;
        if self.takes_constitution_as_it_is() {
            return Ok(constitution);
        }
        let changed = self.adapt_constitution(&text).map_err(|problem| unreadable(&origin, problem))?;
        let changed = Constitution::parse(&changed, &origin).map_err(refused)?;
        // What is set in a rule that does not hold for this tenant has been checked, and changes nothing.
        let settings = self.parameters.iter().filter(|setting| changed.rule(&setting.rule).is_some());
        changed.with_parameters(&settings.cloned().collect::<Vec<_>>()).map_err(refused)
    }
}

fn prepare(
    policy: &Policy,
    constitution: Constitution,
    judges: &dyn JudgeProvider,
) -> Result<Arc<dyn Inspector>, GateError> {
    let fail = |problem| GateError::Prepare { tenant: policy.tenant.clone(), problem };
    let revision = constitution.revision();
    let inspector = guard(|| judges.inspector(constitution))
        .map_err(|panic| fail(format!("it panicked: {panic}")))?
        .map_err(|error| fail(error.to_string()))?;
    if inspector.constitution().revision() != revision {
        return Err(fail("it was prepared for another revision of the constitution".to_owned()));
    }
    Ok(inspector)
}
