//! Our own format: a folder of pictures with `labels.csv`.
//!
//! | column | what |
//! |---|---|
//! | `image` | path of the picture below the folder; required |
//! | `rules` | ids of the violated rules, separated by spaces or `;`; blank for none |
//! | `label` | `safe` or `unsafe` |
//! | `id` | unique name of the row; default the path of the picture |
//! | `category`, `source`, `level`, `pair`, `text` | see [`Row`] |
//! | `policy` | the policy that this row is to be judged by, in words |
//! | `question` | instead of `policy`: the whole question, form of the answer included |
//!
//! One of `rules` and `label` has to be there; where both are, they have to agree. Other columns are refused.

use std::fs;
use std::path::Path;

use super::csv::{self, Table};
use super::error::{DataError, Problem};
use super::{DataSet, Names, Policy, Row, Text, Truth};

/// Name of the labels' file in a folder.
pub const LABELS_FILE: &str = "labels.csv";

const COLUMNS: [&str; 11] =
    ["image", "rules", "label", "id", "category", "source", "level", "pair", "text", "policy", "question"];

/// Reads `labels.csv`.
pub(super) fn parse(text: Text<'_>) -> Result<Vec<(usize, Row)>, DataError> {
    let table = Table::parse(text)?;
    table.allow(&COLUMNS)?;
    table.require(if table.has("rules") { &["image"] } else { &["image", "label"] })?;
    let mut names = Names::default();
    table
        .rows()
        .map(|cells| {
            let image = cells.need("image")?;
            let owned = |column| cells.get(column).map(str::to_owned);
            let mut row = Row::new("", image, truth(&table, cells, text.file)?);
            row.id = owned("id").unwrap_or_else(|| names.next(image));
            row.category = owned("category");
            row.source = owned("source");
            row.level = owned("level");
            row.pair = owned("pair");
            row.text = owned("text");
            row.policy = match (owned("policy"), owned("question")) {
                (Some(_), Some(_)) => {
                    let message = "the row has both `policy` and `question`; leave one of them".to_owned();
                    return Err(DataError::new(text.file, cells.line(), Problem::Contradiction(message)));
                }
                (policy, question) => policy.map(Policy::Text).or(question.map(Policy::Question)),
            };
            Ok((cells.line(), row))
        })
        .collect()
}

fn truth(table: &Table<'_>, cells: csv::Row<'_>, file: &str) -> Result<Truth, DataError> {
    let label = match cells.get("label").map(str::trim) {
        Some("safe") => Some(false),
        Some("unsafe") => Some(true),
        Some(other) => return Err(cells.refuse("label", "safe or unsafe", other)),
        None => None,
    };
    if table.has("rules") {
        let ids = cells.get("rules").unwrap_or_default();
        let rules =
            ids.split([';', ' ']).map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned).collect();
        let truth = Truth::Rules(rules);
        if label.is_some_and(|label| label != truth.is_unsafe()) {
            let message = format!("`label` says otherwise than `rules` ({ids:?}); correct one of them");
            return Err(DataError::new(file, cells.line(), Problem::Contradiction(message)));
        }
        return Ok(truth);
    }
    label.map(Truth::Unsafe).ok_or_else(|| cells.refuse("label", "safe or unsafe", ""))
}

/// Writes a data set as a folder of this format: pictures as PNG, the labels last, so that a folder without them is one
/// that was not finished. Calls `progress` after each picture.
///
/// # Errors
/// A picture that cannot be drawn, or a file that cannot be written.
pub fn export(set: &dyn DataSet, folder: &Path, mut progress: impl FnMut()) -> Result<(), DataError> {
    let refuse =
        |path: &Path, error| DataError::new(&path.display().to_string(), None, Problem::Unwritable(error));
    fs::create_dir_all(folder).map_err(|error| refuse(folder, error))?;
    // An empty column `rules` would say of an unsafe picture that it violates none.
    let columns: Vec<&str> =
        COLUMNS.into_iter().filter(|column| *column != "rules" || !set.rules().is_empty()).collect();
    let mut labels = columns.join(",") + "\n";
    for (index, row) in set.rows().iter().enumerate() {
        let image = format!("{}.png", row.id.replace('/', "-"));
        let path = folder.join(&image);
        let picture = set.picture(index)?;
        let png = cluegate_perception::encode_png(picture.pixels()).map_err(|error| {
            let problem = Problem::Picture { id: row.id.clone(), reason: error.to_string() };
            DataError::new(set.name(), None, problem)
        })?;
        fs::write(&path, png).map_err(|error| refuse(&path, error))?;
        let fields: Vec<String> =
            columns.iter().map(|column| csv::quoted(&field(row, &image, column))).collect();
        labels.push_str(&(fields.join(",") + "\n"));
        progress();
    }
    let path = folder.join(LABELS_FILE);
    fs::write(&path, labels).map_err(|error| refuse(&path, error))
}

/// What a row says in a column; blank for nothing.
fn field(row: &Row, image: &str, column: &str) -> String {
    let optional = |field: &Option<String>| field.clone().unwrap_or_default();
    match column {
        "image" => image.to_owned(),
        "rules" => {
            let rules = row.truth.rules().into_iter().flatten();
            rules.map(String::as_str).collect::<Vec<_>>().join(";")
        }
        "label" => (if row.truth.is_unsafe() { "unsafe" } else { "safe" }).to_owned(),
        "id" => row.id.clone(),
        "category" => optional(&row.category),
        "source" => optional(&row.source),
        "level" => optional(&row.level),
        "pair" => optional(&row.pair),
        "text" => optional(&row.text),
        "policy" => match &row.policy {
            Some(Policy::Text(words)) => words.clone(),
            _ => String::new(),
        },
        _ => match &row.policy {
            Some(Policy::Question(words)) => words.clone(),
            _ => String::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn rows(content: &str) -> Vec<Row> {
        parse(Text { file: "labels.csv", content }).unwrap().into_iter().map(|(_, row)| row).collect()
    }

    fn error(content: &str) -> String {
        parse(Text { file: "labels.csv", content }).unwrap_err().to_string()
    }

    #[test]
    fn labels_by_rule_or_as_safe_and_unsafe() {
        let by_rule = rows("image,rules,pair\na.png,armed;smoking,1\nb/c.png,,1\n");
        assert_eq!(by_rule[0].truth.rules().unwrap().iter().collect::<Vec<_>>(), ["armed", "smoking"]);
        assert!(!by_rule[1].truth.is_unsafe());
        assert_eq!(by_rule[1].pair.as_deref(), Some("1"));
        let whole = rows("image,label,policy\na.png,unsafe,\"No, never.\"\na.png,safe,\n");
        assert_eq!((whole[0].truth.clone(), whole[0].id.as_str()), (Truth::Unsafe(true), "a.png"));
        assert_eq!(whole[0].policy, Some(Policy::Text("No, never.".to_owned())));
        assert_eq!((whole[1].id.as_str(), &whole[1].policy), ("a.png#2", &None));
    }

    #[test]
    fn contradictions_and_unknown_words_are_refused_with_their_line() {
        let contradiction = error("image,rules,label\na.png,,safe\nb.png,armed,safe\n");
        assert!(contradiction.starts_with("labels.csv:3: `label` says otherwise"), "{contradiction}");
        let unknown = error("image,label\na.png,Safe\n");
        assert!(unknown.contains("`label`: expected safe or unsafe, got \"Safe\""), "{unknown}");
        assert!(error("image,rule\na.png,x\n").contains("did you mean `rules`"));
        assert!(error("image,text\na.png,x\n").contains("expected the column `label`"));
        assert!(error("image,label\n,safe\n").contains("`image`"));
        let both = error("image,label,policy,question\na.png,safe,x,y\n");
        assert!(both.contains("both `policy` and `question`"), "{both}");
    }
}
