//! The way of a request from its caller to the worker and back.

use std::sync::Arc;
use std::time::Duration;

use cluegate_perception::{Call, PerceptionError, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use tracing::Span;

use crate::admission::{Admission, Permit};
use crate::statistics::{Counters, Queued, Statistics};
use crate::thread::backend;
use crate::{AdmissionOptions, WorkerOptions};

/// How often a waiting caller looks whether it was called off. Answers and deadlines wake it by themselves.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Most places of a queue; the channel sets them aside.
const MOST_PLACES: usize = 65_536;

/// A request on its way: the work, on whose behalf, and where the answer goes.
#[derive(Debug)]
pub(crate) struct Job<W, A> {
    pub(crate) work: W,
    pub(crate) call: Call,
    /// The span in which the caller asked.
    pub(crate) span: Span,
    /// The place in the queue, until the worker takes the job up.
    place: Option<(Permit, Queued)>,
    reply: Sender<Result<A>>,
    counters: Arc<Counters>,
}

impl<W, A> Job<W, A> {
    /// Gives the place in the queue back, because the work begins.
    pub(crate) fn take_up(&mut self) {
        self.place = None;
    }

    /// Ends the job with the model's answer.
    pub(crate) fn answer(mut self, answer: Result<A>) {
        self.take_up();
        self.counters.served.increment();
        // The caller may have left, and then nobody wants the answer.
        let _ = self.reply.send(answer);
    }

    /// Whether nobody waits for the answer any more. If so, the job is at its end and only needs to be dropped.
    pub(crate) fn is_over(&self) -> bool {
        let Err(error) = self.call.check() else { return false };
        self.counters.abandoned.increment();
        let _ = self.reply.send(Err(error));
        true
    }
}

/// The callers' end of a queue.
#[derive(Debug)]
pub(crate) struct Entrance<W, A> {
    name: &'static str,
    admission: Admission,
    sender: Sender<Job<W, A>>,
    counters: Arc<Counters>,
}

/// The worker's end of a queue.
#[derive(Debug)]
pub(crate) struct Exit<W, A> {
    /// Names the model in errors.
    pub(crate) name: &'static str,
    pub(crate) receiver: Receiver<Job<W, A>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) largest_batch: usize,
}

/// A queue to the model `name`.
pub(crate) fn queue<W, A>(name: &'static str, options: WorkerOptions) -> (Entrance<W, A>, Exit<W, A>) {
    let AdmissionOptions { limit, per_tenant } = options.queue;
    let places = AdmissionOptions { limit: limit.min(MOST_PLACES), per_tenant }.valid();
    let (sender, receiver) = bounded(places.limit);
    let counters = Arc::new(Counters::default());
    let admission = Admission::new(format!("places in the queue of the {name}"), places);
    let entrance = Entrance { name, admission, sender, counters: Arc::clone(&counters) };
    (entrance, Exit { name, receiver, counters, largest_batch: options.largest_batch.max(1) })
}

impl<W, A> Entrance<W, A> {
    /// Puts `work` into the queue, made only if there is a place, and waits for the answer while the call lasts.
    pub(crate) fn ask(&self, call: &Call, work: impl FnOnce() -> W) -> Result<A> {
        call.check().inspect_err(|_| self.counters.abandoned.increment())?;
        let permit =
            self.admission.take(call.tenant()).inspect_err(|_| self.counters.rejected.increment())?;
        let place = Some((permit, Queued(Arc::clone(&self.counters))));
        let (reply, answer) = bounded(1);
        let counters = Arc::clone(&self.counters);
        let job = Job { work: work(), call: call.clone(), span: Span::current(), place, reply, counters };
        // Every job in the channel holds a permit, and there are as many permits as places: this does not block.
        let sent = self.sender.send(job);
        self.counters.enter();
        sent.map_err(|_| self.ended())?;
        loop {
            let patience = call.time_left().map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN));
            match answer.recv_timeout(patience) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) => {
                    call.check()
                        .map_err(|error| error.context(format_args!("waiting for the {}", self.name)))?;
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
            }
        }
    }

    /// What has become of the requests so far.
    pub(crate) fn statistics(&self) -> Statistics {
        self.counters.snapshot()
    }

    fn ended(&self) -> PerceptionError {
        backend(format!("the thread of the {} has ended by a failure; restart the program", self.name))
    }
}

impl<W, A> Exit<W, A> {
    /// Hands all that has come to `keep` without waiting. `false` when the callers' end is gone: nobody waits for
    /// anything, since a caller that waits holds on to it.
    pub(crate) fn drain(&self, mut keep: impl FnMut(Job<W, A>)) -> bool {
        loop {
            match self.receiver.try_recv() {
                Ok(job) => keep(job),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }
}
