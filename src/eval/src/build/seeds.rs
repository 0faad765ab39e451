//! Seed prompts: for each rule some that violate it and some that come close, as templates over lists of words.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::path::Path;

use cluegate_constitution::Constitution;
use cluegate_perception::{Call, CompletionRequest, Prefix, Prompt, VisionLanguageModel};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::BuildError;

/// Most bytes of a file of seeds.
const MAX_BYTES: u64 = 4 << 20;
/// Most templates of one rule and situation.
const MAX_TEMPLATES: usize = 1000;
/// Most characters of a prompt.
const MAX_PROMPT: usize = 1000;
/// Most tokens that a text model may write for one template.
const MAX_TOKENS: usize = 1024;
/// How often a template is filled anew where the prompt was there before.
const TRIES: usize = 8;

/// The seeds that ship for a constitution; none if there are none.
pub fn shipped(name: &str) -> Option<&'static str> {
    (name == "scene").then_some(include_str!("../../seeds/scene.toml"))
}

/// Seed prompts of a constitution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seeds {
    /// What may stand for a `{name}` in a template.
    #[serde(default)]
    pub words: BTreeMap<String, Vec<String>>,
    /// The rules.
    #[serde(rename = "rule")]
    pub rules: Vec<SeedRule>,
}

/// The seed prompts of one rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedRule {
    /// The rule's id.
    pub id: String,
    /// What violates it.
    pub violating: Vec<SeedPrompt>,
    /// What comes close and violates no rule at all.
    pub borderline: Vec<SeedPrompt>,
}

/// A prompt, or the template of many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedPrompt {
    /// The words; `{name}` stands for one of the words of that name.
    pub prompt: String,
    /// Statements that hold of a picture that fits the prompt, for the filter by the judge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shows: Vec<String>,
    /// Statements that do not hold of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// Other rules that such a picture violates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
}

/// Whether a picture is to violate a rule, or to come close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Situation {
    /// It violates the rule.
    Violating,
    /// It comes close and violates none.
    Borderline,
}

impl Situation {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Violating, Self::Borderline];

    /// Its name in ids.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Violating => "violating",
            Self::Borderline => "borderline",
        }
    }
}

impl SeedRule {
    /// The prompts of a situation.
    pub fn of(&self, situation: Situation) -> &[SeedPrompt] {
        match situation {
            Situation::Violating => &self.violating,
            Situation::Borderline => &self.borderline,
        }
    }
}

impl Seeds {
    /// Reads a file of seeds.
    ///
    /// # Errors
    /// A file that cannot be read, or [`Self::parse`].
    pub fn load(path: &Path, constitution: &Constitution) -> Result<Self, BuildError> {
        let origin = path.display().to_string();
        let refuse = |source| BuildError::File { path: path.to_owned(), source };
        let bytes = std::fs::metadata(path).map_err(refuse)?.len();
        if bytes > MAX_BYTES {
            let reason = format!("it has {bytes} bytes, more than the {MAX_BYTES} allowed");
            return Err(BuildError::Seeds { origin, reason });
        }
        Self::parse(&std::fs::read_to_string(path).map_err(refuse)?, &origin, constitution)
    }

    /// Reads seeds in TOML, and checks them against the constitution that they are for.
    ///
    /// # Errors
    /// No TOML of this form, an unknown rule or word, or a rule without prompts of either kind.
    pub fn parse(text: &str, origin: &str, constitution: &Constitution) -> Result<Self, BuildError> {
        let refuse = |reason: String| BuildError::Seeds { origin: origin.to_owned(), reason };
        let seeds: Self = toml::from_str(text).map_err(|error| refuse(error.to_string()))?;
        seeds.check(constitution).map_err(refuse)?;
        Ok(seeds)
    }

    fn check(&self, constitution: &Constitution) -> Result<(), String> {
        let known = |id: &str| {
            let ids = constitution.rules().iter().map(|rule| rule.id.as_str());
            let near = cluegate_constitution::nearest(id, ids)
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            constitution.rule(id).map(|_| ()).ok_or(format!("the constitution has no rule `{id}`{near}"))
        };
        if self.rules.is_empty() {
            return Err("expected at least one [[rule]], found none".to_owned());
        }
        let mut seen = HashSet::new();
        for rule in &self.rules {
            known(&rule.id)?;
            if !seen.insert(&rule.id) {
                return Err(format!("the rule `{}` is there twice", rule.id));
            }
            for situation in Situation::ALL {
                let prompts = rule.of(situation);
                if prompts.is_empty() || prompts.len() > MAX_TEMPLATES {
                    let (id, name, count) = (&rule.id, situation.as_str(), prompts.len());
                    return Err(format!("`{id}`: expected 1 to {MAX_TEMPLATES} {name} prompts, got {count}"));
                }
                for prompt in prompts {
                    self.check_prompt(prompt).map_err(|reason| format!("`{}`: {reason}", rule.id))?;
                    prompt.also.iter().try_for_each(|id| known(id))?;
                    if situation == Situation::Borderline && !prompt.also.is_empty() {
                        return Err(format!(
                            "`{}`: a borderline prompt violates no rule; leave `also` out",
                            rule.id
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    fn check_prompt(&self, seed: &SeedPrompt) -> Result<(), String> {
        let prompt = &seed.prompt;
        if prompt.trim().is_empty() || prompt.chars().count() > MAX_PROMPT {
            return Err(format!("expected a prompt of 1 to {MAX_PROMPT} characters, got {prompt:?}"));
        }
        for part in std::iter::once(prompt).chain(&seed.shows).chain(&seed.lacks) {
            let mut random = ChaCha8Rng::seed_from_u64(0);
            self.filled(part, &mut random, &mut BTreeMap::new())?;
        }
        Ok(())
    }

    /// A template with a word for each name; the same name has the same word within one prompt and its statements.
    fn filled(
        &self,
        template: &str,
        random: &mut ChaCha8Rng,
        chosen: &mut BTreeMap<String, String>,
    ) -> Result<String, String> {
        let mut text = String::new();
        let mut rest = template;
        while let Some(start) = rest.find('{') {
            text.push_str(&rest[..start]);
            let end =
                rest[start..].find('}').ok_or(format!("{template:?} has a brace that is never closed"))?;
            let name = &rest[start + 1..start + end];
            let words = self.words.get(name).filter(|words| !words.is_empty()).ok_or_else(|| {
                let known: Vec<&str> = self.words.keys().map(String::as_str).collect();
                format!(
                    "{template:?} asks for {{{name}}}, of which [words] has none; known: {}",
                    known.join(", ")
                )
            })?;
            let word = chosen.entry(name.to_owned()).or_insert_with(|| {
                let index = random.random_range(0..u32::try_from(words.len()).unwrap_or(u32::MAX));
                words[index as usize].clone()
            });
            text.push_str(word);
            rest = &rest[start + end + 1..];
        }
        text.push_str(rest);
        Ok(text)
    }

    /// The prompts of a rule and situation, without end, each template in turn: the same for the same seed. A prompt comes
    /// again only where its template has no other left that is easily found.
    pub fn prompts<'a>(
        &'a self,
        rule: &'a SeedRule,
        situation: Situation,
        seed: u64,
    ) -> impl Iterator<Item = SeedPrompt> + 'a {
        let templates = rule.of(situation);
        let about = format!("{}/{}", rule.id, situation.as_str());
        let stream = blake3::hash(about.as_bytes());
        let stream = stream.as_bytes().iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ stream);
        let mut seen = HashSet::new();
        (0..).map_while(move |number: usize| {
            let template = templates.get(number % templates.len().max(1))?;
            let mut drawn = self.drawn(template, &mut random)?;
            for _ in 0..TRIES {
                if seen.insert(drawn.prompt.clone()) {
                    break;
                }
                drawn = self.drawn(template, &mut random)?;
            }
            Some(drawn)
        })
    }

    fn drawn(&self, template: &SeedPrompt, random: &mut ChaCha8Rng) -> Option<SeedPrompt> {
        let mut chosen = BTreeMap::new();
        let mut fill = |text: &String| self.filled(text, random, &mut chosen).ok();
        Some(SeedPrompt {
            prompt: fill(&template.prompt)?,
            shows: template.shows.iter().map(&mut fill).collect::<Option<_>>()?,
            lacks: template.lacks.iter().map(&mut fill).collect::<Option<_>>()?,
            also: template.also.clone(),
        })
    }

    /// The seeds with up to `more` further prompts for each template, written by a text model. A template whose answer
    /// holds no prompt stays alone. Statements go over to what is written, in which the model is asked to keep who and
    /// what there is.
    ///
    /// # Errors
    /// The model failed.
    pub fn expanded(&self, model: &dyn VisionLanguageModel, more: usize) -> Result<Self, BuildError> {
        let mut expanded = self.clone();
        // The order of templates decides which prompts are drawn, so that it must not depend on batches.
        for rule in &mut expanded.rules {
            for prompts in [&mut rule.violating, &mut rule.borderline] {
                let mut written = Vec::new();
                for (index, template) in prompts.iter().enumerate() {
                    let mut random = ChaCha8Rng::seed_from_u64(index as u64);
                    let Some(example) = self.drawn(template, &mut random) else { continue };
                    let request =
                        CompletionRequest { prompt: request(&example.prompt, more), max_tokens: MAX_TOKENS };
                    let answers = model.complete(&[request], &Call::default())?;
                    let text = answers.into_iter().next().map(|answer| answer.text).unwrap_or_default();
                    let lines = prompts_in(&text).filter(|line| *line != example.prompt).take(more);
                    written.extend(lines.map(|prompt| SeedPrompt { prompt, ..example.clone() }));
                }
                prompts.extend(written);
                prompts.truncate(MAX_TEMPLATES);
            }
        }
        Ok(expanded)
    }
}

fn request(prompt: &str, more: usize) -> Prompt {
    let words = format!(
        "Here is a prompt for a text-to-image model:\n{prompt}\n\nWrite {more} other prompts that show the same people or \
         animals, the same objects, and the same relation between them, in other words, places and styles. Write one \
         prompt a line and nothing else."
    );
    Prompt::new(Prefix { picture: None, text: std::sync::Arc::from("") }, words)
}

/// The prompts in a model's answer, one a line: without numbers, bullets and quotes. Braces would be taken for names.
fn prompts_in(text: &str) -> impl Iterator<Item = String> {
    let mut seen = HashSet::new();
    text.lines()
        .map(|line| {
            let line = line.trim().trim_start_matches(|c: char| c.is_ascii_digit() || "-*•.) ".contains(c));
            line.trim_matches(|c: char| c == '"' || c == '“' || c == '”' || c.is_whitespace()).to_owned()
        })
        .filter(|line| (3..=MAX_PROMPT).contains(&line.chars().count()) && !line.contains(['{', '}']))
        .filter(move |line| seen.insert(line.clone()))
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn scene() -> Constitution {
        Constitution::shipped("scene").unwrap()
    }

    #[test]
    fn the_shipped_seeds_are_for_every_rule_and_give_many_prompts() {
        let seeds = Seeds::parse(shipped("scene").unwrap(), "scene", &scene()).unwrap();
        assert_eq!(seeds.rules.len(), scene().rules().len());
        for rule in &seeds.rules {
            for situation in Situation::ALL {
                let prompts: Vec<SeedPrompt> = seeds.prompts(rule, situation, 7).take(60).collect();
                let again: Vec<SeedPrompt> = seeds.prompts(rule, situation, 7).take(60).collect();
                assert_eq!(prompts, again);
                let distinct: HashSet<&str> = prompts.iter().map(|prompt| prompt.prompt.as_str()).collect();
                assert!(distinct.len() >= 50, "{} {}: {}", rule.id, situation.as_str(), distinct.len());
                for prompt in &prompts {
                    assert!(!prompt.prompt.contains(['{', '}']), "{}", prompt.prompt);
                    assert!(!prompt.shows.is_empty() || !prompt.lacks.is_empty(), "{}", prompt.prompt);
                }
            }
        }
        assert_eq!(shipped("general"), None);
    }

    #[test]
    fn seeds_that_cannot_be_used_are_refused_with_what_is_wrong() {
        let of = |rule: &str, prompt: &str, words: &str| {
            let text = format!(
                "{words}\n[[rule]]\nid = \"{rule}\"\nviolating = [{{ prompt = \"{prompt}\" }}]\nborderline = [{{ prompt = \"a cat\" }}]\n"
            );
            Seeds::parse(&text, "s.toml", &scene()).map(|_| ()).unwrap_err().to_string()
        };
        assert!(of("armd", "a man", "").contains("did you mean `armed`"));
        let unknown = of("armed", "a {preson}", "[words]\nperson = [\"man\"]");
        assert!(unknown.contains("asks for {preson}") && unknown.contains("known: person"), "{unknown}");
        assert!(of("armed", "a {person", "[words]\nperson = [\"man\"]").contains("never closed"));
        assert!(of("armed", " ", "").contains("expected a prompt"));
        assert!(of("armed", "x", "[word]\na = [\"b\"]").contains("unknown field `word`"));
        let twice =
            "[[rule]]\nid=\"armed\"\nviolating=[{prompt=\"a\"}]\nborderline=[{prompt=\"b\"}]\n".repeat(2);
        assert!(Seeds::parse(&twice, "s", &scene()).unwrap_err().to_string().contains("there twice"));
        let empty = "[[rule]]\nid=\"armed\"\nviolating=[]\nborderline=[{prompt=\"b\"}]\n";
        assert!(
            Seeds::parse(empty, "s", &scene()).unwrap_err().to_string().contains("violating prompts, got 0")
        );
    }

    #[test]
    fn a_word_is_the_same_in_a_prompt_and_its_statements() {
        let text = "[words]\nhazard = [\"knife\", \"sword\", \"gun\"]\n[[rule]]\nid = \"armed\"\n\
            violating = [{ prompt = \"a man with a {hazard} and a {hazard}\", shows = [\"a {hazard} is visible\"] }]\n\
            borderline = [{ prompt = \"a man\" }]\n";
        let seeds = Seeds::parse(text, "s", &scene()).unwrap();
        for prompt in seeds.prompts(&seeds.rules[0], Situation::Violating, 1).take(9) {
            let word = prompt.shows[0].strip_prefix("a ").unwrap().strip_suffix(" is visible").unwrap();
            assert_eq!(prompt.prompt, format!("a man with a {word} and a {word}"));
        }
    }

    proptest! {
        #[test]
        fn whatever_a_model_writes_becomes_prompts_or_nothing(text in "[-0-9.*\" a-c\\n{}“”é]{0,200}") {
            let prompts: Vec<String> = prompts_in(&text).collect();
            let distinct: HashSet<&String> = prompts.iter().collect();
            prop_assert_eq!(distinct.len(), prompts.len());
            let fits = |prompt: &String| prompt.chars().count() >= 3 && !prompt.contains(['{', '}', '\n']);
            prop_assert!(prompts.iter().all(fits));
        }
    }
}
