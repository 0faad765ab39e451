//! Where the keys of a TOML text stand.

use std::ops::Range;

use toml_edit::{Document, Item, TableLike, Value};

/// The keys of a text, with where each one and its value stand.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Dotted path, with the places in lists as `[0]`, and bytes from the key's first to the value's last.
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
            if let Some(tables) = item.as_array_of_tables() {
                for (index, table) in tables.iter().enumerate() {
                    self.enter(table.span(), Some(table), format!("{path}[{index}]"));
                }
            }
            self.walk_value(item.as_value(), &path);
            if let Some(inner) = Item::as_table_like(item) {
                self.walk(inner, &path);
            }
        }
    }

    /// Goes through the values of a list, and what is in them.
    fn walk_value(&mut self, value: Option<&Value>, path: &str) {
        for (index, value) in value.and_then(Value::as_array).into_iter().flatten().enumerate() {
            let path = format!("{path}[{index}]");
            self.walk_value(Some(value), &path);
            self.enter(value.span(), value.as_inline_table().map(|table| table as &dyn TableLike), path);
        }
    }

    /// Takes down where an entry of a list stands, and what is in it if it is a table.
    fn enter(&mut self, span: Option<Range<usize>>, table: Option<&dyn TableLike>, path: String) {
        if let Some(table) = table {
            self.walk(table, &path);
        }
        self.keys.extend(span.map(|span| (path, span)));
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

    #[test]
    fn entries_of_lists_stand_on_theirs() {
        let places = Places::of("a = [\n 1,\n { b = 2, c = [[3]] },\n]\n[[d]]\ne = 1\n[[d]]\n[d.f]\ng = 1\n");
        let lines =
            ["a", "a[0]", "a[1]", "a[1].b", "a[1].c", "a[1].c[0][0]", "a[2]"].map(|path| places.line(path));
        assert_eq!(lines, [Some(1), Some(2), Some(3), Some(3), Some(3), Some(3), None]);
        let lines = ["d", "d[0]", "d[0].e", "d[1]", "d[1].f.g"].map(|path| places.line(path));
        assert_eq!(lines, [Some(5), Some(5), Some(6), Some(7), Some(9)]);
        assert_eq!((places.at(7), places.at(13)), (Some("a[0]"), Some("a[1].b")));
    }
}
