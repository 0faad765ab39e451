//! The gate itself: tenants with their policies, and the door to sessions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use cluegate_constitution::{Constitution, Revision};
use cluegate_perception::Call;

use crate::constitutions::{Resolver, Resolving, Rulings};
use crate::history::History;
use crate::inspector::JudgeProvider;
use crate::policy::{CanaryDecides, Policies, Policy, TenantPolicy};
use crate::preparing::{Judges, PreparedOptions};
use crate::request::RequestInfo;
use crate::session::Session;
use crate::signing::{Signer, check_signer};
use crate::thresholds::PreviewThresholds;
use crate::watchdog::Watchdog;
use crate::{DecisionLog, Extensions, GateError, Generator};

/// What all sessions of a gate share.
pub(crate) struct Services {
    pub(crate) judges: Arc<Judges>,
    pub(crate) log: Arc<dyn DecisionLog>,
    pub(crate) watchdog: Watchdog,
    /// For judgments that decide nothing: one that hangs takes no place from those that do.
    pub(crate) comparing: Watchdog,
    /// For parts of pictures that are drawn anew, for the same reason.
    pub(crate) painting: Watchdog,
    /// How earlier attempts at the prompts of late ended.
    pub(crate) history: History,
    /// What stands beside the judge.
    pub(crate) extensions: OnceLock<Arc<dyn Extensions>>,
    /// Who draws parts of pictures anew, if anybody does.
    pub(crate) painter: OnceLock<Arc<dyn Generator>>,
    /// Who signs files, if anybody does.
    pub(crate) signer: Option<Arc<dyn Signer>>,
}

/// One tenant with its constitutions, checked and ready to have judges prepared for them.
struct Tenant {
    policies: Arc<TenantPolicy>,
    /// What each of the policies' pictures are judged by, in the order of [`TenantPolicy::all`].
    rulings: Vec<Rulings>,
    /// How sure previews must be, in the same order.
    thresholds: Vec<Option<Arc<PreviewThresholds>>>,
}

/// What the pictures of one request are judged by. A session keeps it to its end, whatever becomes of the gate's policies
/// meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct Grounds {
    pub(crate) policy: Arc<Policy>,
    /// The constitution that decides.
    pub(crate) constitution: Arc<Constitution>,
    /// Where the request falls into a canary's share, the comparison.
    pub(crate) trial: Option<Trial>,
    /// How sure a preview must be to give a picture up, where the policy says so.
    pub(crate) thresholds: Option<Arc<PreviewThresholds>>,
}

/// A request that two constitutions judge.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    pub(crate) decides: CanaryDecides,
    /// The one that does not decide.
    pub(crate) other: Arc<Constitution>,
}

/// All tenants at one moment.
#[derive(Default)]
struct Tenants {
    by_name: BTreeMap<Arc<str>, Arc<Tenant>>,
}

/// What [`Gate::replace`] changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replaced {
    /// Tenants that are new.
    pub added: Vec<Arc<str>>,
    /// Tenants whose policy or constitution says something else than before.
    pub changed: Vec<Arc<str>>,
    /// Tenants that are gone.
    pub removed: Vec<Arc<str>>,
    /// How many tenants are as they were.
    pub unchanged: usize,
}

/// Stands between generators and those who ask for pictures. Shared by all threads; a [`Session`] belongs to one
/// request.
///
/// A host that owns its generation loop opens a [`Session`] and asks it at each step and for each finished picture
/// ([`Gate::session`]); otherwise the gate drives a generator through such a session ([`Gate::drive`]). There is no
/// other way to a [`crate::ReleasedPicture`].
pub struct Gate {
    services: Arc<Services>,
    tenants: ArcSwap<Tenants>,
    /// Held while policies are replaced: one after the other, and requests wait for none of it.
    replacing: Mutex<Resolver>,
}

impl Gate {
    /// A gate for these policies. All that can be checked without models is checked now; judges are prepared when the
    /// first picture needs one, or ahead of it ([`Gate::warm_up`], [`Gate::prepare_all`]).
    ///
    /// # Errors
    /// If a constitution cannot be read or used, a policy names a rule or a parameter that it does not have, or wants signed
    /// files where nobody signs.
    pub fn new(
        policies: &Policies,
        judges: Arc<dyn JudgeProvider>,
        log: Arc<dyn DecisionLog>,
    ) -> Result<Self, GateError> {
        Self::with_options(policies, judges, log, PreparedOptions::default())
    }

    /// The same within other bounds.
    ///
    /// # Errors
    /// As [`Gate::new`].
    pub fn with_options(
        policies: &Policies,
        judges: Arc<dyn JudgeProvider>,
        log: Arc<dyn DecisionLog>,
        options: PreparedOptions,
    ) -> Result<Self, GateError> {
        Self::open(policies, judges, log, (options, None))
    }

    /// The same with who signs the files of released pictures, which policies with `provenance = "c2pa"` ask for.
    ///
    /// # Errors
    /// As [`Gate::new`].
    pub fn with_signer(
        policies: &Policies,
        judges: Arc<dyn JudgeProvider>,
        log: Arc<dyn DecisionLog>,
        signer: Option<Arc<dyn Signer>>,
    ) -> Result<Self, GateError> {
        Self::open(policies, judges, log, (PreparedOptions::default(), signer))
    }

    fn open(
        policies: &Policies,
        judges: Arc<dyn JudgeProvider>,
        log: Arc<dyn DecisionLog>,
        (options, signer): (PreparedOptions, Option<Arc<dyn Signer>>),
    ) -> Result<Self, GateError> {
        check_signer(policies, signer.as_ref())?;
        let services = Services {
            judges: Judges::new(judges, options),
            log,
            watchdog: Watchdog::default(),
            comparing: Watchdog::default(),
            painting: Watchdog::default(),
            history: History::default(),
            extensions: OnceLock::new(),
            painter: OnceLock::new(),
            signer,
        };
        let mut resolver = Resolver::default();
        let (tenants, _) = Tenants::default().replaced_by(policies, &mut resolver)?;
        Ok(Self {
            services: Arc::new(services),
            tenants: ArcSwap::from_pointee(tenants),
            replacing: Mutex::new(resolver),
        })
    }

    pub(crate) fn set_extensions(&self, extensions: Arc<dyn Extensions>) -> Result<(), GateError> {
        self.services.extensions.set(extensions).map_err(|_| GateError::ExtendedTwice)
    }

    pub(crate) fn set_painter(&self, painter: Arc<dyn Generator>) -> Result<(), GateError> {
        self.services.painter.set(painter).map_err(|_| GateError::PaintedTwice)
    }

    /// Puts `policies` in place of those before, at once for all tenants. A session that is open keeps the policy that it
    /// began with; a judge that is ready stays ready for whoever is judged by its constitution. Constitutions are looked
    /// up again, so that one whose text changed counts from now on.
    ///
    /// # Errors
    /// As [`Gate::new`]; the policies before stay in force then.
    pub fn replace(&self, policies: &Policies) -> Result<Replaced, GateError> {
        self.check_signer(policies)?;
        // Whoever panicked here had not yet put anything in place.
        let mut resolver = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.tenants.load_full();
        let (tenants, replaced) = before.replaced_by(policies, &mut resolver)?;
        self.tenants.store(Arc::new(tenants));
        drop(before);
        resolver.forget_unused();
        Ok(replaced)
    }

    /// Refuses policies that want signed files where nobody signs.
    ///
    /// # Errors
    /// [`GateError::NoSigner`] for the first of them.
    pub fn check_signer(&self, policies: &Policies) -> Result<(), GateError> {
        check_signer(policies, self.services.signer.as_ref())
    }

    /// Opens a session for a request.
    ///
    /// # Errors
    /// If the tenant has no policy, or the request is over one of its limits.
    pub fn session(&self, request: RequestInfo) -> Result<Session, GateError> {
        let tenants = self.tenants.load();
        let Some(tenant) = tenants.by_name.get(&*request.tenant) else {
            let known = tenants.by_name.keys().map(|name| &**name);
            return Err(GateError::unknown_tenant(&request.tenant, known));
        };
        let grounds = |request: &RequestInfo| tenant.grounds(request.model.as_deref());
        Session::open(Arc::clone(&self.services), grounds, request)
    }

    /// The policy of a tenant for generation models that it does not name.
    pub fn policy(&self, tenant: &str) -> Option<Arc<Policy>> {
        self.policy_for(tenant, None)
    }

    /// The policy of a tenant for a generation model of this name.
    pub fn policy_for(&self, tenant: &str, model: Option<&str>) -> Option<Arc<Policy>> {
        let tenants = self.tenants.load();
        tenants.by_name.get(tenant).map(|tenant| Arc::clone(tenant.policies.for_model(model)))
    }

    /// The constitution that a tenant's pictures are judged by under [`Gate::policy`], the policy's thresholds in place.
    pub fn constitution(&self, tenant: &str) -> Option<Arc<Constitution>> {
        let tenants = self.tenants.load();
        tenants.by_name.get(tenant)?.rulings.first().map(|rulings| Arc::clone(&rulings.stable))
    }

    /// Names of all tenants, in order.
    pub fn tenants(&self) -> Vec<Arc<str>> {
        self.tenants.load().by_name.keys().cloned().collect()
    }

    /// Prepares the judges of all tenants and waits for them, so that a model that cannot judge by one of the
    /// constitutions shows now and not at the first picture. With more constitutions than are kept ready
    /// ([`PreparedOptions::kept`]) the first ones are given up again.
    ///
    /// # Errors
    /// [`GateError::Prepare`] for the first tenant whose judge cannot be made ready, [`GateError::PreviewThresholds`] for the
    /// first whose preview thresholds were chosen with another judge.
    pub fn prepare_all(&self) -> Result<(), GateError> {
        let mut seen = std::collections::HashSet::new();
        for tenant in self.tenants.load_full().by_name.values() {
            let policies = tenant.policies.all().zip(&tenant.rulings).zip(&tenant.thresholds);
            for ((policy, rulings), thresholds) in policies {
                if let Some(thresholds) = thresholds {
                    self.check_thresholds(policy, rulings, thresholds)?;
                }
                for constitution in rulings.all() {
                    if !seen.insert(constitution.revision()) {
                        continue;
                    }
                    let judges = &self.services.judges;
                    judges.get(constitution, &Call::default()).map_err(|failure| GateError::Prepare {
                        tenant: policy.to_string(),
                        problem: judges.problem(constitution.revision()).unwrap_or_else(|| failure.message()),
                    })?;
                }
            }
        }
        Ok(())
    }

    fn check_thresholds(
        &self,
        policy: &Policy,
        rulings: &Rulings,
        thresholds: &PreviewThresholds,
    ) -> Result<(), GateError> {
        // Whatever keeps the judge from being prepared is told where all are.
        let Ok(judge) = self.services.judges.get(&rulings.stable, &Call::default()) else { return Ok(()) };
        thresholds.check_models(&judge.models()).map_err(|problem| GateError::PreviewThresholds {
            tenant: policy.to_string(),
            path: policy.preview_thresholds.clone().unwrap_or_default(),
            problem,
        })
    }

    /// Prepares judges in the background, those that most tenants need first, until all are ready or no more are kept.
    /// One that fails is told to the log of the program, and tried again when it is needed.
    pub fn warm_up(&self) {
        self.warm_up_for(self.tenants.load_full().by_name.values());
    }

    /// As [`Gate::warm_up`], for the tenants that are new or have changed.
    pub fn warm_up_replaced(&self, replaced: &Replaced) {
        let tenants = self.tenants.load_full();
        let names = replaced.added.iter().chain(&replaced.changed);
        self.warm_up_for(names.filter_map(|name| tenants.by_name.get(name)));
    }

    fn warm_up_for<'a>(&self, tenants: impl Iterator<Item = &'a Arc<Tenant>>) {
        let mut wanted: HashMap<Revision, (usize, Arc<Constitution>)> = HashMap::new();
        for constitution in tenants.flat_map(|tenant| tenant.rulings.iter().flat_map(Rulings::all)) {
            let entry = wanted.entry(constitution.revision());
            entry.or_insert_with(|| (0, Arc::clone(constitution))).0 += 1;
        }
        let mut wanted: Vec<_> = wanted.into_values().collect();
        wanted.sort_by_cached_key(|(tenants, constitution)| {
            (usize::MAX - tenants, constitution.revision().to_hex())
        });
        self.services.judges.warm_up(wanted.into_iter().map(|(_, constitution)| constitution));
    }

    /// Waits until no judge is being prepared.
    pub fn wait_until_warm(&self) {
        self.services.judges.settle();
    }

    /// How many judges are ready.
    pub fn judges_ready(&self) -> usize {
        self.services.judges.ready()
    }
}

impl Tenants {
    /// The tenants of `policies`; what says the same as here is taken over.
    fn replaced_by(
        &self,
        policies: &Policies,
        resolver: &mut Resolver,
    ) -> Result<(Self, Replaced), GateError> {
        let mut resolving = resolver.begin(policies.constitutions().as_ref());
        let mut replaced = Replaced::default();
        let mut by_name = Vec::with_capacity(policies.all().len());
        // Both are in the order of the names: of ten thousand tenants, none has to be looked for.
        let mut before = self.by_name.iter().peekable();
        for (name, policies) in policies.all() {
            while let Some((gone, _)) = before.next_if(|(known, _)| *known < name) {
                replaced.removed.push(Arc::clone(gone));
            }
            let known = before.next_if(|(known, _)| *known == name).map(|(_, known)| known);
            if let Some(known) = known
                && (Arc::ptr_eq(&known.policies, policies) || known.policies == *policies)
                && known.is_as_before(&mut resolving)?
            {
                replaced.unchanged += 1;
                by_name.push((Arc::clone(name), Arc::clone(known)));
                continue;
            }
            let rulings = policies.all().map(|policy| resolving.rulings(policy));
            let rulings = rulings.collect::<Result<Vec<_>, _>>()?;
            let thresholds = policies
                .all()
                .zip(&rulings)
                .map(|(policy, rulings)| resolving.thresholds(policy, rulings))
                .collect::<Result<_, _>>()?;
            let changes = if known.is_some() { &mut replaced.changed } else { &mut replaced.added };
            changes.push(Arc::clone(name));
            let policies = Arc::clone(policies);
            by_name.push((Arc::clone(name), Arc::new(Tenant { policies, rulings, thresholds })));
        }
        replaced.removed.extend(before.map(|(name, _)| Arc::clone(name)));
        resolving.done();
        Ok((Self { by_name: by_name.into_iter().collect() }, replaced))
    }
}

impl Tenant {
    /// Whether its constitutions say what they said.
    fn is_as_before(&self, resolving: &mut Resolving<'_>) -> Result<bool, GateError> {
        for policy in self.policies.all() {
            if !resolving.is_as_before(policy)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a request for this generation model is judged by.
    fn grounds(&self, model: Option<&str>) -> Option<Grounds> {
        let policy = self.policies.for_model(model);
        let place = self.policies.all().position(|known| Arc::ptr_eq(known, policy))?;
        let Rulings { stable, canary } = self.rulings.get(place)?;
        let tried = policy.canary.as_ref().zip(canary.as_ref());
        let thresholds = self.thresholds.get(place)?;
        let grounds = |constitution: &Arc<Constitution>, trial| Grounds {
            policy: Arc::clone(policy),
            constitution: Arc::clone(constitution),
            trial,
            thresholds: thresholds.clone(),
        };
        let Some((canary, constitution)) = tried.filter(|(canary, _)| falls_into(canary.share)) else {
            return Some(grounds(stable, None));
        };
        let decides = canary.decides;
        let trial = |other: &Arc<Constitution>| Some(Trial { decides, other: Arc::clone(other) });
        Some(match decides {
            CanaryDecides::Stable => grounds(stable, trial(constitution)),
            CanaryDecides::Canary => grounds(constitution, trial(stable)),
        })
    }
}

/// Whether the request that begins now falls into a share of all requests. Drawn anew, and not by the request's id: whoever
/// chooses the id would choose the constitution.
fn falls_into(share: f64) -> bool {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"cluegate canary");
    hasher.update(uuid::Uuid::now_v7().as_bytes());
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    f64::from(u32::from_le_bytes([a, b, c, d])) < share * 4_294_967_296.0
}
