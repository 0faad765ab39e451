//! Decisions as lines for other programs: JSON in OPA's shape, or CSV.

use std::io::Write;

use serde_json::Value;

use crate::entry::Entry;
use crate::error::{AuditError, Result};

/// The columns of [`csv_row`].
const COLUMNS: [&str; 20] = [
    "timestamp",
    "tenant",
    "decision_id",
    "request",
    "member",
    "model",
    "constitution",
    "revision",
    "mode",
    "outcome",
    "reason",
    "action",
    "violated",
    "unjudged",
    "requested_by",
    "subject",
    "released_picture",
    "message",
    "instance",
    "seq",
];

/// The form of exported decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// One JSON object a line, as in the log.
    Jsonl,
    /// Comma-separated values (RFC 4180) with a line of names; violated rules with `;` between them. A text that a
    /// spreadsheet would take for a formula begins with an apostrophe.
    Csv,
}

/// Writes decisions one by one.
#[derive(Debug)]
pub struct Exporter<W> {
    to: W,
    format: ExportFormat,
}

impl<W: Write> Exporter<W> {
    /// Begins, with the line of names where the format has one.
    ///
    /// # Errors
    /// If writing fails.
    pub fn new(mut to: W, format: ExportFormat) -> std::io::Result<Self> {
        if format == ExportFormat::Csv {
            write!(to, "{}\r\n", COLUMNS.join(","))?;
        }
        Ok(Self { to, format })
    }

    /// Writes one entry.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write(&mut self, entry: &Entry) -> std::io::Result<()> {
        match self.format {
            ExportFormat::Jsonl => {
                serde_json::to_writer(&mut self.to, entry)?;
                self.to.write_all(b"\n")
            }
            ExportFormat::Csv => write!(self.to, "{}\r\n", csv_row(entry)),
        }
    }

    /// Ends, and gives back what was written to.
    ///
    /// # Errors
    /// If writing fails.
    pub fn finish(mut self) -> std::io::Result<W> {
        self.to.flush()?;
        Ok(self.to)
    }
}

fn csv_row(entry: &Entry) -> String {
    let text = |value: &Value, pointer: &str| match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(";"),
        Some(other) => other.to_string(),
    };
    let (input, result) = (&entry.input, &entry.result);
    [
        entry.timestamp.clone(),
        entry.tenant().unwrap_or_default().to_owned(),
        entry.decision_id.clone(),
        text(input, "/request/id"),
        text(input, "/member"),
        text(input, "/model"),
        text(result, "/constitution/name"),
        text(result, "/constitution/revision"),
        text(input, "/mode"),
        text(result, "/outcome"),
        text(result, "/reason"),
        text(result, "/action"),
        text(result, "/violated"),
        text(result, "/unjudged"),
        entry.requested_by.clone().unwrap_or_default(),
        text(input, "/subject"),
        text(result, "/released_picture"),
        text(result, "/message"),
        entry.chain.instance.clone(),
        entry.chain.seq.to_string(),
    ]
    .map(|cell| csv_cell(&cell))
    .join(",")
}

/// A cell, quoted if it must be. What begins like a formula gets an apostrophe, so that a client's request cannot run in
/// the spreadsheet of whoever reads the log.
fn csv_cell(text: &str) -> String {
    let guarded =
        if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if guarded.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

impl From<std::io::Error> for AuditError {
    fn from(source: std::io::Error) -> Self {
        Self::Io { path: "the output".into(), action: "written", source }
    }
}

/// Writes every entry of a query.
///
/// # Errors
/// If the log cannot be read or `to` cannot be written.
pub fn export<W: Write>(
    places: &crate::LogPlaces,
    query: &crate::Query,
    format: ExportFormat,
    to: W,
    progress: &mut dyn FnMut(u64),
) -> Result<u64> {
    let mut exporter = Exporter::new(to, format)?;
    let mut count = 0;
    places.query(query, &mut |entry| {
        exporter.write(&entry)?;
        count += 1;
        progress(count);
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    exporter.finish()?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_are_no_formulas() {
        assert_eq!(csv_cell("plain"), "plain");
        assert_eq!(csv_cell("a,b"), "\"a,b\"");
        assert_eq!(csv_cell("say \"x\"\n"), "\"say \"\"x\"\"\n\"");
        assert_eq!(csv_cell("=HYPERLINK(\"http://x\")"), "\"'=HYPERLINK(\"\"http://x\"\")\"");
        assert_eq!(csv_cell("@x"), "'@x");
    }
}
