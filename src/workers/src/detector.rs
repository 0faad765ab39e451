//! The thread of a region detector.

use std::sync::Arc;

use cluegate_perception::{
    Call, ContentHash, Detection, DetectionRequest, Fingerprint, Picture, RegionDetector, Result,
};

use crate::batch::{Batches, Engine};
use crate::distinct::Distinct;
use crate::queue::{Entrance, queue};
use crate::thread::{Thread, check_count, wrong};
use crate::{Statistics, WorkerOptions};

const NAME: &str = "detector";

/// A [`RegionDetector`] with a thread of its own. Waiting requests of the same least confidence go in one call, and
/// those about the same picture become one request for the words of all: one pass a picture, whoever asks.
///
/// To drop it ends the thread, and waits for the call in which the model may still be.
pub struct DetectorWorker {
    model: Arc<dyn RegionDetector>,
    queue: Entrance<Ask, Vec<Vec<Detection>>>,
    /// The last field: it ends because the queue is gone.
    _thread: Thread,
}

impl DetectorWorker {
    /// Starts the thread of `model`, which must answer for each word independently of the others asked with it.
    ///
    /// # Errors
    /// `Backend` if the system gives no thread.
    pub fn start(model: Arc<dyn RegionDetector>, options: WorkerOptions) -> Result<Self> {
        let (queue, exit) = queue(NAME, options);
        let batches = Batches::new(Looking(Arc::clone(&model)), exit);
        Ok(Self { model, queue, _thread: Thread::start(NAME, || batches.run())? })
    }

    /// What has become of the requests so far.
    pub fn statistics(&self) -> Statistics {
        self.queue.statistics()
    }
}

impl RegionDetector for DetectorWorker {
    fn fingerprint(&self) -> &Fingerprint {
        self.model.fingerprint()
    }

    fn detect(
        &self,
        requests: &[DetectionRequest<'_>],
        min_confidence: f32,
        call: &Call,
    ) -> Result<Vec<Vec<Detection>>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.queue.ask(call, || {
            let own = |request: &DetectionRequest<'_>| Look {
                picture: request.picture.clone(),
                words: request.queries.iter().map(|query| (*query).to_owned()).collect(),
            };
            Ask { looks: requests.iter().map(own).collect(), min_confidence }
        })
    }
}

struct Ask {
    looks: Vec<Look>,
    min_confidence: f32,
}

struct Look {
    picture: Picture,
    words: Vec<String>,
}

struct Looking(Arc<dyn RegionDetector>);

impl Engine for Looking {
    type Ask = Ask;
    type Answer = Vec<Vec<Detection>>;

    fn items(ask: &Ask) -> usize {
        ask.looks.len()
    }

    fn merge(one: &Ask, other: &Ask) -> bool {
        one.min_confidence.to_bits() == other.min_confidence.to_bits()
    }

    fn answer(&self, asks: &[&Ask], call: &Call) -> Result<Vec<Self::Answer>> {
        let Some(first) = asks.first() else { return Ok(Vec::new()) };
        let mut merged = Distinct::new();
        let shares: Vec<Vec<Share>> = asks
            .iter()
            .map(|ask| ask.looks.iter().map(|look| Share::new(look, &mut merged)).collect())
            .collect();
        let requests: Vec<DetectionRequest<'_>> = merged
            .items()
            .iter()
            .map(|(picture, words)| DetectionRequest { picture, queries: words.items() })
            .collect();
        let found = self.0.detect(&requests, first.min_confidence, call)?;
        check_count(NAME, "lists of detections", requests.len(), found.len())?;
        for (request, detections) in requests.iter().zip(&found) {
            let asked = request.queries.len();
            if let Some(stray) = detections.iter().find(|detection| detection.query >= asked) {
                let what = format_args!("asked for {asked} words, got a detection of word {}", stray.query);
                return Err(wrong(NAME, what));
            }
        }
        Ok(shares.iter().map(|own| own.iter().map(|share| share.of(&found)).collect()).collect())
    }
}

type Words<'a> = Distinct<&'a str, &'a str>;

/// What one request has in the merged ones.
struct Share {
    /// The merged request about its picture.
    request: usize,
    /// For each of its words the index in the merged request.
    words: Vec<usize>,
}

impl Share {
    fn new<'a>(look: &'a Look, merged: &mut Distinct<ContentHash, (&'a Picture, Words<'a>)>) -> Self {
        let (request, (_, words)) = merged.place(look.picture.hash(), || (&look.picture, Words::new()));
        Self { request, words: look.words.iter().map(|word| words.place(word, || word).0).collect() }
    }

    /// Its own detections under its own indices, the most confident first and equals in the order of the words.
    fn of(&self, found: &[Vec<Detection>]) -> Vec<Detection> {
        let mut own: Vec<Detection> = Vec::new();
        for detection in &found[self.request] {
            for (query, word) in self.words.iter().enumerate() {
                if *word == detection.query {
                    own.push(Detection { query, ..detection.clone() });
                }
            }
        }
        own.sort_by(|a, b| b.confidence.total_cmp(&a.confidence).then(a.query.cmp(&b.query)));
        own
    }
}
