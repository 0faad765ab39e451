//! The canonical form of a constitution file. Comments, the order of tables and the order of keys stay as they are.
//!
//! - `key = value`, strings in double quotes where they need no escapes, no indentation;
//! - one empty line before a rule and before another table at the top, none before the tables inside a rule;
//! - an array on one line if it fits into 120 columns and has no comments, except an array of several tables, such as the
//!   statements of a link: those stand one on a line, indented by two, each with a comma behind it;
//! - empty lines between keys stay, at most one; the file ends with one newline.

use toml_edit::{Array, Decor, DocumentMut, InlineTable, Item, KeyMut, RawString, Table, Value};

use crate::{Constitution, ConstitutionError, Problem};

/// Most characters of a line that holds an array.
const WIDTH: usize = 120;

const INDENT: &str = "  ";

/// The canonical form of the constitution file `text`, which says the same. `origin` is the file's name for messages.
/// The canonical form of a canonical form is itself.
///
/// # Errors
/// If `text` is not a constitution, or ([`Problem::Format`]) its form cannot be changed without changing what it says.
pub fn format(text: &str, origin: &str) -> Result<String, ConstitutionError> {
    let meant = Constitution::parse(text, origin)?;
    let refused = |message: String| ConstitutionError::new(origin, None, Problem::Format { message });
    let mut document: DocumentMut = text.parse().map_err(|error| refused(format!("{error}")))?;
    table(document.as_table_mut(), 0);
    let end = block(document.trailing().as_str().unwrap_or_default(), Blank::Keep, true);
    document.set_trailing(end);
    let formatted = format!("{}\n", document.to_string().trim_matches('\n'));
    match Constitution::parse(&formatted, origin) {
        Ok(says) if says == meant => Ok(formatted),
        Ok(_) => Err(refused("the canonical form would say something else".to_owned())),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Empty lines before a key or a header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blank {
    /// One.
    Always,
    /// One if there was any.
    Keep,
    /// None.
    Never,
}

fn raw(text: Option<&RawString>) -> &str {
    text.and_then(RawString::as_str).unwrap_or_default()
}

/// The comment lines before a key or a header, each on its own line. `open` says that the last line may hold a comment
/// too, as at the end of a file.
fn block(before: &str, blank: Blank, open: bool) -> String {
    let mut lines: Vec<&str> = before.split('\n').map(str::trim).collect();
    if !open {
        // What stands on the line of the key itself is indentation.
        lines.pop();
    }
    let begins_blank = lines.first().is_some_and(|line| line.is_empty());
    let mut out = String::new();
    if blank == Blank::Always || (blank == Blank::Keep && begins_blank) {
        out.push('\n');
    }
    let mut comments = lines.into_iter().skip_while(|line| line.is_empty()).peekable();
    while let Some(line) = comments.next() {
        // Of several empty lines the last one stays.
        if line.is_empty() && comments.peek().is_some_and(|next| next.is_empty()) {
            continue;
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// A comment behind a value or a header, on the same line.
fn behind(decor: &Decor) -> String {
    let comment = raw(decor.suffix()).trim();
    if comment.is_empty() { String::new() } else { format!(" {comment}") }
}

fn table(own: &mut Table, depth: usize) {
    for (index, (mut key, item)) in own.iter_mut().enumerate() {
        // Nothing empty between a header and its first key.
        let blank = if index == 0 && depth > 0 { Blank::Never } else { Blank::Keep };
        match item {
            Item::Value(value) => line(&mut key, value, blank),
            Item::Table(inner) if inner.is_dotted() => {
                key.fmt();
                table(inner, depth);
            }
            Item::Table(inner) => {
                key.fmt();
                header(inner, depth);
                table(inner, depth + 1);
            }
            Item::ArrayOfTables(array) => {
                key.fmt();
                for inner in array.iter_mut() {
                    header(inner, depth);
                    table(inner, depth + 1);
                }
            }
            Item::None => {}
        }
    }
}

fn header(table: &mut Table, depth: usize) {
    let blank = if depth == 0 { Blank::Always } else { Blank::Never };
    let (before, comment) = (block(raw(table.decor().prefix()), blank, false), behind(table.decor()));
    table.decor_mut().set_prefix(before);
    table.decor_mut().set_suffix(comment);
}

fn line(key: &mut KeyMut<'_>, value: &mut Value, blank: Blank) {
    let before = block(raw(key.leaf_decor().prefix()), blank, false);
    key.fmt();
    key.leaf_decor_mut().set_prefix(before);
    key.leaf_decor_mut().set_suffix(" ");
    let comment = behind(value.decor());
    if let Value::Array(array) = value {
        lay_out(array, key.get().len() + 3);
    } else {
        compact(value);
    }
    value.decor_mut().set_prefix(" ");
    value.decor_mut().set_suffix(comment);
}

/// Whether a value has no comments inside and can stand on one line. Keys with dots keep their form.
fn is_plain(value: &Value) -> bool {
    let clean = |decor: &Decor| !raw(decor.prefix()).contains('#') && !raw(decor.suffix()).contains('#');
    let ends = |trailing: &RawString| !trailing.as_str().unwrap_or_default().contains('#');
    match value {
        Value::Array(array) => {
            ends(array.trailing()) && array.iter().all(|item| clean(item.decor()) && is_plain(item))
        }
        Value::InlineTable(table) => {
            ends(table.trailing())
                && table.iter().all(|(key, item)| {
                    let dotted = matches!(item, Value::InlineTable(inner) if inner.is_dotted());
                    let key = table.key(key).is_none_or(|key| clean(key.leaf_decor()));
                    key && !dotted && clean(item.decor()) && is_plain(item)
                })
        }
        _ => true,
    }
}

/// One line, one space where there is any. A value that is not plain stays as it is.
fn compact(value: &mut Value) {
    if !is_plain(value) {
        return;
    }
    match value {
        Value::String(own) => own.fmt(),
        Value::Integer(own) => own.fmt(),
        Value::Float(own) => own.fmt(),
        Value::Boolean(own) => own.fmt(),
        Value::Datetime(own) => own.fmt(),
        Value::Array(array) => compact_array(array),
        Value::InlineTable(table) => compact_table(table),
    }
}

fn compact_array(array: &mut Array) {
    for (index, item) in array.iter_mut().enumerate() {
        compact(item);
        item.decor_mut().set_prefix(if index == 0 { "" } else { " " });
        item.decor_mut().set_suffix("");
    }
    array.set_trailing("");
    array.set_trailing_comma(false);
}

fn compact_table(table: &mut InlineTable) {
    let last = table.len().saturating_sub(1);
    for (index, (mut key, item)) in table.iter_mut().enumerate() {
        key.fmt();
        key.leaf_decor_mut().set_prefix(" ");
        key.leaf_decor_mut().set_suffix(" ");
        compact(item);
        item.decor_mut().set_prefix(" ");
        item.decor_mut().set_suffix(if index == last { " " } else { "" });
    }
    table.set_trailing("");
    table.set_trailing_comma(false);
}

/// Lays out the array of a key; `before` is the width of what stands before it on its line.
fn lay_out(array: &mut Array, before: usize) {
    let several = array.len() > 1 && array.iter().any(|item| matches!(item, Value::InlineTable(_)));
    let plain = is_plain(&Value::Array(array.clone()));
    if plain {
        compact_array(array);
        if !several && before + array.to_string().trim().chars().count() <= WIDTH {
            return;
        }
    }
    let mut end = array.trailing().as_str().unwrap_or_default().to_owned();
    let last = array.len().saturating_sub(1);
    let comma = array.trailing_comma();
    for (index, item) in array.iter_mut().enumerate() {
        let prefix = comments(raw(item.decor().prefix())) + INDENT;
        let suffix = raw(item.decor().suffix()).to_owned();
        compact(item);
        item.decor_mut().set_prefix(prefix);
        if index == last && !comma {
            // The comma that is put behind it would stand behind its comment.
            end.insert_str(0, &suffix);
            item.decor_mut().set_suffix("");
        } else {
            item.decor_mut().set_suffix(before_comma(&suffix));
        }
    }
    array.set_trailing(comments(&end));
    array.set_trailing_comma(!array.is_empty());
}

/// What stands between a comma and the next item, or the end, of an array over several lines: a comment on the line of
/// the comma, then comments of their own lines, up to the newline.
fn comments(between: &str) -> String {
    let mut lines = between.split('\n').map(str::trim);
    let first = lines.next().unwrap_or_default();
    let mut out = if first.is_empty() { "\n".to_owned() } else { format!(" {first}\n") };
    for line in lines.filter(|line| !line.is_empty()) {
        out.push_str(INDENT);
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// Comments between an item and its comma, which must stand on a line of its own then.
fn before_comma(suffix: &str) -> String {
    let lines: Vec<&str> = suffix.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        String::new()
    } else {
        format!(" {}\n{INDENT}", lines.join(&format!("\n{INDENT}")))
    }
}
