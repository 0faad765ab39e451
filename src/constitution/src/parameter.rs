//! Numbers inside a rule that can be set from outside, within bounds that the constitution states.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::nearest::nearest;
use crate::rule::{Constitution, Rule};
use crate::template::Template;
use crate::{ConstitutionError, Problem, Revision};

/// What a parameter counts or measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ParameterKind {
    /// Degrees, 0 to 360.
    Angle,
    /// A whole number, 0 to 1000000.
    Count,
    /// Percent, 0 to 100.
    Share,
    /// Years, 0 to 150.
    Age,
}

impl ParameterKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Angle, Self::Count, Self::Share, Self::Age];

    /// The name used in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Angle => "angle",
            Self::Count => "count",
            Self::Share => "share",
            Self::Age => "age",
        }
    }

    /// What a value is, in words: unit and whole or not.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Angle => "degrees",
            Self::Count => "a whole number",
            Self::Share => "percent",
            Self::Age => "years",
        }
    }

    /// The most that any parameter of this kind can be; the least is 0.
    pub fn most(self) -> f64 {
        match self {
            Self::Angle => 360.0,
            Self::Count => 1e6,
            Self::Share => 100.0,
            Self::Age => 150.0,
        }
    }

    /// Whether a value is of this kind: in range, and whole where it must be. A NaN lies in no range.
    fn admits(self, value: f64) -> bool {
        (0.0..=self.most()).contains(&value) && (self != Self::Count || value.fract() == 0.0)
    }
}

/// A number inside a rule. `{name}` in the rule's text and statements stands for its value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parameter {
    /// Unique within the rule: a-z, 0-9 and -.
    pub name: String,
    /// What it counts or measures.
    pub kind: ParameterKind,
    /// From `min` to `max`; whole if the kind is a count.
    pub value: f64,
    /// The least that it can be set to, 0 or more.
    pub min: f64,
    /// The most that it can be set to, at most what the kind allows.
    pub max: f64,
}

// No number in it is a NaN: each was found in a range.
impl Eq for Parameter {}

impl Parameter {
    /// A parameter whose numbers have been checked.
    ///
    /// # Errors
    /// Key and problem of the first number that cannot be.
    pub(crate) fn checked(self, rule: &str) -> Result<Self, (&'static str, Problem)> {
        let Self { kind, min, max, value, .. } = self;
        let refused = |key, found, min, max| {
            let problem = Problem::ParameterValue {
                rule: rule.to_owned(),
                name: self.name.clone(),
                key,
                unit: kind.unit(),
                value: found,
                min,
                max,
            };
            Err((key, problem))
        };
        if !kind.admits(min) {
            return refused("min", min, 0.0, kind.most());
        }
        if !kind.admits(max) || max < min {
            return refused("max", max, min, kind.most());
        }
        if !kind.admits(value) || !(min..=max).contains(&value) {
            return refused("value", value, min, max);
        }
        Ok(self)
    }

    /// The value as it stands in a text: `90`, `22.5`.
    pub(crate) fn written(&self) -> String {
        // Adding zero turns -0.0 into 0.0.
        (self.value + 0.0).to_string()
    }
}

/// One value for one parameter, from outside the constitution: `spread-legs.angle=60`.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The rule's id.
    pub rule: String,
    /// The parameter's name.
    pub parameter: String,
    /// The value.
    pub value: f64,
}

impl Setting {
    /// A value for the parameter `path`, that is `rule.parameter`.
    ///
    /// # Errors
    /// [`Problem::Setting`] if `path` is of another form.
    pub fn new(path: &str, value: f64) -> Result<Self, Problem> {
        match path.trim().split_once('.') {
            Some((rule, parameter)) if !rule.is_empty() && !parameter.is_empty() => {
                Ok(Self { rule: rule.to_owned(), parameter: parameter.to_owned(), value })
            }
            _ => Err(Problem::Setting { written: path.to_owned() }),
        }
    }
}

impl FromStr for Setting {
    type Err = Problem;

    /// Reads `rule.parameter=value`.
    fn from_str(text: &str) -> Result<Self, Problem> {
        let refused = || Problem::Setting { written: text.to_owned() };
        let (path, value) = text.split_once('=').ok_or_else(refused)?;
        let value = value.trim().parse::<f64>().map_err(|_| refused())?;
        Self::new(path, value).map_err(|_| refused())
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}={}", self.rule, self.parameter, self.value)
    }
}

impl Constitution {
    /// The same constitution with other values for some of its parameters, and the revision of what it says then. Of two
    /// settings for one parameter the later holds.
    ///
    /// # Errors
    /// A setting for a rule or a parameter that the constitution does not have, or a value outside the bounds that it
    /// states.
    pub fn with_parameters(&self, settings: &[Setting]) -> Result<Self, ConstitutionError> {
        let mut changed = self.clone();
        for setting in settings {
            changed.set(setting).map_err(|problem| ConstitutionError::new(&self.name, None, problem))?;
        }
        changed.revision = Revision::of(&changed);
        Ok(changed)
    }

    fn set(&mut self, setting: &Setting) -> Result<(), Problem> {
        let known = self.parameter_paths();
        let rule = self.rules.iter_mut().find(|rule| rule.id == setting.rule);
        let found = rule.and_then(|rule| {
            let index = rule.parameters.iter().position(|known| known.name == setting.parameter)?;
            Some((rule, index))
        });
        let Some((rule, index)) = found else {
            let path = format!("{}.{}", setting.rule, setting.parameter);
            let nearest = nearest(&path, known.iter().map(String::as_str)).map(str::to_owned);
            return Err(Problem::UnknownSetting { path, nearest, known });
        };
        let parameter = Parameter { value: setting.value, ..rule.parameters[index].clone() };
        rule.parameters[index] = parameter.checked(&rule.id).map_err(|(_, problem)| problem)?;
        rule.substitute();
        Ok(())
    }

    /// `rule.parameter` of every parameter, in the order of the rules.
    pub fn parameter_paths(&self) -> Vec<String> {
        let of = |rule: &Rule| -> Vec<String> {
            rule.parameters.iter().map(|parameter| format!("{}.{}", rule.id, parameter.name)).collect()
        };
        self.rules.iter().flat_map(of).collect()
    }
}

/// The texts of a rule before its parameters were put in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Written {
    /// The rule's text.
    pub(crate) text: Template,
    /// Its statements: those of the chain in order, then those of the exception.
    pub(crate) statements: Vec<Template>,
}

impl Rule {
    /// Puts the parameters' values into text and statements.
    pub(crate) fn substitute(&mut self) {
        self.text = self.written.text.filled(&self.parameters);
        let links = self.preconditions.iter_mut().chain(&mut self.unless);
        let statements = links.flat_map(|link| &mut link.any);
        for (statement, template) in statements.zip(&self.written.statements) {
            statement.text = template.filled(&self.parameters);
        }
    }
}
