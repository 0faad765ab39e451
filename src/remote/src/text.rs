//! A text model on other machines.

use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, Fingerprint, PerceptionError, PerceptionErrorKind,
    Prompt, Result, VisionLanguageModel,
};

use crate::error::RemoteError;
use crate::handshake::Need;
use crate::judge::RemoteJudge;
use crate::options::RemoteOptions;

/// A text model behind one or several OpenAI-compatible endpoints: what a [`RemoteJudge`] is, but asked without pictures.
/// Log-probabilities are not needed for free answers; where an engine has none, only scores are refused.
#[derive(Debug)]
pub struct RemoteText(RemoteJudge);

impl RemoteText {
    /// Asks every endpoint whether it is what is needed, as [`RemoteJudge::open`] does, but for pictures.
    ///
    /// # Errors
    /// Options that cannot be used; endpoints with different weights; or no endpoint that is there, serves the model, and
    /// does not think before it answers: then what the first one lacks.
    pub fn open(options: &RemoteOptions) -> std::result::Result<Self, RemoteError> {
        Ok(Self(RemoteJudge::open_for(options, Need::Texts)?))
    }
}

fn refuse_pictures<'a>(mut prompts: impl Iterator<Item = &'a Prompt>) -> Result<()> {
    if prompts.all(|prompt| prompt.prefix.picture.is_none()) {
        return Ok(());
    }
    let message = "expected a question without a picture: this is a text model";
    Err(PerceptionError::new(PerceptionErrorKind::Request, message))
}

impl VisionLanguageModel for RemoteText {
    fn fingerprint(&self) -> &Fingerprint {
        self.0.fingerprint()
    }

    fn score(&self, prompts: &[Prompt], call: &Call) -> Result<Vec<AnswerScore>> {
        refuse_pictures(prompts.iter())?;
        self.0.score(prompts, call)
    }

    fn complete(&self, requests: &[CompletionRequest], call: &Call) -> Result<Vec<Completion>> {
        refuse_pictures(requests.iter().map(|request| &request.prompt))?;
        self.0.complete(requests, call)
    }
}
