//! JSON rows with the line on which each stands: one a line, an array, or an object by name.

use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{DataError, Problem};
use super::{MAX_ROWS, Text};

/// One value for each line that is not blank, with its line.
pub(crate) fn lines<T: DeserializeOwned>(
    text: Text<'_>,
    expected: &'static str,
) -> Result<Vec<(usize, T)>, DataError> {
    let filled = text.content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    collect(text, filled.map(|(index, line)| (index + 1, line)), expected)
}

/// The values of one array, each with the line on which it begins.
pub(crate) fn array<T: DeserializeOwned>(
    text: Text<'_>,
    expected: &'static str,
) -> Result<Vec<(usize, T)>, DataError> {
    let values: Vec<&RawValue> = parse(text, expected)?;
    let mut lines = LineCounter { text: text.content, at: 0, line: 1 };
    collect(text, values.into_iter().map(|value| (lines.of(value.get()), value.get())), expected)
}

/// The members of one object in their order, each with its name and the line on which its value begins.
pub(crate) fn members<T: DeserializeOwned>(
    text: Text<'_>,
    expected: &'static str,
) -> Result<Vec<(usize, String, T)>, DataError> {
    let Members(members) = parse(text, expected)?;
    let mut lines = LineCounter { text: text.content, at: 0, line: 1 };
    let mut names = Vec::with_capacity(members.len());
    let values = members.into_iter().map(|(name, value)| {
        names.push(name);
        (lines.of(value.get()), value.get())
    });
    let values = collect(text, values.collect::<Vec<_>>().into_iter(), expected)?;
    Ok(values.into_iter().zip(names).map(|((line, value), name)| (line, name, value)).collect())
}

fn parse<'a, T: Deserialize<'a>>(text: Text<'a>, expected: &'static str) -> Result<T, DataError> {
    serde_json::from_str(text.content).map_err(|error| {
        let line = (error.line() > 0).then_some(error.line());
        DataError::new(text.file, line, Problem::Json { expected, reason: error.to_string() })
    })
}

fn collect<'a, T: DeserializeOwned>(
    text: Text<'_>,
    values: impl Iterator<Item = (usize, &'a str)>,
    expected: &'static str,
) -> Result<Vec<(usize, T)>, DataError> {
    let mut all = Vec::new();
    for (line, value) in values {
        if all.len() == MAX_ROWS {
            return Err(DataError::new(text.file, line, Problem::TooManyRows { limit: MAX_ROWS }));
        }
        let row = serde_json::from_str(value).map_err(|error| {
            // The parser counts from where the value begins.
            let line = line + error.line().saturating_sub(1);
            let (reason, _) = split_place(&error.to_string());
            DataError::new(text.file, line, Problem::Json { expected, reason })
        })?;
        all.push((line, row));
    }
    if all.is_empty() { Err(DataError::new(text.file, None, Problem::Empty)) } else { Ok(all) }
}

/// The message of a JSON error without the place at its end, which is one inside a row.
fn split_place(message: &str) -> (String, Option<&str>) {
    match message.rsplit_once(" at line ") {
        Some((reason, place)) => (reason.to_owned(), Some(place)),
        None => (message.to_owned(), None),
    }
}

/// Counts lines up to parts of a text that come in rising order.
struct LineCounter<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl LineCounter<'_> {
    /// The line on which `part`, a slice of the text, begins.
    fn of(&mut self, part: &str) -> usize {
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let between = self.text.as_bytes().get(self.at..offset).unwrap_or_default();
        self.line += between.iter().filter(|byte| **byte == b'\n').count();
        self.at = self.at.max(offset);
        self.line
    }
}

/// The members of an object in their order, unread; a map type would sort them and hide repetitions.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of rows by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Pair {
        a: u8,
    }

    fn text(content: &str) -> Text<'_> {
        Text { file: "t.json", content }
    }

    #[test]
    fn every_form_knows_the_lines_of_its_rows() {
        let rows: Vec<(usize, Pair)> = lines(text("{\"a\":1}\n\n{\"a\":2}\n"), "a pair").unwrap();
        assert_eq!(rows, [(1, Pair { a: 1 }), (3, Pair { a: 2 })]);
        let rows: Vec<(usize, Pair)> = array(text("[\n {\"a\":1},\n {\n\"a\":2}]"), "a pair").unwrap();
        assert_eq!(rows, [(2, Pair { a: 1 }), (3, Pair { a: 2 })]);
        let rows: Vec<(usize, String, Pair)> =
            members(text("{\"9\":{\"a\":1},\n\"1\":\n{\"a\":2}}"), "a pair").unwrap();
        assert_eq!(rows, [(1, "9".to_owned(), Pair { a: 1 }), (3, "1".to_owned(), Pair { a: 2 })]);
    }

    #[test]
    fn a_wrong_row_is_named_by_its_line() {
        let error = array::<Pair>(text("[{\"a\":1},\n\n{\n\"a\":\"x\"}]"), "a pair").unwrap_err();
        assert!(error.to_string().starts_with("t.json:4: expected a pair: invalid type"), "{error}");
        let error = lines::<Pair>(text("{\"a\":1}\n{\"b\":1}"), "a pair").unwrap_err();
        assert!(error.to_string().starts_with("t.json:2: expected a pair: missing field `a`"), "{error}");
        let error = array::<Pair>(text("[{\"a\":1},\n"), "a pair").unwrap_err();
        assert_eq!(error.line, Some(2), "{error}");
        assert!(matches!(array::<Pair>(text("[]"), "a pair").unwrap_err().problem, Problem::Empty));
    }
}
