//! The plugins of a configuration, as they are written and with their paths in place. What they are is not known here:
//! whoever opens them checks libraries and roles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cluegate_gate::OnUnsafe;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest time that a call may be given, in milliseconds: a day.
const MAX_MS: u64 = 86_400_000;
/// Most labels of a picture in the decision log: as many as a plugin can give.
const MAX_LOG_LABELS: usize = 10_000;
/// Most bytes that are shared with a plugin's process for one picture.
const MAX_SHARED: usize = 1 << 30;

/// Plugins: libraries that draw, judge or act beside the gate. Read again on SIGHUP.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawPlugins {
    /// Folders in which libraries are looked for, before those of the variable CLUEGATE_PLUGIN_PATH.
    pub path: Vec<PathBuf>,
    /// SHA-256 of the libraries that may be loaded, 64 hexadecimal digits each. `cluegate plugins list` prints them.
    pub allow: Vec<String>,
    /// Load libraries that `allow` does not have: for those who build them.
    pub allow_unlisted: bool,
    /// The plugin that hides regions in place of the gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redact: Option<String>,
    /// The plugin that paints something else into regions in place of the gate; not with `redact`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inpaint: Option<String>,
    /// The plugin that writes the prompts of further attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<String>,
    /// The plugins that are told of every decision, before its picture is released.
    pub publish: Vec<String>,
    /// The plugin that draws in place of the built-in generator, for `upstream.kind = "builtin"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// Plugins that look at every picture before the judge.
    pub judge: Vec<RawPluginJudge>,
    /// The plugins.
    #[serde(rename = "use")]
    pub used: Vec<RawPlugin>,
    /// The folder that relative paths mean.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// A plugin that looks at every picture. What it says is in the decision log, and what it fails at is withheld.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPluginJudge {
    /// Its name.
    pub plugin: String,
    /// Statements that make a picture unsafe if they hold; without any, the plugin's own opinion counts.
    #[serde(default)]
    pub statements: Vec<String>,
    /// The share of Yes from which a statement holds, 0 to 1.
    #[serde(default = "half")]
    pub threshold: f64,
    /// What becomes of a picture that it calls unsafe.
    #[serde(default)]
    pub on_unsafe: OnUnsafe,
    /// Labels whose boxes are hidden wherever something in a picture is, each with the least score of a box, 0 to 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hide: BTreeMap<String, f32>,
    /// Most labels of a picture that the decision log keeps, the surest first.
    #[serde(default = "default_log_labels")]
    pub log_labels: usize,
}

fn half() -> f64 {
    0.5
}

fn default_log_labels() -> usize {
    32
}

/// A plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPlugin {
    /// Its name in this file.
    pub name: String,
    /// Its library: a path, a file's name, or what stands between `lib` and `.so` in one; without it, `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "library")]
    pub dylib: Option<String>,
    /// Longest time for one call in milliseconds. A plugin that takes longer is not used any more, or its process is ended.
    #[serde(default = "default_deadline")]
    pub deadline_ms: u64,
    /// Longest time to open it in milliseconds.
    #[serde(default = "default_open_deadline")]
    pub open_deadline_ms: u64,
    /// Whether it gets a process of its own, so that a crash costs one request.
    #[serde(default)]
    pub isolated: bool,
    /// Most bytes of a picture, with its mask where it has one, that are shared with its process.
    #[serde(default = "default_shared")]
    pub shared_bytes: usize,
    /// How long its process rests after it ended for the first time, in milliseconds; twice as long each further time.
    #[serde(default = "default_rest")]
    pub rest_ms: u64,
    /// How long its process rests at most, in milliseconds.
    #[serde(default = "default_longest_rest")]
    pub longest_rest_ms: u64,
    /// Its own configuration; `cluegate plugins inspect` prints the schema.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, serde_json::Value>,
}

fn default_deadline() -> u64 {
    30_000
}

fn default_open_deadline() -> u64 {
    60_000
}

fn default_shared() -> usize {
    128 << 20
}

fn default_rest() -> u64 {
    100
}

fn default_longest_rest() -> u64 {
    30_000
}

impl RawPluginJudge {
    /// The key that is wrong, what it must be and what it is.
    fn check(&self) -> Result<(), (String, &'static str, String)> {
        if !(0.0..=1.0).contains(&self.threshold) {
            return Err(("threshold".to_owned(), "from 0 to 1", self.threshold.to_string()));
        }
        if let Some((label, least)) = self.hide.iter().find(|(_, least)| !(0.0..=1.0).contains(*least)) {
            return Err((format!("hide.{label}"), "from 0 to 1", least.to_string()));
        }
        if !self.hide.is_empty() && !self.statements.is_empty() {
            let expected = "left out beside `statements`, whose answers have no boxes";
            return Err(("hide".to_owned(), expected, format!("{} labels", self.hide.len())));
        }
        if self.on_unsafe == OnUnsafe::Redact && self.hide.is_empty() {
            return Err((
                "hide".to_owned(),
                "the labels to hide, for on_unsafe = \"redact\"",
                "none".to_owned(),
            ));
        }
        if self.log_labels > MAX_LOG_LABELS {
            return Err(("log_labels".to_owned(), "at most 10000", self.log_labels.to_string()));
        }
        Ok(())
    }
}

/// A key with what it must be and what it is.
pub(super) type Wrong = (String, String, String);

impl RawPlugins {
    /// Checks what can be checked without a plugin, and puts paths in place.
    pub(super) fn built(mut self, folder: &Path) -> Result<Self, Wrong> {
        let wrong = |key: String, expected: &str, found: String| Err((key, expected.to_owned(), found));
        for (index, sha256) in self.allow.iter().enumerate() {
            if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                let key = format!("plugins.allow[{index}]");
                return wrong(key, "64 hexadecimal digits, the SHA-256 of a library", format!("{sha256:?}"));
            }
        }
        let mut seen = BTreeSet::new();
        for (index, plugin) in self.used.iter_mut().enumerate() {
            let at = |key: &str| format!("plugins.use[{index}].{key}");
            if plugin.name.trim().is_empty() || !seen.insert(plugin.name.clone()) {
                return wrong(at("name"), "a name that no other plugin has", format!("{:?}", plugin.name));
            }
            for (key, ms) in
                [("deadline_ms", plugin.deadline_ms), ("open_deadline_ms", plugin.open_deadline_ms)]
            {
                if !(1..=MAX_MS).contains(&ms) {
                    return wrong(at(key), "from 1 to a day of milliseconds", ms.to_string());
                }
            }
            for (key, ms) in [("rest_ms", plugin.rest_ms), ("longest_rest_ms", plugin.longest_rest_ms)] {
                if ms > MAX_MS {
                    return wrong(at(key), "at most a day of milliseconds", ms.to_string());
                }
            }
            if !(1..=MAX_SHARED).contains(&plugin.shared_bytes) {
                return wrong(at("shared_bytes"), "from 1 to 1 GiB", plugin.shared_bytes.to_string());
            }
            // A library that is named with a folder lies relative to the file; any other one is looked for.
            if let Some(library) = plugin.dylib.as_mut().filter(|library| library.contains('/')) {
                *library = folder.join(&*library).display().to_string();
            }
        }
        for (index, judge) in self.judge.iter().enumerate() {
            judge.check().map_err(|(key, expected, found)| {
                (format!("plugins.judge[{index}].{key}"), expected.to_owned(), found)
            })?;
        }
        self.path.iter_mut().for_each(|path| *path = folder.join(&*path));
        self.folder = folder.to_path_buf();
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Config;
    use super::*;

    fn parse(plugins: &str) -> Result<Config, String> {
        let text = format!("keys.anonymous = \"default\"\n{plugins}");
        Config::parse(&text, "gate.toml", Path::new("/etc/gate")).map_err(|error| error.to_string())
    }

    #[test]
    fn paths_are_relative_to_the_file_and_the_rest_is_as_written() {
        let config = parse(
            "[plugins]\npath = [\"plugins\", \"/opt/plugins\"]\n[[plugins.judge]]\nplugin = \"reds\"\n\
             [[plugins.use]]\nname = \"reds\"\nlibrary = \"./own/colours.so\"\n[plugins.use.config]\ncolour = \"red\"\n\
             [[plugins.use]]\nname = \"pixelate\"\nisolated = true\n\
             [[plugins.judge]]\nplugin = \"reds\"\non_unsafe = \"redact\"\n[plugins.judge.hide]\nred = 0.25\n",
        );
        let plugins = config.unwrap().plugins;
        assert_eq!(plugins.path, [Path::new("/etc/gate/plugins"), Path::new("/opt/plugins")]);
        assert_eq!(plugins.used[0].dylib.as_deref(), Some("/etc/gate/./own/colours.so"));
        assert_eq!(plugins.used[0].config["colour"], "red");
        assert_eq!((plugins.used[1].dylib.as_deref(), plugins.used[1].isolated), (None, true));
        let judges: Vec<_> =
            plugins.judge.iter().map(|judge| (judge.on_unsafe, judge.hide.get("red"))).collect();
        assert_eq!(judges, [(OnUnsafe::Withhold, None), (OnUnsafe::Redact, Some(&0.25))]);
        assert_eq!((plugins.judge[0].threshold, plugins.judge[0].log_labels), (0.5, 32));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let sha = "0".repeat(64);
        for (plugins, says) in [
            ("[plugins]\nallow = [\"abc\"]", "`plugins.allow[0]` must be 64 hexadecimal digits"),
            ("[plugins]\nalow = []", "unknown key `plugins.alow` (did you mean `allow`?)"),
            ("[[plugins.use]]\nname = \" \"", "`plugins.use[0].name` must be a name"),
            (
                "[[plugins.use]]\nname = \"a\"\n[[plugins.use]]\nname = \"a\"",
                "`plugins.use[1].name` must be a name",
            ),
            ("[[plugins.use]]\nname = \"a\"\ndeadline_ms = 0", "`plugins.use[0].deadline_ms` must be from 1"),
            ("[[plugins.use]]\nname = \"a\"\nshared_bytes = 0", "`plugins.use[0].shared_bytes`"),
            (
                "[[plugins.judge]]\nplugin = \"a\"\nthreshold = 2.0",
                "`plugins.judge[0].threshold` must be from 0 to 1",
            ),
            (
                "[[plugins.judge]]\nplugin = \"a\"\non_unsafe = \"redact\"",
                "`plugins.judge[0].hide` must be the labels to hide",
            ),
            (
                "[[plugins.judge]]\nplugin = \"a\"\nhide = { FACE = 1.5 }",
                "`plugins.judge[0].hide.FACE` must be from 0 to 1",
            ),
            (
                "[[plugins.judge]]\nplugin = \"a\"\nhide = { x = 0.5 }\nstatements = [\"it rains\"]",
                "`plugins.judge[0].hide` must be left out beside `statements`",
            ),
            (
                "[[plugins.judge]]\nplugin = \"a\"\nlog_labels = 20000",
                "`plugins.judge[0].log_labels` must be at most",
            ),
            (
                "[[plugins.judge]]\nplugin = \"a\"\n[[plugins.judge]]\nplugin = \"b\"\nhidden = 1",
                "unknown key `plugins.judge[1].hidden` (did you mean `hide`?); known here: plugin, statements, ",
            ),
            (
                "[plugins]\nuse = [{ name = \"a\", deadline = 3 }]",
                "unknown key `plugins.use[0].deadline` (did you mean `deadline_ms`?)",
            ),
            ("[[plugins.judge]]\nplugin = \"a\"\non_unsafe = \"noted\"", "on_unsafe"),
        ] {
            let error = parse(plugins).unwrap_err();
            assert!(error.contains(says), "{says}: {error}");
        }
        assert!(parse(&format!("[plugins]\nallow = [\"{sha}\"]")).is_ok());
    }
}
