//! Numbers inside a rule: found without a model, named, and given bounds, so that a person or a tenant can change them.
//!
//! | kind | what is found |
//! |---|---|
//! | `angle` | `90 degrees`, `90°`, `a 90-degree angle` |
//! | `share` | `20 %`, `20 percent` |
//! | `age` | `18 years`, `an 18-year-old`, `under the age of 18`, `aged 18` |
//! | `count` | `more than 3 people`, `two or more knives`: a whole number before a word that is no unit of measure |
//!
//! Bounds are a proposal for the reviewer: from half of the value to twice as much, within what the kind allows; a count
//! stays at 1 or more if it was.

use std::ops::Range;

use cluegate_constitution::{Parameter, ParameterKind, Setting};

use crate::text::stem;

/// A number found in a text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    kind: ParameterKind,
    value: f64,
    /// What is counted; empty for other kinds.
    noun: String,
    /// Where the digits or the word of the number stand, in bytes.
    at: Range<usize>,
}

impl Found {
    fn same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.value.to_bits() == other.value.to_bits() && self.counts_as(other)
    }

    /// Whether both count the same, in one form of the word or another.
    fn counts_as(&self, other: &Self) -> bool {
        stem(&self.noun) == stem(&other.noun)
    }

    /// The number with its unit, for prompts: `90 degrees`, `3 people`.
    fn told(&self, value: f64) -> String {
        match self.kind {
            ParameterKind::Angle => format!("{value} degrees"),
            ParameterKind::Share => format!("{value} percent"),
            ParameterKind::Age => format!("{value} years"),
            ParameterKind::Count => format!("{value} {}", self.noun),
        }
    }
}

/// Words for small numbers, which count only beside a word of comparison.
const NUMBERS: [&str; 12] =
    ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
/// Words of comparison before a count.
const BEFORE: [&str; 10] =
    ["than", "least", "most", "exactly", "over", "under", "only", "to", "about", "nearly"];
/// Parts of a whole: `one quarter` counts nothing.
const PARTS: [&str; 12] = [
    "half", "halves", "third", "thirds", "quarter", "quarters", "fourth", "fourths", "fifth", "fifths",
    "tenth", "tenths",
];
/// Units that none of the kinds measures in.
const UNITS: [&str; 34] = [
    "m",
    "cm",
    "mm",
    "km",
    "metre",
    "metres",
    "meter",
    "meters",
    "centimetre",
    "centimetres",
    "centimeter",
    "centimeters",
    "millimetres",
    "millimeters",
    "kilometres",
    "kilometers",
    "inch",
    "inches",
    "foot",
    "feet",
    "yards",
    "miles",
    "px",
    "pixel",
    "pixels",
    "seconds",
    "minutes",
    "hours",
    "days",
    "weeks",
    "months",
    "kg",
    "o'clock",
    "am",
];

/// A word of a text, in small letters, and where it stands.
struct Word {
    text: String,
    at: Range<usize>,
}

/// Words, and the signs for percent and degrees as words of their own.
fn words(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut start: Option<usize> = None;
    let push = |words: &mut Vec<Word>, at: Range<usize>| {
        if let Some(word) = text.get(at.clone()) {
            words.push(Word { text: word.to_lowercase(), at });
        }
    };
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        let next = text.get(at + c.len_utf8()..).and_then(|rest| rest.chars().next());
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let inside = c.is_alphanumeric() || c == '\'' || (c == '.' && is_digit(before) && is_digit(next));
        // 90deg and 20% are two words each.
        let turns = start.is_some() && c.is_alphabetic() && is_digit(before);
        if let Some(from) = start.filter(|_| !inside || turns) {
            push(&mut words, from..at);
            start = None;
        }
        if inside && start.is_none() {
            start = Some(at);
        } else if matches!(c, '%' | '\u{b0}') {
            push(&mut words, at..at + c.len_utf8());
        }
    }
    words
}

/// The numbers of a text that are typed, in their order.
pub(crate) fn find(text: &str) -> Vec<Found> {
    let words = words(text);
    let word = |index: Option<usize>| index.and_then(|i| words.get(i)).map_or("", |word| word.text.as_str());
    let mut found: Vec<Found> = Vec::new();
    for (index, number) in words.iter().enumerate() {
        // Written as it is put in again: neither 007 nor 2.50.
        let digits: Option<f64> =
            number.text.parse().ok().filter(|value: &f64| value.to_string() == number.text);
        let spelt = NUMBERS.iter().position(|name| *name == number.text);
        let Some(value) = digits.or(spelt.map(|place| place as f64 + 1.0)) else { continue };
        let (before, after) = (word(index.checked_sub(1)), word(Some(index + 1)));
        let second = word(index.checked_sub(2));
        let kind = match after {
            "degree" | "degrees" | "deg" | "\u{b0}" => ParameterKind::Angle,
            "percent" | "%" => ParameterKind::Share,
            "per" if word(Some(index + 2)) == "cent" => ParameterKind::Share,
            "year" | "years" => ParameterKind::Age,
            _ if before == "aged"
                || (before == "of" && second == "age")
                || (before == "age" && digits.is_some()) =>
            {
                ParameterKind::Age
            }
            _ => ParameterKind::Count,
        };
        let noun = match kind {
            ParameterKind::Count => counted(&words, index),
            _ => Some(String::new()),
        };
        let compared =
            BEFORE.contains(&before) || (after == "or" && matches!(word(Some(index + 2)), "more" | "fewer"));
        let plain = kind != ParameterKind::Count || value.fract() == 0.0;
        let counts = spelt.is_none() || compared || kind != ParameterKind::Count;
        let Some(noun) = noun.filter(|_| plain && counts && value <= kind.most()) else { continue };
        found.push(Found { kind, value, noun, at: number.at.clone() });
    }
    found
}

/// What a number counts: the word after it, or after `or more`. None for units, figures and words that
/// nothing counts.
fn counted(words: &[Word], index: usize) -> Option<String> {
    const SKIPPED: [&str; 6] = ["or", "more", "fewer", "less", "of", "the"];
    let rest = words.get(index + 1..)?.iter().take(4);
    let noun = rest.map(|word| word.text.as_str()).find(|word| !SKIPPED.contains(word))?;
    let is_noun = noun.chars().all(|c| c.is_alphabetic() || c == '\'')
        && !UNITS.contains(&noun)
        && !PARTS.contains(&noun)
        && noun.len() > 2;
    is_noun.then(|| noun.to_owned())
}

/// The parameters that a rule's text proposes, each with the number that it stands for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Parameters(Vec<(Parameter, Found)>);

impl Parameters {
    /// One parameter for each different number of the text.
    pub(crate) fn propose(text: &str) -> Self {
        let mut proposed: Vec<(Parameter, Found)> = Vec::new();
        for found in find(text) {
            if proposed.iter().any(|(_, known)| known.same(&found)) {
                continue;
            }
            let earlier = proposed.iter().filter(|(known, _)| known.kind == found.kind).count();
            let name = match earlier {
                0 => found.kind.as_str().to_owned(),
                count => format!("{}-{}", found.kind.as_str(), count + 1),
            };
            let (min, max) = bounds(found.kind, found.value);
            proposed.push((Parameter { name, kind: found.kind, value: found.value, min, max }, found));
        }
        Self(proposed)
    }

    /// The parameters as a constitution states them.
    pub(crate) fn list(&self) -> impl Iterator<Item = &Parameter> {
        self.0.iter().map(|(parameter, _)| parameter)
    }

    /// Puts other values in. Bounds give way to what a person asks for.
    ///
    /// # Errors
    /// A setting for a parameter that there is not, or a value that its kind does not allow: what to do instead.
    pub(crate) fn set(&mut self, settings: &[&Setting]) -> Result<(), String> {
        for setting in settings {
            let known: Vec<&str> = self.list().map(|parameter| parameter.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let Some((parameter, _)) = self.0.iter_mut().find(|(p, _)| p.name == setting.parameter) else {
                return Err(format!(
                    "expected a parameter of this rule ({known}), got {:?}",
                    setting.parameter
                ));
            };
            let kind = parameter.kind;
            let whole = kind != ParameterKind::Count || setting.value.fract() == 0.0;
            if !(0.0..=kind.most()).contains(&setting.value) || !whole {
                let (unit, most) = (kind.unit(), kind.most());
                return Err(format!(
                    "expected {} in {unit}, 0 to {most}, got {}",
                    parameter.name, setting.value
                ));
            }
            parameter.value = setting.value;
            parameter.min = parameter.min.min(setting.value);
            parameter.max = parameter.max.max(setting.value);
        }
        Ok(())
    }

    /// Takes names and bounds from `earlier` for numbers of the same kind and value, so that what a person set keeps its
    /// name in another wording.
    pub(crate) fn keep_names(&mut self, earlier: &Self) {
        for (parameter, found) in &mut self.0 {
            let same = earlier.0.iter().find(|(known, number)| {
                known.kind == parameter.kind
                    && known.value.to_bits() == parameter.value.to_bits()
                    && (known.kind != ParameterKind::Count || number.counts_as(found))
            });
            if let Some((known, _)) = same {
                *parameter = known.clone();
            }
        }
        // What is new takes a free name.
        for index in 0..self.0.len() {
            let (before, rest) = self.0.split_at_mut(index);
            let Some((parameter, _)) = rest.first_mut() else { continue };
            let mut count = 1;
            while before.iter().any(|(other, _)| other.name == parameter.name) {
                count += 1;
                parameter.name = format!("{}-{count}", parameter.kind.as_str());
            }
        }
    }

    /// The values that a text lacks, each with its unit.
    pub(crate) fn missing_from(&self, text: &str) -> Vec<String> {
        let found = find(text);
        let lost = self.0.iter().filter(|(parameter, number)| {
            !found
                .iter()
                .any(|other| other.kind == number.kind && other.value.to_bits() == parameter.value.to_bits())
        });
        lost.map(|(parameter, number)| number.told(parameter.value)).collect()
    }

    /// The values with their units, for prompts; `none` without any.
    pub(crate) fn told(&self) -> String {
        let told: Vec<String> = self.0.iter().map(|(p, number)| number.told(p.value)).collect();
        if told.is_empty() { "none".to_owned() } else { told.join(", ") }
    }

    /// `text` with `{name}` for each number that a parameter stands for, and braces that it had doubled. `numbers` gets
    /// those that no parameter stands for.
    pub(crate) fn template(&self, text: &str, numbers: &mut Vec<String>) -> String {
        self.rewrite(
            text,
            |name| format!("{{{name}}}"),
            |text| text.replace('{', "{{").replace('}', "}}"),
            numbers,
        )
    }

    /// `text` with the present values.
    pub(crate) fn filled(&self, text: &str) -> String {
        let value = |name: &str| {
            let found = self.list().find(|parameter| parameter.name == name);
            found.map_or_else(String::new, |parameter| parameter.value.to_string())
        };
        self.rewrite(text, value, str::to_owned, &mut Vec::new())
    }

    fn rewrite(
        &self,
        text: &str,
        put: impl Fn(&str) -> String,
        keep: impl Fn(&str) -> String,
        numbers: &mut Vec<String>,
    ) -> String {
        let mut rewritten = String::new();
        let mut rest = 0;
        for found in find(text) {
            let Some(name) = self.name_of(&found) else {
                numbers.push(found.told(found.value));
                continue;
            };
            rewritten.push_str(&keep(text.get(rest..found.at.start).unwrap_or_default()));
            rewritten.push_str(&put(name));
            rest = found.at.end;
        }
        rewritten.push_str(&keep(text.get(rest..).unwrap_or_default()));
        rewritten
    }

    /// The parameter that a number of a text of this rule stands for: the same number, else the only one of its kind and
    /// value.
    fn name_of(&self, found: &Found) -> Option<&str> {
        let exact = self.0.iter().find(|(_, known)| known.same(found));
        let mut alike = self
            .0
            .iter()
            .filter(|(_, known)| known.kind == found.kind && known.value.to_bits() == found.value.to_bits());
        let only = alike.next().filter(|_| alike.next().is_none());
        exact.or(only).map(|(parameter, _)| parameter.name.as_str())
    }
}

/// From half of the value to twice as much, whole, within what the kind allows. An angle between two parts of a body or a
/// scene is at most a half turn, unless the value itself is more.
fn bounds(kind: ParameterKind, value: f64) -> (f64, f64) {
    let most = match kind {
        ParameterKind::Angle => f64::max(180.0, value),
        other => other.most(),
    };
    let half = (value / 2.0).floor();
    // At least none of something is everything.
    let least = if kind == ParameterKind::Count { f64::max(half, f64::min(value, 1.0)) } else { half };
    (least, f64::min((value * 2.0).ceil(), most).max(value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Vec<(&'static str, f64, String)> {
        find(text).into_iter().map(|found| (found.kind.as_str(), found.value, found.noun)).collect()
    }

    #[test]
    fn numbers_are_typed_by_the_words_around_them() {
        let plain = |kind, value| vec![(kind, value, String::new())];
        for text in ["more than 90 degrees apart", "a 90-degree angle", "over 90\u{b0} wide", "90deg"] {
            assert_eq!(found(text), plain("angle", 90.0), "{text}");
        }
        for text in ["over 20 % of the skin", "20% of it", "20 percent", "20 per cent"] {
            assert_eq!(found(text), plain("share", 20.0), "{text}");
        }
        for text in ["under 18 years", "an 18-year-old", "under the age of 18", "a child aged 18 or less"] {
            assert_eq!(found(text), plain("age", 18.0), "{text}");
        }
        let count = |value, noun: &str| vec![("count", value, noun.to_owned())];
        assert_eq!(found("more than 3 people"), count(3.0, "people"));
        assert_eq!(found("two or more persons"), count(2.0, "persons"));
        assert_eq!(found("at least two people"), count(2.0, "people"));
        assert_eq!(found("22.5 degrees"), plain("angle", 22.5));
        for text in [
            "one person holds two of them",
            "2.5 metres",
            "3 cm",
            "in 1995.",
            "2.5 people",
            "no numbers",
            "more than one quarter of the body",
            "",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn a_text_becomes_a_template_and_back() {
        let text = "Legs more than 90 degrees apart, {shown} by 3 people or 3 dogs, 90 degrees.";
        assert_eq!(Parameters::propose("3 persons, 3 people").list().count(), 1);
        let mut parameters = Parameters::propose(text);
        let names: Vec<&str> = parameters.list().map(|parameter| parameter.name.as_str()).collect();
        assert_eq!(names, ["angle", "count", "count-2"]);
        let mut numbers = Vec::new();
        assert_eq!(
            parameters.template(text, &mut numbers),
            "Legs more than {angle} degrees apart, {{shown}} by {count} people or {count-2} dogs, {angle} degrees."
        );
        assert!(numbers.is_empty());
        assert_eq!(parameters.template("5 cats and 90 degrees", &mut numbers), "5 cats and {angle} degrees");
        assert_eq!(numbers, ["5 cats"]);
        let set = |setting: &str| setting.parse::<Setting>().unwrap();
        parameters.set(&[&set("r.angle=200"), &set("r.count-2=1")]).unwrap();
        let angle = parameters.list().next().unwrap();
        assert_eq!((angle.value, angle.min, angle.max), (200.0, 45.0, 200.0));
        assert_eq!(
            parameters.filled(text),
            "Legs more than 200 degrees apart, {shown} by 3 people or 1 dogs, 200 degrees."
        );
        assert_eq!(parameters.told(), "200 degrees, 3 people, 1 dogs");
        assert_eq!(parameters.missing_from("more than 90 degrees, 3 people, 1 dog"), ["200 degrees"]);
        for (setting, part) in
            [("r.age=3", "(angle, count, count-2)"), ("r.angle=400", "0 to 360"), ("r.count=1.5", "whole")]
        {
            assert!(parameters.set(&[&set(setting)]).unwrap_err().contains(part));
        }
        assert_eq!(Parameters::propose("none").told(), "none");
        let bounds = |text| Parameters::propose(text).list().map(|p| (p.min, p.max)).collect::<Vec<_>>();
        assert_eq!(bounds("at least one wound"), [(1.0, 2.0)]);
        assert_eq!(bounds("at least 4 people, but 0 dogs"), [(2.0, 8.0), (0.0, 0.0)]);
    }

    proptest! {
        #[test]
        fn a_template_keeps_everything_but_the_numbers(
            text in "(more than |90|2\\.5|three|18| degrees|%| years| people|[{}\u{e9}., -]|\u{b0}|or more ){0,20}",
        ) {
            let parameters = Parameters::propose(&text);
            for parameter in parameters.list() {
                prop_assert!(parameter.min <= parameter.value && parameter.value <= parameter.max);
            }
            let mut filled = parameters.template(&text, &mut Vec::new());
            for parameter in parameters.list() {
                let spelt = format!("{{{}}}", parameter.name);
                prop_assert!(filled.contains(&spelt));
                filled = filled.replace(&spelt, &parameter.value.to_string());
            }
            // Only numbers that were spelt out become digits.
            prop_assert_eq!(
                filled.replace("{{", "{").replace("}}", "}").replace("three", "3"),
                text.replace("three", "3")
            );
        }
    }
}
