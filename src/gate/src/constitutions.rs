//! Where constitutions are found, and what policies make of them. A text is parsed once, however many tenants are judged by
//! it, and so is what a set of rules, thresholds and parameters makes of it.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Weak};

use cluegate_constitution::{Constitution, Setting, nearest};

use crate::GateError;
use crate::policy::{ConstitutionSource, Policy, PolicyError, RawThresholds, Terms};
use crate::thresholds::PreviewThresholds;

/// Longest constitution file that is read, in bytes; the parser has a bound of its own below it.
const MAX_BYTES: u64 = 4 << 20;

/// The text of a constitution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConstitutionText {
    /// Where it came from, for errors.
    pub origin: String,
    /// TOML, as in a constitution file.
    pub text: Arc<str>,
}

/// Where constitutions are found that do not ship with the program.
pub trait Constitutions: fmt::Debug + Send + Sync {
    /// The constitution of this name. Asked once for each name that policies use whenever they are replaced, so a text that
    /// did not change should come at no cost.
    ///
    /// # Errors
    /// Why there is none, completing the sentence "cannot read the constitution NAME: ...".
    fn text(&self, name: &str) -> Result<ConstitutionText, String>;

    /// The text of a file of preview thresholds, which lies beside the policies. The default is for policies that lie in no
    /// folder, such as those of a store: the path is one in the program's own folder, and leads out of it nowhere.
    ///
    /// # Errors
    /// Why there is none.
    fn thresholds(&self, path: &str) -> Result<String, String> {
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside {
            return Err(
                "expected a path within the program's folder, for policies that lie in no folder".to_owned()
            );
        }
        read_text(Path::new(path))
    }
}

/// The text of a file of at most [`MAX_BYTES`].
fn read_text(path: &Path) -> Result<String, String> {
    let fail = |problem: &dyn fmt::Display| format!("{}: {problem}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|source| fail(&source))?;
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|source| fail(&source))?;
    if read as u64 > MAX_BYTES {
        return Err(fail(&format_args!("it has more than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// Constitution files in a folder, named by their paths in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`; an empty path is the current one.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Constitutions for Folder {
    fn text(&self, name: &str) -> Result<ConstitutionText, String> {
        let path = self.0.join(name);
        let text = read_text(&path)?;
        Ok(ConstitutionText { origin: path.display().to_string(), text: text.into() })
    }

    fn thresholds(&self, path: &str) -> Result<String, String> {
        read_text(&self.0.join(path))
    }
}

/// What a policy's pictures are judged by.
#[derive(Debug, Clone)]
pub(crate) struct Rulings {
    /// The tenant's own constitution.
    pub(crate) stable: Arc<Constitution>,
    /// The one on trial.
    pub(crate) canary: Option<Arc<Constitution>>,
}

impl Rulings {
    /// The constitutions.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Constitution>> {
        std::iter::once(&self.stable).chain(&self.canary)
    }
}

/// A text that was parsed.
#[derive(Debug)]
struct Parsed {
    origin: String,
    text: Arc<str>,
    constitution: Arc<Constitution>,
}

/// What was parsed so far: what policies are judged by now, and what was parsed for them and is in use.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    sources: HashMap<ConstitutionSource, Arc<Parsed>>,
    /// By text, so that the same text under two names is parsed once.
    texts: HashMap<Arc<str>, Weak<Constitution>>,
    /// By revision and what a policy makes of it.
    adapted: HashMap<String, Weak<Constitution>>,
    /// Preview thresholds, by path.
    thresholds: HashMap<String, Arc<ReadThresholds>>,
}

/// A file of preview thresholds that was read.
#[derive(Debug)]
struct ReadThresholds {
    text: String,
    thresholds: Arc<PreviewThresholds>,
}

/// The resolving of all policies. It asks for each constitution once, and takes over whatever did not change; the resolver
/// stays as it was unless this is [`done`](Resolving::done).
pub(crate) struct Resolving<'a> {
    known: &'a mut Resolver,
    from: &'a dyn Constitutions,
    /// What was asked for, and whether it says what it said before.
    asked: HashMap<ConstitutionSource, (Arc<Parsed>, bool)>,
    /// The same of preview thresholds.
    asked_thresholds: HashMap<String, (Arc<ReadThresholds>, bool)>,
}

impl Resolver {
    /// Begins to resolve policies whose constitutions are found in `from`.
    pub(crate) fn begin<'a>(&'a mut self, from: &'a dyn Constitutions) -> Resolving<'a> {
        Resolving { known: self, from, asked: HashMap::new(), asked_thresholds: HashMap::new() }
    }

    /// Lets go of what nobody is judged by.
    pub(crate) fn forget_unused(&mut self) {
        self.texts.retain(|_, constitution| constitution.strong_count() > 0);
        self.adapted.retain(|_, constitution| constitution.strong_count() > 0);
    }
}

impl Resolving<'_> {
    /// Keeps what was asked for, and nothing else, for the next time.
    pub(crate) fn done(self) {
        self.known.sources = self.asked.into_iter().map(|(source, (parsed, _))| (source, parsed)).collect();
        self.known.thresholds =
            self.asked_thresholds.into_iter().map(|(path, (read, _))| (path, read)).collect();
    }

    /// Whether neither the constitutions nor the thresholds that `policy` names say anything else than they did before.
    pub(crate) fn is_as_before(&mut self, policy: &Policy) -> Result<bool, GateError> {
        for source in sources(policy) {
            if !self.parsed(policy, source)?.1 {
                return Ok(false);
            }
        }
        match &policy.preview_thresholds {
            Some(path) => Ok(self.read_thresholds(policy, path)?.1),
            None => Ok(true),
        }
    }

    /// The preview thresholds that `policy` names, if they are for what its pictures are judged by.
    pub(crate) fn thresholds(
        &mut self,
        policy: &Policy,
        rulings: &Rulings,
    ) -> Result<Option<Arc<PreviewThresholds>>, GateError> {
        let Some(path) = &policy.preview_thresholds else { return Ok(None) };
        let read = Arc::clone(&self.read_thresholds(policy, path)?.0);
        read.thresholds
            .check(policy, &rulings.stable)
            .map_err(|problem| unusable_thresholds(policy, path, problem))?;
        Ok(Some(Arc::clone(&read.thresholds)))
    }

    fn read_thresholds(
        &mut self,
        policy: &Policy,
        path: &str,
    ) -> Result<(Arc<ReadThresholds>, bool), GateError> {
        if let Some((read, known)) = self.asked_thresholds.get(path) {
            return Ok((Arc::clone(read), *known));
        }
        let unusable = |problem| unusable_thresholds(policy, path, problem);
        let text = self.from.thresholds(path).map_err(unusable)?;
        let (read, known) = match self.known.thresholds.get(path).filter(|known| known.text == text) {
            Some(known) => (Arc::clone(known), true),
            None => {
                let thresholds = Arc::new(PreviewThresholds::parse(&text).map_err(unusable)?);
                (Arc::new(ReadThresholds { text, thresholds }), false)
            }
        };
        self.asked_thresholds.insert(path.to_owned(), (Arc::clone(&read), known));
        Ok((read, known))
    }

    /// What `policy`'s pictures are judged by.
    pub(crate) fn rulings(&mut self, policy: &Policy) -> Result<Rulings, GateError> {
        let stable = Arc::clone(&self.parsed(policy, &policy.constitution)?.0);
        let canary = match &policy.canary {
            Some(canary) => Some(Arc::clone(&self.parsed(policy, &canary.constitution)?.0)),
            None => None,
        };
        let both: Vec<&Constitution> =
            std::iter::once(&stable).chain(&canary).map(|parsed| parsed.constitution.as_ref()).collect();
        check_rules(policy, &both)?;
        let adapted = [Some(&stable), canary.as_ref()]
            .map(|parsed| parsed.map(|parsed| self.adapted(policy, parsed, &both)).transpose());
        let [stable, canary] = adapted;
        let Some(stable) = stable? else { return Err(no_constitution(policy)) };
        Ok(Rulings { stable, canary: canary? })
    }

    fn parsed(
        &mut self,
        policy: &Policy,
        source: &ConstitutionSource,
    ) -> Result<&(Arc<Parsed>, bool), GateError> {
        if !self.asked.contains_key(source) {
            let parsed = self.parse(policy, source)?;
            self.asked.insert(source.clone(), parsed);
        }
        self.asked.get(source).ok_or_else(|| no_constitution(policy))
    }

    fn parse(
        &mut self,
        policy: &Policy,
        source: &ConstitutionSource,
    ) -> Result<(Arc<Parsed>, bool), GateError> {
        let ConstitutionText { origin, text } = read(policy, source, self.from)?;
        if let Some(known) = self.known.sources.get(source)
            && known.text == text
            && known.origin == origin
        {
            return Ok((Arc::clone(known), true));
        }
        let constitution = match self.known.texts.get(&text).and_then(Weak::upgrade) {
            Some(same) => same,
            None => Arc::new(Constitution::parse(&text, &origin).map_err(|source| refused(policy, source))?),
        };
        self.known.texts.insert(Arc::clone(&text), Arc::downgrade(&constitution));
        Ok((Arc::new(Parsed { origin, text, constitution }), false))
    }

    /// What `policy` makes of a constitution: its rules, thresholds and parameters in place.
    fn adapted(
        &mut self,
        policy: &Policy,
        parsed: &Parsed,
        both: &[&Constitution],
    ) -> Result<Arc<Constitution>, GateError> {
        let whole = &parsed.constitution;
        let settings = settings_of(policy, whole, both);
        if settings.is_empty() && policy.takes_constitution_as_it_is() {
            return Ok(Arc::clone(whole));
        }
        let (rules, thresholds) = (&policy.rules, &policy.thresholds);
        let key = format!("{} {rules:?} {thresholds:?} {settings:?}", whole.revision().to_hex());
        if let Some(known) = self.known.adapted.get(&key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let adapted = Arc::new(adapt(policy, parsed, &settings)?);
        self.known.adapted.insert(key, Arc::downgrade(&adapted));
        Ok(adapted)
    }
}

fn sources(policy: &Policy) -> impl Iterator<Item = &ConstitutionSource> {
    std::iter::once(&policy.constitution).chain(policy.canary.as_ref().map(|canary| &canary.constitution))
}

fn unusable_thresholds(policy: &Policy, path: &str, problem: String) -> GateError {
    GateError::PreviewThresholds { tenant: policy.to_string(), path: path.to_owned(), problem }
}

fn no_constitution(policy: &Policy) -> GateError {
    let problem = "it names none".to_owned();
    GateError::ConstitutionFile { tenant: policy.to_string(), path: String::new(), problem }
}

fn refused(policy: &Policy, source: cluegate_constitution::ConstitutionError) -> GateError {
    GateError::Constitution { tenant: policy.to_string(), source: Box::new(source) }
}

fn read(
    policy: &Policy,
    source: &ConstitutionSource,
    from: &dyn Constitutions,
) -> Result<ConstitutionText, GateError> {
    match source {
        ConstitutionSource::Shipped(name) => {
            let text = Constitution::shipped_text(name).unwrap_or_default();
            Ok(ConstitutionText { origin: format!("{name}.toml (shipped)"), text: text.into() })
        }
        ConstitutionSource::Named(name) => from.text(name).map_err(|problem| GateError::ConstitutionFile {
            tenant: policy.to_string(),
            path: name.clone(),
            problem,
        }),
    }
}

/// Refuses rules that none of `constitutions` has: a misspelt rule would silently not hold, or take the default action.
fn check_rules(policy: &Policy, constitutions: &[&Constitution]) -> Result<(), PolicyError> {
    let named = policy.rules.iter().map(|rule| ("rules", rule));
    let named = named.chain(policy.actions.rules().map(|rule| ("action.rule", rule)));
    let named = named.chain(policy.retention.never.iter().map(|rule| ("retention.never", rule)));
    for (key, rule) in named {
        if constitutions.iter().any(|constitution| constitution.rule(rule).is_some()) {
            continue;
        }
        let known = constitutions.iter().flat_map(|constitution| constitution.rules());
        let names: Vec<&str> = constitutions.iter().map(|constitution| constitution.name()).collect();
        return Err(PolicyError::UnknownRule {
            tenant: policy.to_string(),
            key,
            rule: rule.clone(),
            constitution: names.join(" or "),
            nearest: nearest(rule, known.map(|known| known.id.as_str())).map(str::to_owned),
        });
    }
    Ok(())
}

/// The settings that are meant for `one` of `both` constitutions: those of parameters that it has, and those that none
/// has, which it will refuse.
fn settings_of(policy: &Policy, one: &Constitution, both: &[&Constitution]) -> Vec<Setting> {
    if policy.parameters.is_empty() {
        return Vec::new();
    }
    let has = |constitution: &Constitution, setting: &Setting| {
        constitution.parameter_paths().contains(&format!("{}.{}", setting.rule, setting.parameter))
    };
    let meant = |setting: &&Setting| has(one, setting) || !both.iter().any(|other| has(other, setting));
    policy.parameters.iter().filter(meant).cloned().collect()
}

fn adapt(policy: &Policy, parsed: &Parsed, settings: &[Setting]) -> Result<Constitution, GateError> {
    let refused = |source| refused(policy, source);
    let set = parsed.constitution.with_parameters(settings).map_err(refused)?;
    if policy.takes_constitution_as_it_is() {
        return Ok(set);
    }
    let changed = policy.adapt_constitution(&parsed.text).map_err(|problem| GateError::ConstitutionFile {
        tenant: policy.to_string(),
        path: parsed.origin.clone(),
        problem,
    })?;
    let changed = Constitution::parse(&changed, &parsed.origin).map_err(refused)?;
    // What is set in a rule that does not hold for this tenant has been checked, and changes nothing.
    let settings = settings.iter().filter(|setting| changed.rule(&setting.rule).is_some());
    changed.with_parameters(&settings.cloned().collect::<Vec<_>>()).map_err(refused)
}

impl Terms {
    /// Whether the constitution holds as it is written.
    fn takes_constitution_as_it_is(&self) -> bool {
        self.rules.is_empty() && self.thresholds == RawThresholds::default()
    }

    /// `text`, a constitution file, with this policy's rules and thresholds only. The caller has parsed `text` once,
    /// so that its errors name its own lines.
    fn adapt_constitution(&self, text: &str) -> Result<String, String> {
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
