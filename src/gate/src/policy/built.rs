//! Policies whose every value has been checked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluegate_constitution::{Constitution, Setting, Severity, nearest};

use super::raw::{
    Action, AfterTries, OnError, PlaceholderKind, PreviewPoint, RawActions, RawClient, RawLimits,
    RawPolicies, RawPolicy, RawRedaction, RawSetting, RawThresholds, RedactedObjects, RedactionMethod,
};
use super::{PolicyError, keys};
use crate::GateError;

/// Longest policy file in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most tries that a policy may allow, so that a prompt that always violates cannot occupy a generator.
const MAX_TRIES: u32 = 100;

/// The policies of all tenants.
#[derive(Debug, Clone, PartialEq)]
pub struct Policies {
    tenants: BTreeMap<String, Arc<Policy>>,
}

/// What one tenant allows, and what happens to a picture that breaks it.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The tenant's name.
    pub tenant: String,
    /// Which constitution judges.
    pub constitution: ConstitutionSource,
    /// Ids of the rules that hold; empty if all do.
    pub rules: Vec<String>,
    /// What happens when no verdict can be had.
    pub on_error: OnError,
    /// Most attempts to draw one picture, at least 1.
    pub tries: u32,
    /// What happens after the last try of `regenerate`.
    pub after_tries: AfterTries,
    /// When previews are judged.
    pub previews: PreviewSchedule,
    /// What stands in for a withheld picture.
    pub placeholder: PlaceholderKind,
    /// Whether the log holds prompts.
    pub log_prompts: bool,
    /// How objects are hidden.
    pub redaction: Redaction,
    /// What follows from a violation.
    pub actions: Actions,
    /// Thresholds that replace the constitution's own.
    pub thresholds: RawThresholds,
    /// Values that replace those of the constitution's parameters.
    pub parameters: Vec<Setting>,
    /// What a request may ask for.
    pub limits: Limits,
    /// What the requester may see.
    pub client: RawClient,
}

/// Where a constitution comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConstitutionSource {
    /// One that ships with the program.
    Shipped(String),
    /// A file.
    File(PathBuf),
}

/// When previews are judged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PreviewSchedule(Vec<PreviewPoint>);

/// How violating objects are hidden.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Redaction {
    /// How.
    pub method: RedactionMethod,
    /// Which objects at the first try; all of them at the second.
    pub objects: RedactedObjects,
    /// By how much a box is widened on each side, as a fraction of its size, 0 to 2.
    pub grow: f64,
    /// What is added to `grow` for the second try, 0 to 2.
    pub widen: f64,
    /// Detections of less confidence are not hidden, 0 to 1.
    pub min_confidence: f64,
    /// Largest share of the picture that may be hidden, over 0, at most 1.
    pub max_share: f64,
}

/// What follows from a violation.
#[derive(Debug, Clone, PartialEq)]
pub struct Actions {
    default: Action,
    severity: BTreeMap<Severity, Action>,
    rule: BTreeMap<String, Action>,
}

/// What a request may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most pictures in one request.
    pub max_pictures: u32,
    /// Most pixels of one picture.
    pub max_pixels: u64,
    /// Longest prompt in bytes.
    pub max_prompt_bytes: usize,
    /// Longest wait for one verdict.
    pub judge_deadline: Duration,
    /// Longest life of a request.
    pub request_deadline: Duration,
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
        Self::parse(&text, &path.display().to_string(), folder)
    }

    /// Reads a policy from text; `origin` says in errors where it came from. Paths in it are relative to the current
    /// folder.
    ///
    /// # Errors
    /// If it cannot be used; the error names the key.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, PolicyError> {
        Self::parse(text, origin, Path::new(""))
    }

    fn parse(text: &str, origin: &str, folder: &Path) -> Result<Self, PolicyError> {
        let toml_error = |source: toml::de::Error| PolicyError::Toml {
            origin: origin.to_owned(),
            problem: source.to_string().trim_end().to_owned(),
        };
        let table: toml::Table = text.parse().map_err(toml_error)?;
        if let Some(found) = keys::find_unknown(&table, &Self::json_schema()) {
            let keys::UnknownKey { path, nearest, known } = found;
            return Err(PolicyError::UnknownKey { origin: origin.to_owned(), path, nearest, known });
        }
        // Read again from the text, not from the table, so that errors name line and column.
        let raw: RawPolicies = toml::from_str(text).map_err(toml_error)?;
        Self::build(raw, origin, folder)
    }

    /// Checks raw policies and builds them. `folder` is what paths are relative to.
    ///
    /// # Errors
    /// If a value is out of range.
    pub fn build(raw: RawPolicies, origin: &str, folder: &Path) -> Result<Self, PolicyError> {
        if raw.tenant.is_empty() {
            return Err(PolicyError::NoTenant { origin: origin.to_owned() });
        }
        let tenants = raw.tenant.into_iter().map(|(name, policy)| {
            let check = Check { origin, tenant: &name };
            let policy = check.policy(policy, folder)?;
            Ok((name, Arc::new(policy)))
        });
        Ok(Self { tenants: tenants.collect::<Result<_, _>>()? })
    }

    /// The policy of `tenant`.
    ///
    /// # Errors
    /// [`GateError::UnknownTenant`] if there is none, with the tenant that is spelled most alike.
    pub fn require(&self, tenant: &str) -> Result<&Arc<Policy>, GateError> {
        self.get(tenant).ok_or_else(|| GateError::unknown_tenant(tenant, self.tenants()))
    }

    /// The policy of `tenant`, if it has one.
    pub fn get(&self, tenant: &str) -> Option<&Arc<Policy>> {
        self.tenants.get(tenant)
    }

    /// All policies in the order of the tenants' names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.tenants.values()
    }

    /// Names of all tenants.
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        self.tenants.keys().map(String::as_str)
    }
}

/// Checks the values of one tenant.
struct Check<'a> {
    origin: &'a str,
    tenant: &'a str,
}

impl Check<'_> {
    fn policy(&self, raw: RawPolicy, folder: &Path) -> Result<Policy, PolicyError> {
        let between = |key, value: u64, low, high, expected| {
            self.holds((low..=high).contains(&value), key, expected, value)
        };
        self.holds(!self.tenant.trim().is_empty(), "", "a name that is not blank", self.tenant)?;
        self.holds(!raw.constitution.is_empty(), "constitution", "a shipped name or a path", "empty")?;
        between("tries", raw.tries.into(), 1, MAX_TRIES.into(), "from 1 to 100")?;
        for point in &raw.previews {
            match point {
                PreviewPoint::Step(step) => between("previews", (*step).into(), 1, u64::MAX, "steps from 1")?,
                PreviewPoint::Fraction(share) => self.holds(
                    *share > 0.0 && *share < 1.0,
                    "previews",
                    "fractions between 0 and 1 or whole steps from 1",
                    share,
                )?,
            }
        }
        self.thresholds(&raw.thresholds)?;
        Ok(Policy {
            tenant: self.tenant.to_owned(),
            constitution: constitution_source(&raw.constitution, folder),
            rules: raw.rules,
            on_error: raw.on_error,
            tries: raw.tries,
            after_tries: raw.after_tries,
            previews: PreviewSchedule(raw.previews),
            placeholder: raw.placeholder,
            log_prompts: raw.log_prompts,
            redaction: self.redaction(raw.redact)?,
            actions: Actions::new(raw.action),
            thresholds: raw.thresholds,
            parameters: self.parameters(raw.parameter)?,
            limits: self.limits(raw.limits)?,
            client: raw.client,
        })
    }

    fn redaction(&self, raw: RawRedaction) -> Result<Redaction, PolicyError> {
        let RawRedaction { method, objects, grow, widen, min_confidence, max_share } = raw;
        self.range("redact.grow", grow, 0.0, 2.0, "from 0 to 2")?;
        self.range("redact.widen", widen, 0.0, 2.0, "from 0 to 2")?;
        self.range("redact.min_confidence", min_confidence, 0.0, 1.0, "from 0 to 1")?;
        self.range("redact.max_share", max_share, f64::MIN_POSITIVE, 1.0, "over 0 and at most 1")?;
        Ok(Redaction { method, objects, grow, widen, min_confidence, max_share })
    }

    fn thresholds(&self, raw: &RawThresholds) -> Result<(), PolicyError> {
        let unit = |key, value: Option<f64>| match value {
            Some(value) => self.range(key, value, 0.0, 1.0, "from 0 to 1"),
            None => Ok(()),
        };
        if let Some(relevance) = raw.relevance {
            self.range("thresholds.relevance", relevance, -1.0, 1.0, "from -1 to 1")?;
        }
        unit("thresholds.alpha1", raw.alpha1)?;
        unit("thresholds.alpha2", raw.alpha2)?;
        unit("thresholds.beta", raw.beta)?;
        unit("thresholds.detection_confidence", raw.detection_confidence)?;
        unit("thresholds.small_object_area", raw.small_object_area)
    }

    /// Flattens the settings. Whether the constitution knows them and admits the values is seen where it is read.
    fn parameters(&self, raw: BTreeMap<String, RawSetting>) -> Result<Vec<Setting>, PolicyError> {
        let mut settings = Vec::new();
        for (key, value) in raw {
            match value {
                RawSetting::Value(value) => settings.push((key, value)),
                RawSetting::Rule(values) => {
                    settings.extend(values.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
                }
            }
        }
        let setting = |(path, value): (String, f64)| {
            Setting::new(&path, value).map_err(|_| PolicyError::Value {
                origin: self.origin.to_owned(),
                path: format!("tenant.{}.parameter", self.tenant),
                expected: "of the form \"rule.parameter\" = value",
                found: path,
            })
        };
        settings.into_iter().map(setting).collect()
    }

    fn limits(&self, raw: RawLimits) -> Result<Limits, PolicyError> {
        let positive = |key, value: u64| self.holds(value > 0, key, "1 or more", value);
        positive("limits.max_pictures", raw.max_pictures.into())?;
        positive("limits.max_pixels", raw.max_pixels)?;
        positive("limits.max_prompt_bytes", raw.max_prompt_bytes as u64)?;
        positive("limits.judge_deadline_ms", raw.judge_deadline_ms)?;
        positive("limits.request_deadline_ms", raw.request_deadline_ms)?;
        Ok(Limits {
            max_pictures: raw.max_pictures,
            max_pixels: raw.max_pixels,
            max_prompt_bytes: raw.max_prompt_bytes,
            judge_deadline: Duration::from_millis(raw.judge_deadline_ms),
            request_deadline: Duration::from_millis(raw.request_deadline_ms),
        })
    }

    fn range(
        &self,
        key: &str,
        value: f64,
        low: f64,
        high: f64,
        expected: &'static str,
    ) -> Result<(), PolicyError> {
        // A NaN lies in no range.
        self.holds((low..=high).contains(&value), key, expected, value)
    }

    fn holds(
        &self,
        holds: bool,
        key: &str,
        expected: &'static str,
        found: impl std::fmt::Display,
    ) -> Result<(), PolicyError> {
        if holds {
            return Ok(());
        }
        let path = format!("tenant.{}.{key}", self.tenant).trim_end_matches('.').to_owned();
        Err(PolicyError::Value { origin: self.origin.to_owned(), path, expected, found: found.to_string() })
    }
}

/// A shipped name, or else a path.
fn constitution_source(text: &str, folder: &Path) -> ConstitutionSource {
    if cluegate_constitution::shipped_names().any(|name| name == text) {
        ConstitutionSource::Shipped(text.to_owned())
    } else {
        ConstitutionSource::File(folder.join(text))
    }
}

impl Policy {
    /// Refuses rules and actions for rules that `constitution` does not have: a misspelt rule would silently not hold,
    /// or take the default action.
    ///
    /// # Errors
    /// The first such rule, with the nearest that exists.
    pub fn check_rules(&self, constitution: &Constitution) -> Result<(), PolicyError> {
        let named = self.rules.iter().map(|rule| ("rules", rule));
        let named = named.chain(self.actions.rule.keys().map(|rule| ("action.rule", rule)));
        for (key, rule) in named {
            if constitution.rule(rule).is_none() {
                let known = constitution.rules().iter().map(|known| known.id.as_str());
                return Err(PolicyError::UnknownRule {
                    tenant: self.tenant.clone(),
                    key,
                    rule: rule.clone(),
                    constitution: constitution.name().to_owned(),
                    nearest: nearest(rule, known).map(str::to_owned),
                });
            }
        }
        Ok(())
    }

    /// Whether the constitution holds as it is written.
    pub(crate) fn takes_constitution_as_it_is(&self) -> bool {
        self.rules.is_empty() && self.thresholds == RawThresholds::default()
    }

    /// `text`, a constitution file, with this policy's rules and thresholds only. The caller has parsed `text` once,
    /// so that its errors name its own lines.
    ///
    /// # Errors
    /// If `text` is not TOML of a constitution's form.
    pub(crate) fn adapt_constitution(&self, text: &str) -> Result<String, String> {
        let mut file: toml::Table = text.parse().map_err(|source: toml::de::Error| source.to_string())?;
        let own = toml::Table::try_from(self.thresholds).map_err(|source| source.to_string())?;
        match file.entry("thresholds").or_insert_with(|| toml::Value::Table(toml::Table::new())) {
            toml::Value::Table(thresholds) => thresholds.extend(own),
            other => return Err(format!("`thresholds` must be a table, not {}", other.type_str())),
        }
        let holds = |rule: &toml::Value| {
            let id = rule.get("id").and_then(toml::Value::as_str);
            self.rules.is_empty() || id.is_some_and(|id| self.rules.iter().any(|own| own == id))
        };
        if let Some(toml::Value::Array(rules)) = file.get_mut("rule") {
            rules.retain(holds);
        }
        toml::to_string(&file).map_err(|source| source.to_string())
    }
}

impl Actions {
    fn new(raw: RawActions) -> Self {
        let named = [
            (Severity::Low, raw.severity.low),
            (Severity::Medium, raw.severity.medium),
            (Severity::High, raw.severity.high),
            (Severity::Critical, raw.severity.critical),
        ];
        let severity = named.into_iter().filter_map(|(severity, action)| Some((severity, action?))).collect();
        Self { default: raw.default, severity, rule: raw.rule }
    }

    /// The action for one rule: by its id, else by its severity, else the default.
    pub fn of(&self, rule: &str, severity: Severity) -> Action {
        self.rule.get(rule).or_else(|| self.severity.get(&severity)).copied().unwrap_or(self.default)
    }
}

impl PreviewSchedule {
    /// Whether a preview is due after `step` of `total` steps. The last step makes the picture itself and no preview.
    pub fn is_due(&self, step: u32, total: u32) -> bool {
        (1..total).contains(&step)
            && self.0.iter().any(|point| match point {
                PreviewPoint::Step(at) => *at == step,
                PreviewPoint::Fraction(share) => {
                    ((share * f64::from(total)).round() as u32).clamp(1, total - 1) == step
                }
            })
    }

    /// Whether no preview is ever judged.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
