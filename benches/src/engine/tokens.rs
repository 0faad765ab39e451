//! How many tokens each stage of the method is about: as one question at a time would read them, and as an engine reads
//! them that keeps what questions have in common.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use cluegate::perception::{
    AnswerScore, Call, Completion, CompletionRequest, ContentHash, Fingerprint, Prompt, Result,
    VisionLanguageModel,
};
use tokenizers::Tokenizer;

/// Tokens of texts and pictures for a judging model. The few tokens of the chat's frame are left out.
pub(super) struct Counter {
    tokenizer: Tokenizer,
    picture: usize,
}

impl Counter {
    /// Reads tokenizer and picture size of the judge in `folder`.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json"))
            .map_err(|error| anyhow::anyhow!("the judge's tokenizer: {error}"))?;
        let text = std::fs::read_to_string(folder.join("preprocessor_config.json"))?;
        let config: serde_json::Value = serde_json::from_str(&text)?;
        let number = |key: &str| config[key].as_u64().with_context(|| format!("the judge's {key}"));
        // What the processor makes of a picture that is at least as large: about this many pixels.
        let edge = number("patch_size")? * number("merge_size")?;
        let picture = usize::try_from(number("max_pixels")? / (edge * edge))?;
        Ok(Self { tokenizer, picture })
    }

    /// Tokens of a text; a text that has none, because it cannot be read, counts as nothing.
    pub(super) fn text(&self, text: &str) -> usize {
        self.tokenizer.encode_fast(text, false).map_or(0, |encoding| encoding.len())
    }

    /// Tokens of a picture.
    pub(super) fn picture(&self) -> usize {
        self.picture
    }
}

/// What a stage asked of the judging model.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Asked {
    /// Calls of the model, each with all questions that were known then.
    pub(super) calls: usize,
    /// Questions, or answers begun.
    pub(super) questions: usize,
    /// Tokens read if each question is asked alone.
    pub(super) alone: usize,
    /// Tokens read if what questions of a picture have in common is read once.
    pub(super) shared: usize,
    /// Tokens decoded.
    pub(super) decoded: usize,
}

/// The stages that ask the judging model about a picture, in order.
pub(super) const STAGES: [&str; 4] = ["statements", "regions", "reasoning", "rating"];

/// A judging model that counts what it is asked. For one inspection at a time.
pub(super) struct Counting {
    model: Arc<dyn VisionLanguageModel>,
    counter: Counter,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stages: [Asked; STAGES.len()],
    /// Beginnings that this inspection has read.
    read: HashSet<(ContentHash, String)>,
    /// Whether this inspection has asked its first questions.
    asked: bool,
}

impl Counting {
    /// Counts for `model`.
    pub(super) fn new(model: Arc<dyn VisionLanguageModel>, counter: Counter) -> Self {
        Self { model, counter, state: Mutex::default() }
    }

    /// The next inspection begins.
    pub(super) fn next(&self) {
        let mut state = self.state();
        state.read.clear();
        state.asked = false;
    }

    /// What was asked so far, by stage.
    pub(super) fn stages(&self) -> [Asked; STAGES.len()] {
        self.state().stages
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Numbers only: right even if another thread died while it held them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, stage: usize, prompts: &[&Prompt]) {
        let mut state = self.state();
        state.asked = true;
        state.stages[stage].calls += 1;
        for prompt in prompts {
            // Without a picture a score is a prior, which is asked once for a constitution.
            let Some(picture) = &prompt.prefix.picture else { continue };
            let beginning = self.counter.picture() + self.counter.text(&prompt.prefix.text);
            let first = self.counter.text(&prompt.suffix);
            let last = prompt.turns.iter().map(|turn| self.counter.text(&turn.user)).sum::<usize>()
                + self.counter.text(&prompt.answer_start);
            let thought = prompt.turns.iter().map(|turn| self.counter.text(&turn.assistant)).sum::<usize>();
            let new = state.read.insert((picture.hash(), prompt.prefix.text.to_string()));
            let asked = &mut state.stages[stage];
            asked.questions += 1;
            asked.alone += beginning + first + thought + last;
            // A later turn goes on from where the thought ended.
            let own = if prompt.turns.is_empty() { first } else { last };
            asked.shared += own + if new { beginning } else { 0 };
        }
    }
}

impl VisionLanguageModel for Counting {
    fn fingerprint(&self) -> &Fingerprint {
        self.model.fingerprint()
    }

    fn score(&self, prompts: &[Prompt], call: &Call) -> Result<Vec<AnswerScore>> {
        let all: Vec<&Prompt> = prompts.iter().collect();
        if prompts.iter().any(|prompt| prompt.prefix.picture.is_some()) {
            let later = prompts.iter().any(|prompt| !prompt.turns.is_empty());
            let stage = if later { 3 } else { usize::from(self.state().asked) };
            self.count(stage, &all);
        }
        self.model.score(prompts, call)
    }

    fn complete(&self, requests: &[CompletionRequest], call: &Call) -> Result<Vec<Completion>> {
        let prompts: Vec<&Prompt> = requests.iter().map(|request| &request.prompt).collect();
        self.count(2, &prompts);
        let answers = self.model.complete(requests, call)?;
        self.state().stages[2].decoded += answers.iter().map(|answer| answer.tokens).sum::<usize>();
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use cluegate::perception::{FinishReason, Picture, Prefix, Reply};
    use image::RgbImage;

    use super::*;

    /// Answers everything with Yes.
    struct Yes(Fingerprint);

    impl VisionLanguageModel for Yes {
        fn fingerprint(&self) -> &Fingerprint {
            &self.0
        }

        fn score(&self, prompts: &[Prompt], _: &Call) -> Result<Vec<AnswerScore>> {
            Ok(vec![AnswerScore { yes: 1.0, no: 0.0 }; prompts.len()])
        }

        fn complete(&self, requests: &[CompletionRequest], _: &Call) -> Result<Vec<Completion>> {
            let answer = Completion { text: "yes".to_owned(), tokens: 3, finish: FinishReason::Stop };
            Ok(vec![answer; requests.len()])
        }
    }

    #[test]
    fn a_beginning_is_read_once_and_every_question_counted() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/mini/suite/judge");
        let counting = Counting::new(Arc::new(Yes("x".to_owned())), Counter::open(&folder).unwrap());
        let counter = Counter::open(&folder).unwrap();
        assert_eq!(counter.picture(), 64);
        let (text, ending) = ("Is this true of the image? Statement:", " a dog is visible.");
        let (beginning, own) = (64 + counter.text(text), counter.text(ending));
        assert!(own > 2 && beginning > 70);
        let prefix = |picture: Option<Picture>| Prefix { picture, text: text.into() };
        let about = Picture::new(RgbImage::new(3, 3));
        let question = Prompt::new(prefix(Some(about.clone())), ending);
        counting.score(&[Prompt::new(prefix(None), ending)], &Call::default()).unwrap();
        counting.score(&[question.clone(), question.clone()], &Call::default()).unwrap();
        let other = Prompt::new(prefix(Some(Picture::new(RgbImage::new(4, 4)))), ending);
        counting.score(&[question.clone(), other], &Call::default()).unwrap();
        let request = CompletionRequest { prompt: question.clone(), max_tokens: 9 };
        counting.complete(&[request], &Call::default()).unwrap();
        let turn = Reply { assistant: "a dog".to_owned(), user: ending.to_owned() };
        let second = Prompt { turns: vec![turn], ..question };
        counting.score(&[second], &Call::default()).unwrap();
        let [statements, regions, reasoning, rating] = counting.stages();
        let expected = Asked {
            calls: 1,
            questions: 2,
            alone: 2 * (beginning + own),
            shared: beginning + 2 * own,
            decoded: 0,
        };
        assert_eq!(statements, expected);
        assert_eq!((regions.questions, regions.shared), (2, beginning + 2 * own));
        assert_eq!((reasoning.decoded, reasoning.shared), (3, own));
        assert_eq!(rating.shared, own);
        assert_eq!(rating.alone, beginning + own + counter.text("a dog") + own);
        counting.next();
        counting.score(&[Prompt::new(prefix(Some(about)), ending)], &Call::default()).unwrap();
        assert_eq!(counting.stages()[0].shared, 2 * beginning + 3 * own);
    }
}
