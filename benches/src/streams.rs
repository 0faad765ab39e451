//! Many callers at once: threads that take requests from one list.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use cluegate::gate::InspectionError;
use cluegate::judge::Report;
use cluegate::perception::{Call, Picture};

use crate::machine::processor_ms;
use crate::ours::Prepared;
use crate::stats::Times;

/// One picture to be judged.
#[derive(Clone)]
pub(crate) struct Request {
    /// The picture, decoded.
    pub(crate) picture: Picture,
    /// What it is judged under.
    pub(crate) prepared: Prepared,
    /// For whom.
    pub(crate) tenant: Arc<str>,
    /// When it arrives, after the first one may.
    pub(crate) arrival: Duration,
    /// How long the caller waits.
    pub(crate) patience: Option<Duration>,
}

/// What became of a request.
pub(crate) struct Served {
    /// Its place in the list.
    pub(crate) index: usize,
    /// From the picture to the answer, in milliseconds.
    pub(crate) ms: f64,
    /// The verdict, or why there is none.
    pub(crate) outcome: Result<Report, InspectionError>,
}

/// What became of all of them.
pub(crate) struct Run {
    /// From the first request to the last answer, in milliseconds.
    pub(crate) wall_ms: f64,
    /// Time of the processor meanwhile, over all cores, in milliseconds.
    pub(crate) processor_ms: f64,
    /// One for each answer, in the order of the requests.
    pub(crate) served: Vec<Served>,
}

impl Run {
    /// Times of the answers, whatever they say.
    pub(crate) fn times(&self) -> Times {
        self.served.iter().map(|served| served.ms).collect()
    }

    /// Milliseconds of the machine for each request.
    pub(crate) fn ms_per_picture(&self) -> f64 {
        self.wall_ms / self.served.len() as f64
    }

    /// Cores that were busy on average.
    pub(crate) fn cores_busy(&self) -> f64 {
        self.processor_ms / self.wall_ms
    }

    /// The reports, in order.
    ///
    /// # Errors
    /// The first request without a verdict.
    pub(crate) fn reports(&self) -> anyhow::Result<Vec<&Report>> {
        let report = |served: &'_ Served| match &served.outcome {
            Ok(_) => Ok(()),
            Err(error) => Err(anyhow!("picture {} has no verdict: {error}", served.index)),
        };
        self.served.iter().try_for_each(report)?;
        Ok(self.served.iter().filter_map(|served| served.outcome.as_ref().ok()).collect())
    }
}

impl Request {
    /// A request that may be made at once and waits for ever.
    pub(crate) fn new(picture: Picture, prepared: &Prepared, tenant: usize) -> Self {
        let tenant = format!("tenant-{tenant}").into();
        Self { picture, prepared: prepared.clone(), tenant, arrival: Duration::ZERO, patience: None }
    }
}

/// Serves all requests from `streams` threads, each of which takes the next as soon as it has an answer and the request
/// has arrived.
///
/// # Errors
/// A panic in the engine. A request without a verdict is no error here.
pub(crate) fn serve(requests: &[Request], streams: usize) -> anyhow::Result<Run> {
    let next = AtomicUsize::new(0);
    let before = processor_ms();
    let begin = Instant::now();
    let worker = || {
        let mut served = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(request) = requests.get(index) else { return served };
            // No request is early; one that finds every thread taken is late, and is made then.
            std::thread::sleep(request.arrival.saturating_sub(begin.elapsed()));
            let begin = Instant::now();
            let mut call = Call::new(Arc::clone(&request.tenant));
            if let Some(patience) = request.patience {
                call = call.until(begin + patience);
            }
            let outcome = request.prepared.inspect(&request.picture, &call);
            served.push(Served { index, ms: millis(begin.elapsed()), outcome });
        }
    };
    let mut served = std::thread::scope(|scope| -> anyhow::Result<Vec<Served>> {
        let threads: Vec<_> = (0..streams).map(|_| scope.spawn(worker)).collect();
        let mut all = Vec::with_capacity(requests.len());
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow!("a thread of callers panicked"))?);
        }
        Ok(all)
    })?;
    let wall_ms = millis(begin.elapsed());
    let processor_ms = processor_ms() - before;
    served.sort_by_key(|served| served.index);
    Ok(Run { wall_ms, processor_ms, served })
}

/// A duration in milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
