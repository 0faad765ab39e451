//! Everything that is wrong with a configuration, not only the first of it.

use std::path::Path;

use toml_edit::{DocumentMut, Item, TableLike};

use super::places::Places;
use super::{Config, ConfigError, RawConfig};

/// Most problems that are told of one text.
const MOST: usize = 100;

/// Something wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The line in the file, from 1, if it is about one.
    pub line: Option<usize>,
    /// Dotted path of the key, if it is about one.
    pub key: Option<String>,
    /// What is wrong, and what was expected.
    pub message: String,
}

impl Config {
    /// Reads a configuration as [`Config::parse`] does, and goes on after a problem as if the key at fault were not
    /// there. The configuration is given if it can be used, or could be without the keys at fault.
    pub fn examine(text: &str, origin: &str, folder: &Path) -> (Option<Self>, Vec<Finding>) {
        let places = Places::of(text);
        let finding = |key: Option<&str>, message: String| Finding {
            line: key.and_then(|key| places.line(key)),
            key: key.map(str::to_owned),
            message,
        };
        let mut document: DocumentMut = match text.parse() {
            Ok(document) => document,
            Err(error) => {
                let line = error.span().map(|span| text.as_bytes()[..span.start.min(text.len())].to_vec());
                let line = line.map(|before| before.iter().filter(|byte| **byte == b'\n').count() + 1);
                return (None, vec![Finding { line, key: None, message: error.message().to_owned() }]);
            }
        };
        let mut findings = Vec::new();
        while findings.len() < MOST {
            let text = document.to_string();
            let error = match Self::parse(&text, origin, folder) {
                Ok(config) => return (Some(config), findings),
                Err(error) => error,
            };
            let (key, message) = told(&error, &text);
            // Told already where it is missing now that its value was left out.
            let is_missing = matches!(error, ConfigError::Toml { .. });
            let told_already = key.as_deref().is_some_and(|key| {
                findings.iter().filter_map(|known: &Finding| known.key.as_deref()).any(|known| {
                    let inside = known.strip_prefix(key);
                    inside.is_some_and(|rest| rest.is_empty() || is_missing && rest.starts_with('.'))
                })
            });
            if !told_already {
                findings.push(finding(key.as_deref(), message));
            }
            match key {
                Some(key) if key == "keys" => {
                    // Nobody may ask, which leaving out does not mend.
                    document["keys"]["anonymous"] = toml_edit::value("default");
                }
                Some(key) if remove(document.as_table_mut(), &key) => {}
                // It is needed where its table is: that is left out too.
                Some(key) if remove_table_of(document.as_table_mut(), &key) => {}
                _ => return (None, findings),
            }
        }
        (None, findings)
    }
}

/// The key that an error is about, and its words without the name of the file.
fn told(error: &ConfigError, text: &str) -> (Option<String>, String) {
    let words = |origin: &str| {
        let words = error.to_string();
        words.strip_prefix(origin).and_then(|words| words.strip_prefix(": ")).unwrap_or(&words).to_owned()
    };
    match error {
        ConfigError::Value { origin, path, .. } | ConfigError::UnknownKey { origin, path, .. } => {
            (Some(path.clone()), words(origin))
        }
        // Read once more, for the place and the words without the lines around it.
        ConfigError::Toml { origin, .. } => match toml::from_str::<RawConfig>(text) {
            Err(error) => {
                let key = error.span().and_then(|span| Places::of(text).at(span.start).map(str::to_owned));
                (key, error.message().trim_end().to_owned())
            }
            Ok(_) => (None, words(origin)),
        },
        ConfigError::Read { .. } => (None, error.to_string()),
    }
}

/// Takes the key at a dotted path out. `false` if it is not there.
fn remove(table: &mut dyn TableLike, path: &str) -> bool {
    if table.remove(path).is_some() {
        return true;
    }
    // Entries of a list have no keys, and the next one would take the number of one that is gone: the list goes.
    if let Some((list, _)) = entry(path).filter(|(list, _)| table.get(list).is_some()) {
        return remove(table, list);
    }
    path.match_indices('.').any(|(dot, _)| {
        let above = &path[..dot];
        let inner = match entry(above) {
            Some((list, index)) => table.get_mut(list).and_then(|list| table_of(list, index)),
            None => table.get_mut(above).and_then(Item::as_table_like_mut),
        };
        inner.is_some_and(|inner| remove(inner, &path[dot + 1..]))
    })
}

/// The name of a list and the place of one of its entries, from `list[0]`.
fn entry(path: &str) -> Option<(&str, usize)> {
    let (list, index) = path.strip_suffix(']')?.rsplit_once('[')?;
    Some((list, index.parse().ok()?))
}

/// A table of a list, in either form.
fn table_of(list: &mut Item, index: usize) -> Option<&mut dyn TableLike> {
    match list {
        Item::ArrayOfTables(tables) => tables.get_mut(index).map(|table| table as &mut dyn TableLike),
        Item::Value(values) => {
            let table = values.as_array_mut()?.get_mut(index)?.as_inline_table_mut()?;
            Some(table)
        }
        _ => None,
    }
}

/// Takes the table out that holds, or would hold, the key at a dotted path. `false` if it is not there.
fn remove_table_of(table: &mut dyn TableLike, path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(above, _)| remove(table, above))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn found(text: &str) -> Vec<(Option<usize>, Option<String>, String)> {
        let (_, findings) = Config::examine(text, "gate.toml", Path::new("/etc/gate"));
        findings.into_iter().map(|finding| (finding.line, finding.key, finding.message)).collect()
    }

    #[test]
    fn every_problem_is_told_with_its_line() {
        let text = "lisen = \"x\"\nlisten = \"nowhere\"\n[limits]\nin_work = \"many\"\nqueue = -1\nbody_bytes = 0\n\
                    [upstream]\nkind = \"a1111\"\nurl = \"ftp://x\"\nbatch = 0\n[tls]\nkey = \"k.pem\"\n";
        let found = found(text);
        let mut keys: Vec<(&str, usize)> =
            found.iter().map(|(line, key, _)| (key.as_deref().unwrap(), line.unwrap_or(0))).collect();
        keys.sort_unstable();
        let expected = [
            ("keys", 0),
            ("limits.body_bytes", 6),
            ("limits.in_work", 4),
            ("limits.queue", 5),
            ("lisen", 1),
            ("listen", 2),
            ("tls", 11),
            ("upstream.batch", 10),
            ("upstream.url", 9),
        ];
        assert_eq!(keys, expected, "{found:#?}");
        let words = |key: &str| &found.iter().find(|(_, own, _)| own.as_deref() == Some(key)).unwrap().2;
        assert!(
            words("lisen").starts_with("unknown key `lisen` (did you mean `listen`?)"),
            "{}",
            words("lisen")
        );
        assert!(words("tls").contains("certificate"), "{}", words("tls"));
        assert!(words("limits.queue").contains("-1"), "{}", words("limits.queue"));
    }

    #[test]
    fn problems_in_lists_of_tables_are_told_with_their_lines() {
        let text = "[keys]\nanonymous = \"default\"\n[plugins]\nallow = [\n \"abc\",\n]\n\
                    judge = [{ plugin = \"a\" }, { plugin = \"b\", thresold = 1.0, log_labels = 20000 }]\n\
                    [[plugins.use]]\nname = \"a\"\ndeadline_ms = 0\n[[plugins.use]]\nname = \"b\"\nisolatd = true\n\
                    rest_ms = -1\n[[plugins.use]]\nname = \" \"\n[limits]\nbody_bytes = 0\n";
        let found = found(text);
        let mut keys: Vec<(&str, usize)> =
            found.iter().map(|(line, key, _)| (key.as_deref().unwrap(), line.unwrap_or(0))).collect();
        keys.sort_unstable();
        let expected = [
            ("limits.body_bytes", 18),
            ("plugins.allow[0]", 5),
            ("plugins.judge[1].log_labels", 7),
            ("plugins.judge[1].thresold", 7),
            ("plugins.use[0].deadline_ms", 10),
            ("plugins.use[1].isolatd", 13),
            ("plugins.use[1].rest_ms", 14),
            ("plugins.use[2].name", 16),
        ];
        assert_eq!(keys, expected, "{found:#?}");
    }

    #[test]
    fn a_sound_text_has_no_findings_and_one_that_is_no_toml_one() {
        assert_eq!(found("[keys]\nanonymous = \"default\"\n"), []);
        let broken = found("listen = \"x\"\n\n[keys\n");
        assert_eq!((broken.len(), broken[0].0, &broken[0].1), (1, Some(3), &None), "{broken:?}");
    }
}
