//! Jinja templates as Hugging Face transformers compiles them (`utils/chat_template_utils.py`, 5.17): blocks trimmed on
//! both sides, loop controls, `{% generation %}`, `raise_exception`, `tojson` without escapes for HTML, Python's methods
//! and Python's way to print.
//!
//! What differs on purpose:
//!
//! - `strftime_now` is not defined, so that the same question always has the same tokens. Published templates ask
//!   whether it is, and write a fixed date otherwise; one that does not ask is refused when it is rendered.
//! - Lists and mappings cannot be printed: no published template means to write Python's `[{'type': ...}]` to a model.

mod json;
mod python;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};

/// A template that is ready to be rendered.
#[derive(Debug)]
pub(crate) struct Template(Environment<'static>);

const NAME: &str = "template";

impl Template {
    /// Compiles the text of a template.
    ///
    /// # Errors
    /// Bad syntax, with its line.
    pub(crate) fn compile(source: &str) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_formatter(print);
        environment.set_unknown_method_callback(python::method);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", json::tojson);
        environment.add_filter("trim", python::trim);
        environment.add_test("sequence", has_items);
        environment.add_test("iterable", has_items);
        environment.add_template_owned(NAME, prepared(source))?;
        Ok(Self(environment))
    }

    /// What it makes of `variables`, a mapping.
    ///
    /// # Errors
    /// What the template refuses by `raise_exception`, or an operation that its values do not have.
    pub(crate) fn render(&self, variables: Value) -> Result<String, Error> {
        self.0.get_template(NAME)?.render(variables)
    }
}

/// Prints as Python does.
fn print(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let printed = match value.kind() {
        ValueKind::Undefined => Ok(()),
        ValueKind::None => out.write_str("None"),
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => out.write_str(value.as_str().unwrap_or_default()),
        ValueKind::Number => write!(out, "{value}"),
        other => {
            let detail = format!("the template prints a {other}, expected text");
            return Err(Error::new(ErrorKind::InvalidOperation, detail));
        }
    };
    printed.map_err(|e| Error::new(ErrorKind::WriteFailure, e.to_string()))
}

/// Tests `sequence` and `iterable` of jinja2: text and mappings are both.
fn has_items(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::String)
}

/// The source with plain ends of lines, and `{% generation %}`, which only marks what the assistant says, as a block
/// with a scope of its own, which is what it is besides.
fn prepared(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let (scoped, length) = scope_of(tag).unwrap_or_else(|| (tag[..2].to_owned(), 2));
        out.push_str(&scoped);
        rest = &tag[length..];
    }
    out + rest
}

/// What stands for the generation tag at the beginning of a text, and the tag's length.
fn scope_of(text: &str) -> Option<(String, usize)> {
    let end = text.find("%}")?;
    let inner = &text[2..end];
    let open = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let name = open.strip_suffix(['-', '+']).unwrap_or(open);
    let word = match name.trim() {
        "generation" => "with",
        "endgeneration" => "endwith",
        _ => return None,
    };
    let left = &inner[..inner.len() - open.len()];
    let right = &open[name.len()..];
    Some((format!("{{%{left} {word} {right}%}}"), end + 2))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use minijinja::value::Serde;

    use super::*;

    fn render(source: &str) -> Result<String, Error> {
        let message = Value::from(Serde(serde_json::json!({"role": "user", "content": [{"type": "text"}]})));
        Template::compile(source)?.render(Value::from_pairs([("message", message)]))
    }

    #[test]
    fn constructs_are_those_of_the_reference() {
        #[derive(serde::Deserialize)]
        struct Goldens {
            messages: serde_json::Value,
            cases: Vec<Construct>,
        }
        #[derive(serde::Deserialize)]
        struct Construct {
            source: String,
            text: Option<String>,
        }
        let goldens: Goldens =
            serde_json::from_str(include_str!("../../goldens/templates/constructs.json")).unwrap();
        let variables = Value::from_pairs([("messages", Value::from(Serde(&goldens.messages)))]);
        let mut wrong = Vec::new();
        for Construct { source, text } in &goldens.cases {
            let found = Template::compile(source).and_then(|template| template.render(variables.clone()));
            if found.as_ref().ok() != text.as_ref() {
                wrong.push(format!("{source:?}: expected {text:?}, found {found:?}"));
            }
        }
        assert!(wrong.is_empty() && goldens.cases.len() > 50, "{}", wrong.join("\n"));
    }

    #[test]
    fn tags_that_are_not_the_generation_s_stay() {
        for source in ["{% generations %}", "{% generation", "{%", "{% generation %}{% end %}"] {
            assert_eq!(render(source).map_err(|e| e.kind()), Err(ErrorKind::SyntaxError), "{source}");
        }
        assert_eq!(render("{% generation %}a{% endgeneration %}{%- if 1 %}b{% endif %}").unwrap(), "ab");
    }

    #[test]
    fn what_cannot_be_reproduced_is_refused() {
        let refused = |source: &str| render(source).unwrap_err().to_string();
        assert!(refused("{{ strftime_now('%Y') }}").contains("strftime_now"));
        assert!(refused("{{ message['content'] }}").contains("prints a sequence"));
        assert!(refused("{{ message }}").contains("prints a map"));
        assert!(refused("{{ raise_exception('not now') }}").contains("not now"));
        assert_eq!(render("{{ strftime_now is defined }}").unwrap(), "False");
    }
}
