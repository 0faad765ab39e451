//! Filter `tojson`: `json.dumps` of Python, with its defaults but for `ensure_ascii=False`, as transformers has it.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// How `json.dumps` writes.
struct Style {
    ascii: bool,
    /// What one level is indented by; all in one line without it.
    indent: Option<String>,
    item: String,
    key: String,
    sorted: bool,
}

/// The filter; its first two arguments may also be given by place.
pub(super) fn tojson(
    value: &Value,
    ascii: Option<bool>,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<String, Error> {
    let ascii: Option<bool> = if ascii.is_none() { options.get("ensure_ascii")? } else { ascii };
    let indent: Option<Value> = if indent.is_none() { options.get("indent")? } else { indent };
    let separators: Option<Vec<String>> = options.get("separators")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let indent = indent.filter(|indent| !indent.is_none()).map(|indent| match indent.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => usize::try_from(indent).map(|spaces| " ".repeat(spaces)),
    });
    let indent = indent.transpose()?;
    let (item, key) = match separators.as_deref() {
        None => (if indent.is_some() { "," } else { ", " }, ": "),
        Some([item, key]) => (item.as_str(), key.as_str()),
        Some(_) => return Err(refused("tojson has `separators` other than two")),
    };
    let style = Style {
        ascii: ascii.unwrap_or(false),
        item: item.to_owned(),
        key: key.to_owned(),
        sorted: sorted.unwrap_or(false),
        indent,
    };
    let mut out = String::new();
    style.write(&mut out, value, 0)?;
    Ok(out)
}

fn refused(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail.into())
}

impl Style {
    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)?),
            ValueKind::String => self.write_text(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq => {
                let items = value.try_iter()?.collect::<Vec<_>>();
                self.write_items(out, ['[', ']'], items.len(), depth, |out, index| {
                    self.write(out, &items[index], depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut keys = value
                    .try_iter()?
                    .map(|key| Ok((key_text(&key)?, key)))
                    .collect::<Result<Vec<_>, Error>>()?;
                if self.sorted {
                    keys.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.write_items(out, ['{', '}'], keys.len(), depth, |out, index| {
                    let (text, key) = &keys[index];
                    self.write_text(out, text);
                    out.push_str(&self.key);
                    self.write(out, &value.get_item(key)?, depth + 1)
                })?;
            }
            other => return Err(refused(format!("a {other} has no JSON"))),
        }
        Ok(())
    }

    fn write_items(
        &self,
        out: &mut String,
        brackets: [char; 2],
        count: usize,
        depth: usize,
        write: impl Fn(&mut String, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                out.push_str(&indent.repeat(depth));
            }
        };
        out.push(brackets[0]);
        for index in 0..count {
            if index > 0 {
                out.push_str(&self.item);
            }
            line(out, depth + 1);
            write(out, index)?;
        }
        if count > 0 {
            line(out, depth);
        }
        out.push(brackets[1]);
        Ok(())
    }

    fn write_text(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if key.is_integer() => Ok(key.to_string()),
        None => Err(refused(format!("a {} is no key of JSON", key.kind()))),
    }
}

/// Numbers that Python and Rust write alike; others are refused.
fn number(value: &Value) -> Result<String, Error> {
    let number = f64::try_from(value.clone())?;
    let plain = number == 0.0 || (1e-4..1e16).contains(&number.abs());
    if value.is_integer() || plain {
        Ok(value.to_string())
    } else {
        Err(refused(format!("{value} is written differently in Python; expected 0.0001 to 1e16")))
    }
}
