//! The plugins of a configuration with their roles, which can be replaced while the gate runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cluegate_constitution::nearest;
use cluegate_gate::OnUnsafe;

use crate::error::{HostError, Result};
use crate::plugin::{Plugin, Spec};
use crate::search::Search;

/// Which plugin plays which role, by their names in the configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Roles {
    /// Look at every picture before the judge.
    pub judges: Vec<JudgeRole>,
    /// Hides regions in place of the gate.
    pub redact: Option<String>,
    /// Paints something else into regions in place of the gate; not with `redact`.
    pub inpaint: Option<String>,
    /// Writes the prompts of further attempts.
    pub rewrite: Option<String>,
    /// Are told of every decision.
    pub publish: Vec<String>,
    /// Draws in place of the built-in generator.
    pub pipeline: Option<String>,
}

/// A plugin that looks at every picture.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgeRole {
    /// Its name.
    pub plugin: String,
    /// Statements that make a picture unsafe if they hold; without any, the plugin's own opinion counts.
    pub statements: Vec<String>,
    /// The share of Yes from which a statement holds, 0 to 1.
    pub threshold: f64,
    /// What becomes of a picture that it calls unsafe.
    pub on_unsafe: OnUnsafe,
    /// Labels whose boxes are hidden where anything is, each with the least score of a box, 0 to 1.
    pub hide: BTreeMap<String, f32>,
    /// Most labels of a picture that the log keeps, the surest first.
    pub log_labels: usize,
}

impl JudgeRole {
    /// A plugin whose own opinion withholds pictures; the log keeps 32 labels.
    pub fn new(plugin: impl Into<String>) -> Self {
        Self {
            plugin: plugin.into(),
            statements: Vec::new(),
            threshold: 0.5,
            on_unsafe: OnUnsafe::Withhold,
            hide: BTreeMap::new(),
            log_labels: 32,
        }
    }
}

/// The plugins of a configuration.
#[derive(Debug)]
pub struct PluginSet {
    current: RwLock<Arc<Opened>>,
    /// Held while plugins are replaced: one after the other, and calls wait for none of it.
    replacing: Mutex<()>,
}

/// What is open at one moment.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    plugins: BTreeMap<String, Arc<Plugin>>,
    pub(crate) roles: Roles,
}

impl Opened {
    pub(crate) fn get(&self, name: &str) -> Result<&Arc<Plugin>> {
        self.plugins.get(name).ok_or_else(|| self.unnamed("use", name))
    }

    fn unnamed(&self, role: &'static str, name: &str) -> HostError {
        let nearest = nearest(name, self.plugins.keys().map(String::as_str)).map(str::to_owned);
        HostError::Unnamed { role, name: name.to_owned(), nearest }
    }

    /// Refuses roles that name no plugin, or one that cannot play them.
    fn check(&self) -> Result<()> {
        let roles = &self.roles;
        if let (Some(_), Some(plugin)) = (&roles.redact, &roles.inpaint) {
            let problem = "`plugins.inpaint` and `plugins.redact` are both set, and one hides what the other would paint over; \
                           leave one of them out";
            return Err(HostError::Config { plugin: plugin.clone(), problem: problem.to_owned() });
        }
        let judges = roles.judges.iter().map(|role| {
            ("judges", &role.plugin, if role.statements.is_empty() { "classify" } else { "answer" })
        });
        let acts = [
            ("redact", &roles.redact, "redact"),
            ("inpaint", &roles.inpaint, "inpaint"),
            ("rewrite", &roles.rewrite, "rewrite"),
            ("pipeline", &roles.pipeline, "generate"),
        ];
        let acts = acts.into_iter().filter_map(|(role, name, ability)| Some((role, name.as_ref()?, ability)));
        let publish = roles.publish.iter().map(|name| ("publish", name, "publish"));
        for (role, name, ability) in judges.chain(acts).chain(publish) {
            let plugin = self.plugins.get(name).ok_or_else(|| self.unnamed(role, name))?;
            plugin.must(ability)?;
        }
        Ok(())
    }
}

impl PluginSet {
    /// Opens plugins for their roles.
    ///
    /// # Errors
    /// If one of them cannot be opened, or a role names none, or one that cannot play it.
    pub fn open(specs: Vec<Spec>, roles: Roles, search: &Search) -> Result<Self> {
        let set = Self { current: RwLock::default(), replacing: Mutex::default() };
        set.replace(specs, roles, search)?;
        Ok(set)
    }

    /// Puts these plugins in place of those before. One whose table and library are as they were stays open, unless it is
    /// broken. Calls that have begun go on with what they began with; a library that is not used any more stays in memory.
    /// Names of the plugins that were opened now.
    ///
    /// # Errors
    /// As [`PluginSet::open`]; what was there stays then.
    pub fn replace(&self, specs: Vec<Spec>, roles: Roles, search: &Search) -> Result<Vec<String>> {
        let _one = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current();
        let (mut opened, mut fresh) = (Opened { plugins: BTreeMap::new(), roles }, Vec::new());
        for spec in specs {
            let name = spec.name.clone();
            let known =
                before.plugins.get(&name).filter(|known| *known.spec() == spec && known.broken().is_none());
            let sha256 = search.allowed(&search.find(&spec.dylib)?)?;
            let plugin = match known.filter(|known| known.sha256() == sha256) {
                Some(known) => Arc::clone(known),
                None => {
                    fresh.push(name.clone());
                    Arc::new(Plugin::open(spec, search)?)
                }
            };
            opened.plugins.insert(name, plugin);
        }
        opened.check()?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(opened);
        Ok(fresh)
    }

    pub(crate) fn current(&self) -> Arc<Opened> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The plugin of this name.
    ///
    /// # Errors
    /// [`HostError::Unnamed`] if there is none.
    pub fn get(&self, name: &str) -> Result<Arc<Plugin>> {
        self.current().get(name).cloned()
    }

    /// All plugins, by name.
    pub fn plugins(&self) -> Vec<Arc<Plugin>> {
        self.current().plugins.values().cloned().collect()
    }
}
