//! The thread of a relevance encoder.

use std::sync::Arc;

use cluegate_perception::{Call, Embedding, Fingerprint, Picture, RelevanceEncoder, Result, TextLength};

use crate::batch::{Batches, Engine};
use crate::distinct::Distinct;
use crate::queue::{Entrance, queue};
use crate::thread::{Thread, check_count};
use crate::{Statistics, WorkerOptions};

const NAME: &str = "relevance encoder";

/// A [`RelevanceEncoder`] with a thread of its own. The pictures of all waiting requests go in one call, each different
/// picture once; so do their texts.
///
/// To drop it ends the thread, and waits for the call in which the model may still be.
pub struct RelevanceWorker {
    model: Arc<dyn RelevanceEncoder>,
    queue: Entrance<Ask, Vec<Embedding>>,
    /// The last field: it ends because the queue is gone.
    _thread: Thread,
}

impl RelevanceWorker {
    /// Starts the thread of `model`.
    ///
    /// # Errors
    /// `Backend` if the system gives no thread.
    pub fn start(model: Arc<dyn RelevanceEncoder>, options: WorkerOptions) -> Result<Self> {
        let (queue, exit) = queue(NAME, options);
        let batches = Batches::new(Encoding(Arc::clone(&model)), exit);
        Ok(Self { model, queue, _thread: Thread::start("relevance", || batches.run())? })
    }

    /// What has become of the requests so far.
    pub fn statistics(&self) -> Statistics {
        self.queue.statistics()
    }
}

impl RelevanceEncoder for RelevanceWorker {
    fn fingerprint(&self) -> &Fingerprint {
        self.model.fingerprint()
    }

    fn default_threshold(&self) -> f32 {
        self.model.default_threshold()
    }

    fn embed_pictures(&self, pictures: &[Picture], call: &Call) -> Result<Vec<Embedding>> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        self.queue.ask(call, || Ask::Pictures(pictures.to_vec()))
    }

    fn embed_texts(&self, texts: &[&str], call: &Call) -> Result<Vec<Embedding>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        self.queue.ask(call, || Ask::Texts(texts.iter().map(|text| (*text).to_owned()).collect()))
    }

    /// Asks the tokenizer at once: it needs no turn in the queue.
    fn text_lengths(&self, texts: &[&str]) -> Result<Option<Vec<TextLength>>> {
        self.model.text_lengths(texts)
    }
}

enum Ask {
    Pictures(Vec<Picture>),
    Texts(Vec<String>),
}

struct Encoding(Arc<dyn RelevanceEncoder>);

impl Engine for Encoding {
    type Ask = Ask;
    type Answer = Vec<Embedding>;

    fn items(ask: &Ask) -> usize {
        match ask {
            Ask::Pictures(own) => own.len(),
            Ask::Texts(own) => own.len(),
        }
    }

    fn merge(one: &Ask, other: &Ask) -> bool {
        matches!((one, other), (Ask::Pictures(_), Ask::Pictures(_)) | (Ask::Texts(_), Ask::Texts(_)))
    }

    fn answer(&self, asks: &[&Ask], call: &Call) -> Result<Vec<Vec<Embedding>>> {
        // Only one of the two is filled, since all of `asks` are of one kind.
        let (mut pictures, mut texts) = (Distinct::new(), Distinct::new());
        let places: Vec<Vec<usize>> = asks
            .iter()
            .map(|ask| match ask {
                Ask::Pictures(own) => {
                    own.iter().map(|own| pictures.place(own.hash(), || own.clone()).0).collect()
                }
                Ask::Texts(own) => own.iter().map(|own| texts.place(&**own, || &**own).0).collect(),
            })
            .collect();
        let (expected, embeddings) = if texts.items().is_empty() {
            (pictures.items().len(), self.0.embed_pictures(pictures.items(), call)?)
        } else {
            (texts.items().len(), self.0.embed_texts(texts.items(), call)?)
        };
        check_count(NAME, "embeddings", expected, embeddings.len())?;
        Ok(places.iter().map(|own| own.iter().map(|place| embeddings[*place].clone()).collect()).collect())
    }
}
