//! Where the keys of a TOML text stand.

use std::ops::Range;

use toml_edit::{Document, Item, TableLike};

/// The keys of a text, with where each one and its value stand.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Dotted path, and bytes from the key's first to the value's last.
    keys: Vec<(String, Range<usize>)>,
    /// First byte of each line.
    lines: Vec<usize>,
}

impl Places {
    /// The keys of `text`; none if it is not TOML.
    pub(crate) fn of(text: &str) -> Self {
        let begins = text.match_indices('\n').map(|(at, _)| at + 1);
        let mut places = Self { keys: Vec::new(), lines: std::iter::once(0).chain(begins).collect() };
        if let Ok(document) = Document::parse(text) {
            places.walk(document.as_table(), "");
        }
        places
    }

    fn walk(&mut self, table: &dyn TableLike, above: &str) {
        for (name, item) in table.iter() {
            let path = if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
            let own = table.key(name).and_then(toml_edit::Key::span);
            // A table's span begins with its bracket, a value's own behind the equals sign.
            if let Some(all) =
                own.into_iter().chain(item.span()).reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
            {
                self.keys.push((path.clone(), all));
            }
            if let Some(inner) = Item::as_table_like(item) {
                self.walk(inner, &path);
            }
        }
    }

    /// The line of the key at `path`, from 1.
    pub(crate) fn line(&self, path: &str) -> Option<usize> {
        let (_, span) = self.keys.iter().find(|(own, _)| own == path)?;
        Some(self.lines.partition_point(|begin| *begin <= span.start))
    }

    /// The key whose value, or whose table, holds the byte `at`: the innermost one.
    pub(crate) fn at(&self, at: usize) -> Option<&str> {
        let around = self.keys.iter().filter(|(_, span)| span.contains(&at) || span.start == at);
        around.max_by_key(|(path, _)| path.matches('.').count()).map(|(path, _)| path.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_on_their_lines() {
        let places = Places::of("a = 1\n# word\n[b]\nc = [\n 1,\n]\n[b.d]\ne = { f = 2 }\n");
        let lines = ["a", "b", "b.c", "b.d", "b.d.e", "b.d.e.f", "g"].map(|path| places.line(path));
        assert_eq!(lines, [Some(1), Some(3), Some(4), Some(7), Some(8), Some(8), None]);
        assert_eq!((places.at(4), places.at(13)), (Some("a"), Some("b")));
        assert_eq!(Places::of("a = ").line("a"), None);
    }
}
