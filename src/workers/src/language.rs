//! The thread of a language model.

use std::sync::Arc;

use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, Fingerprint, LocalLanguageModel, Prompt, Result,
    VisionLanguageModel,
};
use crossbeam_channel::select;

use crate::batch::{Batches, Engine};
use crate::decode::Decoder;
use crate::queue::{Entrance, Exit, queue};
use crate::thread::{Thread, check_count};
use crate::{LanguageOptions, LanguageStatistics};

const SCORES: &str = "scoring language model";
const ANSWERS: &str = "decoding language model";

/// A [`VisionLanguageModel`] with a thread of its own, on which scores and free answers take turns:
///
/// ```text
///   ┌─▶ take in what has come ──▶ one batch of scores ──▶ leave and join ──▶ one token for every answer ─┐
///   └──────────────────────────────────────────────────────────────────────────────────────────────────┘
/// ```
///
/// So a score waits for one token at most, and a token for one batch of scores. Answers of all requests are decoded in
/// one batch that they join when they come and leave when they end, or when their caller is gone. If the batch fails,
/// each of its answers is decoded once more, by itself.
///
/// To drop it ends the thread, and waits for the call in which the model may still be.
pub struct LanguageWorker {
    model: Arc<dyn LocalLanguageModel>,
    scores: Entrance<Vec<Prompt>, Vec<AnswerScore>>,
    answers: Entrance<Vec<CompletionRequest>, Vec<Completion>>,
    /// The last field: it ends because the queues are gone.
    _thread: Thread,
}

impl LanguageWorker {
    /// Starts the thread of `model`.
    ///
    /// # Errors
    /// `Backend` if the system gives no thread.
    pub fn start(model: Arc<dyn LocalLanguageModel>, options: LanguageOptions) -> Result<Self> {
        let (scores, scores_exit) = queue(SCORES, options.scores);
        let (answers, answers_exit) = queue(ANSWERS, options.answers);
        let own = Arc::clone(&model);
        let thread = Thread::start("language", move || run(&*own, scores_exit, answers_exit))?;
        Ok(Self { model, scores, answers, _thread: thread })
    }

    /// What has become of the requests so far.
    pub fn statistics(&self) -> LanguageStatistics {
        LanguageStatistics { scores: self.scores.statistics(), answers: self.answers.statistics() }
    }
}

impl VisionLanguageModel for LanguageWorker {
    fn fingerprint(&self) -> &Fingerprint {
        self.model.fingerprint()
    }

    fn score(&self, prompts: &[Prompt], call: &Call) -> Result<Vec<AnswerScore>> {
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        self.scores.ask(call, || prompts.to_vec())
    }

    fn complete(&self, requests: &[CompletionRequest], call: &Call) -> Result<Vec<Completion>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.answers.ask(call, || requests.to_vec())
    }
}

fn run(
    model: &dyn LocalLanguageModel,
    scores: Exit<Vec<Prompt>, Vec<AnswerScore>>,
    answers: Exit<Vec<CompletionRequest>, Vec<Completion>>,
) {
    let mut scores = Batches::new(Scoring(model), scores);
    let mut answers = Decoder::new(model, answers);
    loop {
        if scores.is_idle() && answers.is_idle() {
            select! {
                recv(scores.exit().receiver) -> job => match job {
                    Ok(job) => scores.push(job),
                    Err(_) => return,
                },
                recv(answers.exit().receiver) -> job => match job {
                    Ok(job) => answers.push(job),
                    Err(_) => return,
                },
            }
        }
        if !scores.receive() || !answers.receive() {
            return;
        }
        scores.serve_next();
        answers.advance();
    }
}

struct Scoring<'m>(&'m dyn LocalLanguageModel);

impl Engine for Scoring<'_> {
    type Ask = Vec<Prompt>;
    type Answer = Vec<AnswerScore>;

    fn items(ask: &Vec<Prompt>) -> usize {
        ask.len()
    }

    fn merge(_: &Vec<Prompt>, _: &Vec<Prompt>) -> bool {
        true
    }

    fn answer(&self, asks: &[&Vec<Prompt>], call: &Call) -> Result<Vec<Vec<AnswerScore>>> {
        let scores = if let [only] = asks {
            self.0.score(only, call)?
        } else {
            let all: Vec<Prompt> = asks.iter().flat_map(|ask| ask.iter().cloned()).collect();
            self.0.score(&all, call)?
        };
        check_count(SCORES, "scores", asks.iter().map(|ask| ask.len()).sum(), scores.len())?;
        let mut rest = scores.into_iter();
        Ok(asks.iter().map(|ask| rest.by_ref().take(ask.len()).collect()).collect())
    }
}
