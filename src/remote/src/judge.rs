//! A judge on other machines.

use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, Fingerprint, PerceptionError, PerceptionErrorKind,
    Prompt, Result, VisionLanguageModel,
};
use serde_json::Value;

use crate::answers::Spellings;
use crate::body::Body;
use crate::chat::{self, Ask, Chat};
use crate::client::{Client, Request};
use crate::error::RemoteError;
use crate::handshake::{Need, handshake};
use crate::options::RemoteOptions;
use crate::picture::DataUrls;

/// A vision-language model behind one or several OpenAI-compatible endpoints.
///
/// All questions of a call go out at once, so that the engine batches them and computes what they share once; those about
/// one picture go to one endpoint as long as it is healthy.
#[derive(Debug)]
pub struct RemoteJudge {
    client: Client,
    chat: Chat,
    urls: DataUrls,
    fingerprint: Fingerprint,
}

impl RemoteJudge {
    /// Asks every endpoint whether it is what is needed. Those that are not are left out until they are; one that fails
    /// later is asked again before it gets another question.
    ///
    /// # Errors
    /// Options that cannot be used; endpoints with different weights; or no endpoint that is there, serves the model, gives
    /// log-probabilities for pictures, looks at them, and does not think before it answers: then what the first one lacks.
    pub fn open(options: &RemoteOptions) -> std::result::Result<Self, RemoteError> {
        Self::open_for(options, Need::Pictures)
    }

    pub(crate) fn open_for(options: &RemoteOptions, need: Need) -> std::result::Result<Self, RemoteError> {
        let (client, found) = handshake(options, need)?;
        tracing::info!(model = options.model, ask = ?found.chat.ask, endpoints = ?client.addresses(), "remote judge");
        Ok(Self { client, chat: found.chat, urls: DataUrls::new(), fingerprint: found.fingerprint })
    }

    /// Every token that spells Yes, and every one that spells No; nothing if the engine is asked by words.
    pub fn answers(&self) -> Option<(&[u32], &[u32])> {
        match &self.chat.ask {
            Ask::Ids(Spellings { yes, no }) => Some((yes, no)),
            Ask::Words { .. } | Ask::Never => None,
        }
    }

    fn request(
        &self,
        prompt: &Prompt,
        call: &Call,
        body: impl Fn(Option<&str>, &str) -> Value,
    ) -> Result<Request> {
        let picture = prompt.prefix.picture.as_ref();
        let url = picture.map(|picture| self.urls.of(picture)).transpose()?;
        let hash = picture.map(cluegate_perception::Picture::hash);
        // What is computed for one tenant is not read by another, and nothing computed of one picture is read for
        // another.
        let mut hasher = blake3::Hasher::new();
        hasher.update(hash.as_ref().map_or(&[], |hash| hash.as_bytes()));
        hasher.update(call.tenant().as_bytes());
        let salt = hasher.finalize().to_hex();
        let body = Body::new(url.as_ref(), |url| body(url, &salt))?;
        Ok(Request { path: chat::PATH, body: Some(body), picture: hash })
    }
}

impl VisionLanguageModel for RemoteJudge {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn score(&self, prompts: &[Prompt], call: &Call) -> Result<Vec<AnswerScore>> {
        if self.chat.ask == Ask::Never {
            return Err(PerceptionError::new(PerceptionErrorKind::MissingAnswer, chat::NO_SCORES));
        }
        let requests = prompts.iter().map(|prompt| {
            self.request(prompt, call, |url, salt| self.chat.score_request(prompt, url, Some(salt)))
        });
        let chat = self.chat.clone();
        self.client.all(requests.collect::<Result<_>>()?, call, move |_, answer| chat.read_score(answer))
    }

    fn complete(&self, requests: &[CompletionRequest], call: &Call) -> Result<Vec<Completion>> {
        let asked = requests.iter().map(|CompletionRequest { prompt, max_tokens }| {
            self.request(prompt, call, |url, salt| {
                self.chat.answer_request(prompt, url, Some(salt), *max_tokens)
            })
        });
        let chat = self.chat.clone();
        self.client.all(asked.collect::<Result<_>>()?, call, move |_, answer| chat.read_answer(answer))
    }
}
