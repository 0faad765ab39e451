//! A text model that was recorded: it answers what it holds and notes what it lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, Fingerprint, FinishReason, PerceptionError,
    PerceptionErrorKind, Prompt, Result, VisionLanguageModel,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::templates::prompt_text;

/// Largest recording that is read, in bytes.
pub const MAX_RECORDING_BYTES: usize = 64 << 20;

/// A prompt and what was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// The whole prompt.
    pub prompt: String,
    /// The whole answer; blank while it is to be given.
    #[serde(default)]
    pub answer: String,
}

/// The file of a recording.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordingFile {
    /// Which model, or who, gave the answers.
    pub model: String,
    /// What was asked and answered.
    pub exchanges: Vec<Exchange>,
}

/// A recording that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// The file is over [`MAX_RECORDING_BYTES`].
    #[error("{path}: expected a recording of at most {MAX_RECORDING_BYTES} bytes, got {bytes}; split it")]
    TooLarge {
        /// Which file.
        path: String,
        /// Its length.
        bytes: usize,
    },
    /// The file is no recording.
    #[error(
        "{path}: expected a recording, {{\"model\": \"...\", \"exchanges\": [{{\"prompt\": \"...\", \"answer\": \"...\"}}]}}: {problem}"
    )]
    Malformed {
        /// Which file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// Two recordings of different models.
    #[error("{path}: expected a recording of the model {expected:?}, as in the others, got one of {came:?}")]
    Models {
        /// Which file.
        path: String,
        /// Model of the first recording.
        expected: String,
        /// Model of this one.
        came: String,
    },
    /// Two answers to one prompt.
    #[error("{path}: there are two answers to the prompt that ends with {prompt:?}; leave one of them out")]
    TwoAnswers {
        /// Which file.
        path: String,
        /// End of the prompt.
        prompt: String,
    },
}

/// A text model that gives recorded answers. A prompt that it does not hold is an error of kind `MissingAnswer` and is
/// noted, see [`Recording::missing`].
#[derive(Debug)]
pub struct Recording {
    model: String,
    answers: BTreeMap<String, String>,
    fingerprint: Fingerprint,
    missing: Mutex<BTreeSet<String>>,
}

impl Recording {
    /// Reads the recordings of one model from their texts, each with the name of its file for messages.
    ///
    /// # Errors
    /// [`RecordingError`]; without any text it is a recording without answers of a model without a name.
    pub fn parse<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> std::result::Result<Self, RecordingError> {
        let mut model: Option<String> = None;
        let mut answers = BTreeMap::new();
        for (path, text) in files {
            let file = read(path, text)?;
            let path = path.to_owned();
            match &model {
                Some(expected) if *expected != file.model => {
                    return Err(RecordingError::Models {
                        path,
                        expected: expected.clone(),
                        came: file.model,
                    });
                }
                _ => model = Some(file.model),
            }
            for Exchange { prompt, answer } in file.exchanges {
                if answer.trim().is_empty() {
                    continue;
                }
                if answers.insert(prompt.clone(), answer.clone()).is_some_and(|earlier| earlier != answer) {
                    let skip = prompt.chars().count().saturating_sub(80);
                    let prompt = prompt.chars().skip(skip).collect();
                    return Err(RecordingError::TwoAnswers { path, prompt });
                }
            }
        }
        Ok(Self::new(model.unwrap_or_default(), answers))
    }

    /// A recording of these answers by their prompts.
    pub fn new(model: impl Into<String>, answers: BTreeMap<String, String>) -> Self {
        let model = model.into();
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"cluegate recording");
        let pairs = answers.iter().flat_map(|(prompt, answer)| [prompt, answer]);
        for text in std::iter::once(&model).chain(pairs) {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        let fingerprint = hasher.finalize().to_hex().to_string();
        Self { model, answers, fingerprint, missing: Mutex::default() }
    }

    /// Which model gave the answers.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The prompts that were asked and are not in the recording, as a recording whose answers are to be filled in.
    pub fn missing(&self) -> RecordingFile {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |prompt: &String| Exchange { prompt: prompt.clone(), answer: String::new() };
        RecordingFile { model: self.model.clone(), exchanges: missing.iter().map(open).collect() }
    }

    fn answer(&self, prompt: &Prompt) -> Result<Completion> {
        let request = |message| PerceptionError::new(PerceptionErrorKind::Request, message);
        if prompt.prefix.picture.is_some() {
            return Err(request("expected a question without a picture: this is a recording of texts"));
        }
        if !prompt.turns.is_empty() || !prompt.answer_start.is_empty() {
            return Err(request("expected a question of one turn: a recording holds no others"));
        }
        let text = prompt_text(prompt);
        if let Some(answer) = self.answers.get(&text) {
            let tokens = answer.split_whitespace().count();
            return Ok(Completion { text: answer.clone(), tokens, finish: FinishReason::Stop });
        }
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).insert(text);
        Err(PerceptionError::new(
            PerceptionErrorKind::MissingAnswer,
            "the recording has no answer to this prompt; write the open prompts with --missing, have them answered, and \
             replay that file too",
        ))
    }
}

fn read(path: &str, text: &str) -> std::result::Result<RecordingFile, RecordingError> {
    if text.len() > MAX_RECORDING_BYTES {
        return Err(RecordingError::TooLarge { path: path.to_owned(), bytes: text.len() });
    }
    serde_json::from_str(text)
        .map_err(|error| RecordingError::Malformed { path: path.to_owned(), problem: error.to_string() })
}

impl VisionLanguageModel for Recording {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn score(&self, _: &[Prompt], _: &Call) -> Result<Vec<AnswerScore>> {
        let message = "a recording holds answers and no scores; name a model";
        Err(PerceptionError::new(PerceptionErrorKind::Request, message))
    }

    fn complete(&self, requests: &[CompletionRequest], call: &Call) -> Result<Vec<Completion>> {
        call.check()?;
        let answers: Vec<Result<Completion>> =
            requests.iter().map(|request| self.answer(&request.prompt)).collect();
        // All were asked first, so that every open prompt is noted.
        answers.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use cluegate_perception::Prefix;

    use super::*;

    const FILE: &str =
        r#"{"model": "m", "exchanges": [{"prompt": "one two", "answer": "2"}, {"prompt": "open"}]}"#;

    fn request(before: &str, after: &str) -> CompletionRequest {
        let prompt = Prompt::new(Prefix { picture: None, text: before.into() }, after);
        CompletionRequest { prompt, max_tokens: 8 }
    }

    #[test]
    fn it_answers_what_it_holds_and_notes_the_rest() {
        let recording = Recording::parse([("r.json", FILE)]).unwrap();
        let call = Call::default();
        let answer = recording.complete(&[request("one", " two")], &call).unwrap();
        assert_eq!((answer[0].text.as_str(), answer[0].finish), ("2", FinishReason::Stop));
        assert!(recording.missing().exchanges.is_empty());
        let error = recording.complete(&[request("open", ""), request("other", "")], &call).unwrap_err();
        assert_eq!(error.kind(), PerceptionErrorKind::MissingAnswer);
        let open = recording.missing();
        let prompts: Vec<&str> = open.exchanges.iter().map(|exchange| exchange.prompt.as_str()).collect();
        assert_eq!((open.model.as_str(), prompts), ("m", vec!["open", "other"]));
        // What is missing can be filled in and added as it is.
        let filled = serde_json::to_string(&open).unwrap().replacen("\"answer\":\"\"", "\"answer\":\"3\"", 1);
        let both = Recording::parse([("r.json", FILE), ("s.json", &filled)]).unwrap();
        assert_eq!(both.complete(&[request("open", "")], &call).unwrap()[0].text, "3");
        assert_ne!(both.fingerprint(), recording.fingerprint());
    }

    #[test]
    fn files_that_are_no_recordings_are_refused() {
        for (text, part) in [
            ("", "expected a recording"),
            (r#"{"model": "m", "exchange": []}"#, "exchange"),
            (r#"{"exchanges": []}"#, "model"),
            (r#"{"model": "n", "exchanges": []}"#, "the model \"m\""),
            (
                r#"{"model": "m", "exchanges": [{"prompt": "one two", "answer": "3"}]}"#,
                "two answers to the prompt that ends with \"one two\"",
            ),
        ] {
            let error = Recording::parse([("r.json", FILE), ("bad.json", text)]).unwrap_err().to_string();
            assert!(error.starts_with("bad.json: ") && error.contains(part), "{error}");
        }
        let call = Call::default();
        let score = Recording::new("m", BTreeMap::new()).score(&[], &call).unwrap_err();
        assert_eq!(score.kind(), PerceptionErrorKind::Request);
    }
}
