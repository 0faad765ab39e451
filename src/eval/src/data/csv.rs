//! Comma-separated values, strictly as RFC 4180 has them: a lenient reader would take half a file for one field and
//! say nothing.

use std::collections::HashMap;

use cluegate_constitution::nearest;

use super::error::{DataError, Problem, shortened};
use super::{MAX_ROWS, Text};

/// A table with a header.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    file: &'a str,
    columns: HashMap<String, usize>,
    header: Vec<String>,
    records: Vec<Record>,
}

#[derive(Debug)]
struct Record {
    line: usize,
    fields: Vec<String>,
}

/// One row of a [`Table`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    table: &'a Table<'a>,
    record: &'a Record,
}

impl<'a> Table<'a> {
    /// Reads `text`: a header, then rows of as many fields.
    pub(crate) fn parse(text: Text<'a>) -> Result<Self, DataError> {
        let mut reader = Reader { text, rest: text.content.trim_start_matches('\u{FEFF}'), line: 1 };
        let Some(Record { fields: header, .. }) = reader.record()? else {
            return Err(DataError::new(text.file, None, Problem::Empty));
        };
        let mut columns = HashMap::new();
        for (index, name) in header.iter().enumerate() {
            if columns.insert(name.clone(), index).is_some() {
                return Err(DataError::new(text.file, 1, Problem::RepeatedColumn(name.clone())));
            }
        }
        let mut records = Vec::new();
        while let Some(record) = reader.record()? {
            if record.fields.len() != header.len() {
                let came = format!("expected {} fields, got {}", header.len(), record.fields.len());
                return Err(DataError::new(text.file, record.line, Problem::Csv(came)));
            }
            if records.len() == MAX_ROWS {
                return Err(DataError::new(text.file, record.line, Problem::TooManyRows { limit: MAX_ROWS }));
            }
            records.push(record);
        }
        if records.is_empty() {
            return Err(DataError::new(text.file, None, Problem::Empty));
        }
        Ok(Self { file: text.file, columns, header, records })
    }

    /// Refuses a table that lacks one of these columns.
    pub(crate) fn require(&self, columns: &[&'static str]) -> Result<(), DataError> {
        match columns.iter().find(|column| !self.columns.contains_key(**column)) {
            Some(column) => {
                let problem = Problem::MissingColumn { column, known: self.header.clone() };
                Err(DataError::new(self.file, 1, problem))
            }
            None => Ok(()),
        }
    }

    /// Refuses a table that has another column than these.
    pub(crate) fn allow(&self, known: &[&'static str]) -> Result<(), DataError> {
        match self.header.iter().find(|column| !known.contains(&column.as_str())) {
            Some(column) => {
                let nearest = nearest(column, known.iter().copied()).map(str::to_owned);
                let problem =
                    Problem::UnknownColumn { column: column.clone(), nearest, known: known.to_vec() };
                Err(DataError::new(self.file, 1, problem))
            }
            None => Ok(()),
        }
    }

    /// The rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.records.iter().map(|record| Row { table: self, record })
    }

    /// Whether there is such a column.
    pub(crate) fn has(&self, column: &str) -> bool {
        self.columns.contains_key(column)
    }
}

impl<'a> Row<'a> {
    /// Where it begins, from 1.
    pub(crate) fn line(self) -> usize {
        self.record.line
    }

    /// The field of a column; `None` if there is no such column, or the field is blank.
    pub(crate) fn get(self, column: &str) -> Option<&'a str> {
        Some(self.text(column)).filter(|field| !field.trim().is_empty())
    }

    /// A field as it stands, blank or not; empty if there is no such column.
    pub(crate) fn text(self, column: &str) -> &'a str {
        let index = self.table.columns.get(column);
        index.and_then(|index| self.record.fields.get(*index)).map_or("", String::as_str)
    }

    /// A field that must not be blank.
    pub(crate) fn need(self, key: &'static str) -> Result<&'a str, DataError> {
        self.get(key).ok_or_else(|| self.refuse(key, "a value", ""))
    }

    /// A field read as a number or the like, if it is there.
    pub(crate) fn read<T: std::str::FromStr>(
        self,
        key: &'static str,
        expected: &str,
    ) -> Result<Option<T>, DataError> {
        match self.get(key) {
            Some(field) => field.trim().parse().map(Some).map_err(|_| self.refuse(key, expected, field)),
            None => Ok(None),
        }
    }

    /// An error about a field of this row.
    pub(crate) fn refuse(self, key: &'static str, expected: &str, came: &str) -> DataError {
        let problem = Problem::Value { key, expected: expected.to_owned(), came: shortened(came) };
        DataError::new(self.table.file, self.line(), problem)
    }
}

struct Reader<'a> {
    text: Text<'a>,
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    /// The next record; `None` at the end of the text.
    fn record(&mut self) -> Result<Option<Record>, DataError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let line = self.line;
        let mut fields = Vec::new();
        loop {
            fields.push(if self.rest.starts_with('"') { self.quoted(line)? } else { self.plain()? });
            if let Some(rest) = self.rest.strip_prefix(',') {
                self.rest = rest;
            } else {
                break;
            }
        }
        self.rest =
            self.rest.strip_prefix("\r\n").or_else(|| self.rest.strip_prefix('\n')).unwrap_or(self.rest);
        self.line += 1;
        Ok(Some(Record { line, fields }))
    }

    fn plain(&mut self) -> Result<String, DataError> {
        let end = self.rest.find([',', '\n', '\r', '"']).unwrap_or(self.rest.len());
        let (field, rest) = self.rest.split_at(end);
        if rest.starts_with('"') {
            return Err(self.refuse(self.line, "a quote inside a field that does not begin with one"));
        }
        if rest.starts_with('\r') && !rest.starts_with("\r\n") {
            return Err(self.refuse(self.line, "a carriage return that ends no line"));
        }
        self.rest = rest;
        Ok(field.to_owned())
    }

    fn quoted(&mut self, record: usize) -> Result<String, DataError> {
        let mut field = String::new();
        self.rest = &self.rest[1..];
        loop {
            let Some(end) = self.rest.find('"') else {
                return Err(self.refuse(record, "a quote in the record that begins here is never closed"));
            };
            let (part, rest) = self.rest.split_at(end);
            self.line += part.matches('\n').count();
            field.push_str(part);
            self.rest = &rest[1..];
            if let Some(rest) = self.rest.strip_prefix('"') {
                field.push('"');
                self.rest = rest;
            } else {
                break;
            }
        }
        if self.rest.is_empty() || [",", "\n", "\r\n"].iter().any(|next| self.rest.starts_with(next)) {
            Ok(field)
        } else {
            Err(self.refuse(self.line, "expected a comma or the end of the line after a closing quote"))
        }
    }

    fn refuse(&self, line: usize, reason: &str) -> DataError {
        DataError::new(self.text.file, line, Problem::Csv(reason.to_owned()))
    }
}

/// A field as [`Table::parse`] reads it back.
pub fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn cells(content: &str) -> Vec<Vec<String>> {
        let table = Table::parse(Text { file: "t.csv", content }).unwrap();
        table.records.into_iter().map(|record| record.fields).collect()
    }

    fn error(content: &str) -> String {
        Table::parse(Text { file: "t.csv", content }).unwrap_err().to_string()
    }

    #[test]
    fn fields_may_hold_commas_quotes_and_lines() {
        let read = cells("\u{FEFF}a,b\r\n\"x, \"\"y\"\"\nz\",2\n,\n");
        assert_eq!(read, [["x, \"y\"\nz", "2"], ["", ""]]);
        assert_eq!(cells("a\nlast without a line end"), [["last without a line end"]]);
    }

    #[test]
    fn what_a_lenient_reader_would_guess_at_is_refused_with_its_line() {
        assert!(error("a,b\n\"x\ny\",1\n1\n").starts_with("t.csv:4: not CSV: expected 2 fields, got 1"));
        assert!(error("a,b\n1,\"2\n3,4\n").starts_with("t.csv:2: not CSV: a quote"));
        assert!(error("a\nx\"y\n").starts_with("t.csv:2: "));
        assert!(error("a\n\"x\"y\n").contains("after a closing quote"));
        assert!(error("a\nx\ry\n").contains("carriage return"));
        assert!(error("a,a\n1,2\n").contains("twice"));
        assert!(error("").contains("at least one row") && error("a\n").contains("at least one row"));
    }

    #[test]
    fn columns_are_checked_by_name() {
        let table = Table::parse(Text { file: "t.csv", content: "image,lable\nx,safe\n" }).unwrap();
        let missing = table.require(&["image", "label"]).unwrap_err().to_string();
        assert!(missing.contains("expected the column `label`"), "{missing}");
        let unknown = table.allow(&["image", "label"]).unwrap_err().to_string();
        assert!(unknown.contains("did you mean `label`"), "{unknown}");
    }

    proptest! {
        #[test]
        fn whatever_is_quoted_is_read_back(
            rows in prop::collection::vec(prop::collection::vec("[a\",\r\n é]{0,6}", 3), 1..6),
        ) {
            let mut text = "a,b,c\n".to_owned();
            for row in &rows {
                let line: Vec<String> = row.iter().map(|field| quoted(field)).collect();
                text.push_str(&line.join(","));
                text.push('\n');
            }
            prop_assert_eq!(cells(&text), rows);
        }

        #[test]
        fn any_text_is_read_or_refused(content in "[ab,\"\r\n]{0,40}") {
            let _ = Table::parse(Text { file: "t.csv", content: &content });
        }
    }
}
