use std::sync::Mutex;

use cluegate_perception::{
    AnswerId, AnswerScore, Call, Completion, CompletionRequest, Decoding, Fingerprint, FinishReason,
    LocalLanguageModel, PerceptionError, PerceptionErrorKind, Prompt, Result, VisionLanguageModel,
};

use super::{Gate, act, number};

/// What a [`ScriptedLanguage`] was asked, in order. Texts are the suffixes of the prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Score(Vec<String>),
    /// Those that joined and those for which there was no room.
    Join(Vec<String>, Vec<String>),
    Leave(String),
    /// The answers in the making, in the order in which they joined.
    Step(Vec<String>),
}

/// A language model whose answers depend on the suffix of the prompt only.
///
/// Scores: suffixes are acted on by [`act`]; `nan` scores NaN, and `short` makes a score missing. Answers: `join` and
/// `step` followed by a word that [`act`] knows do so when they join, or at their second token; `answer error` errs by
/// itself at its second token; `short`, `twin` and `lose` break the rules of the trait: their join has no answers, the
/// identity of another, or they vanish at their second token. A `wide` one takes two places of `room`, others one;
/// `refuse` never finds room, `late error` errs once there is room for it, and `read on` is read until nobody waits any
/// more for those that join with it. An answer has as many tokens as the request allows, or fewer if the suffix begins with
/// digits: that many.
pub(crate) struct ScriptedLanguage {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) room: usize,
    pub(crate) scores: Gate,
    pub(crate) steps: Gate,
    pub(crate) events: Mutex<Vec<Event>>,
}

impl Default for ScriptedLanguage {
    fn default() -> Self {
        Self {
            fingerprint: "scripted".to_owned(),
            room: 8,
            scores: Gate::default(),
            steps: Gate::default(),
            events: Mutex::default(),
        }
    }
}

pub(crate) fn fixed_score(text: &str) -> AnswerScore {
    let hash = number(text);
    let yes = if text.starts_with("nan") { f64::NAN } else { (hash % 1000) as f64 / 1000.0 };
    AnswerScore { yes, no: (hash % 7) as f64 / 10.0 }
}

pub(crate) fn fixed_completion(text: &str, max_tokens: usize) -> Completion {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let (tokens, finish) = match digits.parse() {
        Ok(own) if own < max_tokens => (own, FinishReason::Stop),
        _ => (max_tokens, FinishReason::Length),
    };
    Completion { text: format!("{text}: {}", number(text)), tokens, finish }
}

impl ScriptedLanguage {
    fn log(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    pub(crate) fn log_so_far(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }
}

impl VisionLanguageModel for ScriptedLanguage {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn score(&self, prompts: &[Prompt], _: &Call) -> Result<Vec<AnswerScore>> {
        let texts: Vec<String> = prompts.iter().map(|prompt| prompt.suffix.clone()).collect();
        self.log(Event::Score(texts.clone()));
        self.scores.pass();
        texts.iter().try_for_each(|text| act(text))?;
        let short = texts.iter().any(|text| text.starts_with("short"));
        Ok(texts.iter().skip(usize::from(short)).map(|text| fixed_score(text)).collect())
    }

    fn complete(&self, _: &[CompletionRequest], _: &Call) -> Result<Vec<Completion>> {
        panic!("the worker decodes token by token");
    }
}

impl LocalLanguageModel for ScriptedLanguage {
    fn decoding(&self) -> Box<dyn Decoding + '_> {
        Box::new(ScriptedDecoding { model: self, members: Vec::new(), next: 0 })
    }
}

struct ScriptedDecoding<'m> {
    model: &'m ScriptedLanguage,
    members: Vec<Member>,
    next: u64,
}

struct Member {
    id: AnswerId,
    text: String,
    max_tokens: usize,
    tokens: usize,
}

fn width(text: &str) -> usize {
    1 + usize::from(text.starts_with("wide"))
}

impl Decoding for ScriptedDecoding<'_> {
    fn join(&mut self, requests: &[&CompletionRequest], call: &Call) -> Vec<Result<Option<AnswerId>>> {
        let (mut joined, mut refused) = (Vec::new(), Vec::new());
        let mut short = false;
        let answers = requests.iter().map(|request| {
            let text = &request.prompt.suffix;
            act(text.strip_prefix("join ").unwrap_or_default())?;
            if text.starts_with("read on") {
                self.model.log(Event::Join(vec![text.clone()], Vec::new()));
                loop {
                    call.check()?;
                    std::thread::yield_now();
                }
            }
            short |= text.starts_with("short");
            let taken: usize = self.members.iter().map(|member| width(&member.text)).sum();
            let crowded = !self.members.is_empty() && taken + width(text) > self.model.room;
            if crowded || text.starts_with("refuse") {
                refused.push(text.clone());
                return Ok(None);
            }
            if text.starts_with("late error") {
                return Err(PerceptionError::new(PerceptionErrorKind::NotANumber, "scripted"));
            }
            if !text.starts_with("twin") || self.members.is_empty() {
                self.next += 1;
            }
            let id = AnswerId(self.next);
            let max_tokens = request.max_tokens;
            self.members.push(Member { id, text: text.clone(), max_tokens, tokens: 0 });
            joined.push(text.clone());
            Ok(Some(id))
        });
        let mut answers: Vec<Result<Option<AnswerId>>> = answers.collect();
        self.model.log(Event::Join(joined, refused));
        answers.truncate(if short { 0 } else { answers.len() });
        answers
    }

    fn leave(&mut self, answer: AnswerId) {
        if let Some(index) = self.members.iter().position(|member| member.id == answer) {
            self.model.log(Event::Leave(self.members.remove(index).text));
        }
    }

    fn step(&mut self) -> Result<Vec<(AnswerId, Result<Completion>)>> {
        self.model.log(Event::Step(self.members.iter().map(|member| member.text.clone()).collect()));
        self.model.steps.pass();
        let mut ended = Vec::new();
        for member in &mut self.members {
            member.tokens += 1;
            let completion = fixed_completion(&member.text, member.max_tokens);
            if member.tokens == 2 {
                act(member.text.strip_prefix("step ").unwrap_or_default())?;
                if member.text.starts_with("answer error") {
                    let error = PerceptionError::new(PerceptionErrorKind::NotANumber, "scripted");
                    ended.push((member.id, Err(error)));
                    continue;
                }
            }
            if member.tokens >= completion.tokens {
                ended.push((member.id, Ok(completion)));
            }
        }
        self.members.retain(|member| {
            let lost = member.text.starts_with("lose") && member.tokens == 2;
            !lost && ended.iter().all(|(id, _)| *id != member.id)
        });
        Ok(ended)
    }

    fn len(&self) -> usize {
        self.members.len()
    }
}

/// A request for an answer of at most `max_tokens`.
pub(crate) fn request(text: &str, max_tokens: usize) -> CompletionRequest {
    CompletionRequest { prompt: super::prompt(text), max_tokens }
}
