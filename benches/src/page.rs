//! A benchmark as it is told: printed as Markdown while it runs, kept as one page with plots.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use crate::machine::Machine;
use crate::table::Table;

/// A part of the page.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Part {
    Heading { text: String },
    Text { text: String },
    Table { table: Table },
    Plot { svg: String, caption: String },
}

/// What the template is given.
#[derive(Serialize)]
struct Content<'a> {
    title: &'a str,
    machine: String,
    parts: &'a [Part],
}

/// What was told so far.
pub(crate) struct Page {
    title: String,
    machine: Machine,
    parts: Vec<Part>,
}

impl Page {
    /// Begins with the title and the machine.
    pub(crate) fn begin(title: &str) -> anyhow::Result<Self> {
        let machine = Machine::here();
        say(&format!("# {title}\n\n{}", machine.line()))?;
        Ok(Self { title: title.to_owned(), machine, parts: Vec::new() })
    }

    /// Begins a section.
    pub(crate) fn heading(&mut self, text: &str) -> anyhow::Result<()> {
        say(&format!("\n## {text}\n"))?;
        self.parts.push(Part::Heading { text: text.to_owned() });
        Ok(())
    }

    /// A paragraph.
    pub(crate) fn text(&mut self, text: &str) -> anyhow::Result<()> {
        say(&format!("{text}\n"))?;
        self.parts.push(Part::Text { text: text.to_owned() });
        Ok(())
    }

    /// A table.
    pub(crate) fn table(&mut self, table: Table) -> anyhow::Result<()> {
        say(&table.to_string())?;
        self.parts.push(Part::Table { table });
        Ok(())
    }

    /// A plot, on the page only.
    pub(crate) fn plot(&mut self, caption: &str, svg: String) {
        self.parts.push(Part::Plot { svg, caption: caption.to_owned() });
    }

    /// Writes `name`.html into `folder`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let path = folder.join(format!("{name}.html"));
        std::fs::write(&path, self.html()?).with_context(|| format!("writing {}", path.display()))?;
        say(&format!("The same with plots: {}", path.display()))
    }

    fn html(&self) -> anyhow::Result<String> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.add_template("page.html", include_str!("page.html"))?;
        let content = Content { title: &self.title, machine: self.machine.line(), parts: &self.parts };
        Ok(environment.get_template("page.html")?.render(Serde(&content))?)
    }
}

/// Prints a line.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// Says on the error stream what is being done, so that nobody waits in the dark.
pub(crate) fn doing(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "... {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_escapes_text_and_keeps_plots() {
        let mut page = Page::begin("A < B").unwrap();
        page.heading("first").unwrap();
        let mut table = Table::new(&["what", "ms"]);
        table.row("<script>", ["1".to_owned()]);
        page.table(table).unwrap();
        page.plot("a plot", "<svg><rect/></svg>".to_owned());
        let html = page.html().unwrap();
        assert!(html.contains("A &lt; B") && html.contains("&lt;script&gt;") && !html.contains("<script>"));
        assert!(html.contains("<svg><rect/></svg>") && html.contains("a plot"));
        let folder = tempfile::tempdir().unwrap();
        page.write(folder.path(), "x").unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("x.html")).unwrap(), html);
    }
}
