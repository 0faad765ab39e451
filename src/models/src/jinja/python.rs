//! Methods of Python's types that templates call, as far as other than what `minijinja_contrib` has of them.

use minijinja::value::{Kwargs, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Called for every method that a value does not have itself.
pub(super) fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return unknown_method_callback(state, value, name, arguments) };
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let (set,): (Option<&str>,) = from_args(arguments)?;
            let cut = |c: char| set.map_or_else(|| is_space(c), |set| set.contains(c));
            let text = if name == "rstrip" { text } else { text.trim_start_matches(cut) };
            Ok(Value::from(if name == "lstrip" { text } else { text.trim_end_matches(cut) }))
        }
        "split" | "rsplit" => {
            let (by, most, options): (Option<&str>, Option<i64>, Kwargs) = from_args(arguments)?;
            let by = if by.is_none() { options.get("sep")? } else { by };
            let most = if most.is_none() { options.get("maxsplit")? } else { most };
            options.assert_all_used()?;
            // -1 stands for all.
            let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX - 1);
            split(text, by, most, name == "rsplit").map(Value::from)
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" | "rpartition" => {
            let (by,): (&str,) = from_args(arguments)?;
            let last = name == "rpartition";
            let found = if last { text.rsplit_once(by) } else { text.split_once(by) };
            let parts = match found {
                Some((before, after)) => [before, by, after],
                None if last => ["", "", text],
                None => [text, "", ""],
            };
            Ok(Value::from(parts.map(str::to_owned).to_vec()))
        }
        _ => unknown_method_callback(state, value, name, arguments),
    }
}

/// Filter `trim`.
pub(super) fn trim(value: &str, set: Option<&str>) -> String {
    value.trim_matches(|c: char| set.map_or_else(|| is_space(c), |set| set.contains(c))).to_owned()
}

/// `str.isspace`: what Unicode calls white space, and four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.split` and, from the end, `str.rsplit`, with at most `most` cuts.
fn split(text: &str, by: Option<&str>, most: usize, from_end: bool) -> Result<Vec<String>, Error> {
    let owned = |parts: Vec<&str>| parts.into_iter().map(str::to_owned).collect::<Vec<_>>();
    match by {
        Some("") => Err(Error::new(ErrorKind::InvalidOperation, "a text is split at an empty one")),
        Some(by) if from_end => {
            let mut parts = owned(text.rsplitn(most + 1, by).collect());
            parts.reverse();
            Ok(parts)
        }
        Some(by) => Ok(owned(text.splitn(most + 1, by).collect())),
        None if from_end => Err(Error::new(ErrorKind::InvalidOperation, "rsplit without a separator")),
        None => {
            let (mut parts, mut rest) = (Vec::new(), text.trim_start_matches(is_space));
            while !rest.is_empty() {
                let end = if parts.len() < most { rest.find(is_space) } else { None };
                let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
                parts.push(part.to_owned());
                rest = after.trim_start_matches(is_space);
            }
            Ok(parts)
        }
    }
}
