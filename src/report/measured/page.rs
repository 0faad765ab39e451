//! The page's parts, and how they become HTML.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluegate_eval::metrics::Interval;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::errors::ShownError;

const STYLE: &str = include_str!("page.css");

/// The whole page.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    pub(super) title: String,
    pub(super) subtitle: String,
    pub(super) tally: Vec<Entry>,
    pub(super) sections: Vec<Section>,
}

/// A part with a title, which the contents name.
#[derive(Debug, Serialize)]
pub(super) struct Section {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) parts: Vec<Part>,
}

impl Section {
    pub(super) fn new(id: &'static str, title: &'static str) -> Self {
        Self { id, title, parts: Vec::new() }
    }

    pub(super) fn text(&mut self, text: impl Into<String>) {
        self.parts.push(Part::Text { text: text.into() });
    }

    pub(super) fn plot(&mut self, svg: String, caption: impl Into<String>) {
        self.parts.push(Part::Plot { svg, caption: caption.into() });
    }

    pub(super) fn table(&mut self, table: Table) {
        self.parts.push(Part::Table { table });
    }

    /// What `fill` adds, behind a summary that opens and closes it.
    pub(super) fn folded(&mut self, text: &str, open: bool, fill: impl FnOnce(&mut Self)) {
        self.parts.push(Part::Open { text: text.to_owned(), open });
        fill(self);
        self.parts.push(Part::Close);
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Part {
    Text { text: String },
    Open { text: String, open: bool },
    Close,
    Card { entries: Vec<Entry> },
    Plot { svg: String, caption: String },
    Table { table: Table },
    Errors { errors: Vec<ShownError> },
}

/// A name with its value.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    name: String,
    value: String,
    note: Option<String>,
    code: bool,
}

impl Entry {
    pub(super) fn new(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: value.into(), note: None, code: false }
    }

    pub(super) fn noted(self, note: Option<String>) -> Self {
        Self { note, ..self }
    }

    pub(super) fn code(name: &str, value: impl Into<String>) -> Self {
        Self { code: true, ..Self::new(name, value) }
    }
}

/// A table.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    pub(super) caption: String,
    head: Vec<&'static str>,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    cells: Vec<Cell>,
}

/// One cell.
#[derive(Debug, Default, Serialize)]
pub(super) struct Cell {
    text: String,
    range: Option<String>,
    words: bool,
    clear: bool,
}

impl Cell {
    /// Words, which may take several lines.
    pub(super) fn words(text: impl Into<String>) -> Self {
        Self { text: text.into(), words: true, ..Self::default() }
    }

    /// A count or the like.
    pub(super) fn text(text: impl ToString) -> Self {
        Self { text: text.to_string(), ..Self::default() }
    }

    /// A figure of three digits, with its interval if there is one.
    pub(super) fn figure(value: Option<f64>, interval: Option<&Interval>) -> Self {
        let text = value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
        let range = interval.map(|[low, high]| format!("{low:.3}–{high:.3}"));
        Self { text, range, ..Self::default() }
    }

    /// A difference with its sign, in bold where its interval is on one side of 0.
    pub(super) fn signed(difference: Option<&cluegate_eval::metrics::Difference>) -> Self {
        let Some(difference) = difference else { return Self::text("–") };
        // Not "-0.000".
        let signed = |value: f64| format!("{:+.3}", (value * 1e3).round() / 1e3 + 0.0).replace('-', "−");
        Self {
            text: signed(difference.value),
            range: difference.interval.map(|[low, high]| format!("{} to {}", signed(low), signed(high))),
            words: false,
            clear: difference.is_clear(),
        }
    }
}

impl Table {
    pub(super) fn new(caption: impl Into<String>, head: &[&'static str]) -> Self {
        Self { caption: caption.into(), head: head.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, name: &str, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(Row { name: name.to_owned(), cells: cells.into_iter().collect() });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[derive(Serialize)]
struct Rendered<'a> {
    #[serde(flatten)]
    page: &'a Page,
    contents: Vec<Link<'a>>,
    style: &'static str,
    style_hash: String,
}

#[derive(Serialize)]
struct Link<'a> {
    id: &'a str,
    title: &'a str,
}

impl Page {
    /// The page as HTML.
    pub(super) fn html(&self) -> anyhow::Result<String> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.add_template("page.html", include_str!("page.html"))?;
        let contents =
            self.sections.iter().map(|section| Link { id: section.id, title: section.title }).collect();
        let style_hash = format!("sha256-{}", STANDARD.encode(Sha256::digest(STYLE.as_bytes())));
        let rendered = Rendered { page: self, contents, style: STYLE, style_hash };
        Ok(environment.get_template("page.html")?.render(Serde(&rendered))?)
    }
}
