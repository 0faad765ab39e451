//! Markdown tables.

use std::fmt;

use serde::Serialize;

/// A table; the first column holds names, the others figures.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Table {
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these headings.
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|&heading| heading.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row; what is missing is left blank.
    pub(crate) fn row(&mut self, name: impl Into<String>, cells: impl IntoIterator<Item = String>) {
        let mut row = vec![name.into()];
        row.extend(cells);
        row.resize(self.head.len(), String::new());
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.head[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut line = |row: &[String]| {
            write!(f, "|")?;
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if column == 0 {
                    write!(f, " {cell:<width$} |")?;
                } else {
                    write!(f, " {cell:>width$} |")?;
                }
            }
            writeln!(f)
        };
        line(&self.head)?;
        let rule = |column: usize| {
            let dashes = "-".repeat(widths[column].max(2));
            if column == 0 { dashes } else { format!("{}:", &dashes[1..]) }
        };
        line(&(0..self.head.len()).map(rule).collect::<Vec<_>>())?;
        self.rows.iter().try_for_each(|row| line(row))
    }
}

/// A time in milliseconds, or a dash where none was measured.
pub(crate) fn ms(value: f64) -> String {
    if !value.is_finite() {
        "-".to_owned()
    } else if value < 10.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.1}")
    }
}

/// A ratio, or a dash where none was measured.
pub(crate) fn times(value: f64) -> String {
    if value.is_finite() { format!("{value:.2}x") } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_markdown() {
        let mut table = Table::new(&["what", "ms"]);
        table.row("one statement", [ms(3.456)]);
        table.row("24", [ms(1234.56)]);
        table.row("none", [ms(f64::NAN)]);
        let expected = "\
            | what          |     ms |\n\
            | ------------- | -----: |\n\
            | one statement |   3.46 |\n\
            | 24            | 1234.6 |\n\
            | none          |      - |\n";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_short_row_is_filled_up() {
        let mut table = Table::new(&["a", "b", "c"]);
        table.row("x", [times(2.0)]);
        assert_eq!(table.rows, [["x", "2.00x", ""]]);
    }
}
