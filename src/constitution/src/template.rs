//! Texts with places for parameters: `{name}` stands for a value, `{{` and `}}` for the braces themselves.

use crate::parameter::Parameter;

/// A text with places for parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// As it stands.
    Text(String),
    /// The value of the parameter of this name.
    Parameter(String),
}

impl Template {
    /// Reads `text`.
    ///
    /// # Errors
    /// What is wrong with a brace, as half a sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else if let Some(after) = from.strip_prefix('{') {
                let Some((name, after)) = after.split_once('}') else {
                    return Err("`{` is not closed".to_owned());
                };
                if !is_name(name) {
                    return Err(format!("`{{{name}}}` is no name of a parameter"));
                }
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Parameter(name.to_owned()));
                rest = after;
            } else {
                return Err("`}` was not opened".to_owned());
            }
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    /// Names of the parameters in it, as often as they occur.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Parameter(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text with the values in their places. A name that `parameters` lack stands for nothing; the parser has made
    /// sure that there is none.
    pub(crate) fn filled(&self, parameters: &[Parameter]) -> String {
        let value = |name: &str| parameters.iter().find(|known| known.name == name).map(Parameter::written);
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Parameter(name) => value(name).unwrap_or_default(),
        };
        self.0.iter().map(part).collect()
    }
}

/// Whether `name` can be that of a rule, a constitution or a parameter: 1 to 64 of a-z, 0-9 and -, not starting with -.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=64).contains(&name.len())
        && name.starts_with(allowed)
        && name.chars().all(|c| allowed(c) || c == '-')
}
