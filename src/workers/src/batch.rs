//! Requests that wait for the same model are answered by one call of it.

use std::sync::Arc;

use cluegate_perception::{Call, Result};
use tracing::Span;

use crate::lanes::Lanes;
use crate::queue::{Exit, Job};
use crate::thread::guard;

/// How requests of one kind are computed together.
pub(crate) trait Engine {
    /// What a caller asks.
    type Ask;
    /// What it gets.
    type Answer;

    /// How many items `ask` adds to a batch.
    fn items(ask: &Self::Ask) -> usize;

    /// Whether two can be answered by one call.
    fn merge(one: &Self::Ask, other: &Self::Ask) -> bool;

    /// Answers all of `asks`, of which any two merge, by one call of the model: one answer for each.
    fn answer(&self, asks: &[&Self::Ask], call: &Call) -> Result<Vec<Self::Answer>>;
}

type JobOf<E> = Job<<E as Engine>::Ask, <E as Engine>::Answer>;

/// What waits for an engine.
pub(crate) struct Batches<E: Engine> {
    engine: E,
    exit: Exit<E::Ask, E::Answer>,
    lanes: Lanes<JobOf<E>>,
}

impl<E: Engine> Batches<E> {
    pub(crate) fn new(engine: E, exit: Exit<E::Ask, E::Answer>) -> Self {
        Self { engine, exit, lanes: Lanes::new() }
    }

    /// Serves batch after batch until the callers' end of the queue is gone.
    pub(crate) fn run(mut self) {
        loop {
            if self.is_idle() {
                let Ok(job) = self.exit.receiver.recv() else { return };
                self.push(job);
            }
            if !self.receive() {
                return;
            }
            self.serve_next();
        }
    }

    pub(crate) fn exit(&self) -> &Exit<E::Ask, E::Answer> {
        &self.exit
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(crate) fn push(&mut self, job: JobOf<E>) {
        line_up(&mut self.lanes, job);
    }

    /// Takes in all that has come; `false` when the callers' end is gone.
    pub(crate) fn receive(&mut self) -> bool {
        let Self { exit, lanes, .. } = self;
        exit.drain(|job| line_up(lanes, job))
    }

    /// Serves one batch of those that wait, if any: the first in order, and with it what merges with it.
    pub(crate) fn serve_next(&mut self) {
        self.lanes.retain(|job| !job.is_over());
        let mut batch: Vec<JobOf<E>> = Vec::new();
        let mut items = 0;
        while let Some(mut job) = self.lanes.take(|job| match batch.first() {
            Some(first) => {
                items + E::items(&job.work) <= self.exit.largest_batch && E::merge(&first.work, &job.work)
            }
            None => true,
        }) {
            job.take_up();
            items += E::items(&job.work);
            batch.push(job);
        }
        if !batch.is_empty() {
            self.serve(batch);
        }
    }

    /// One call for all jobs. If it fails, one of them may be at fault, or all of them were too much together: then each
    /// is served alone, so that an error belongs to the job that gets it.
    fn serve(&self, jobs: Vec<JobOf<E>>) {
        let asks: Vec<&E::Ask> = jobs.iter().map(|job| &job.work).collect();
        let call = Call::together(jobs.iter().map(|job| job.call.clone()));
        let Exit { name, counters, .. } = &self.exit;
        let items = asks.iter().map(|ask| E::items(ask)).sum();
        counters.batch(items);
        let span = span(name, items, &jobs.iter().map(|job| &job.span).collect::<Vec<_>>());
        match span.in_scope(|| guard(name, counters, || self.engine.answer(&asks, &call))) {
            Ok(answers) => jobs.into_iter().zip(answers).for_each(|(job, answer)| job.answer(Ok(answer))),
            Err(_) if jobs.len() > 1 => {
                for job in jobs {
                    if !job.is_over() {
                        self.serve(vec![job]);
                    }
                }
            }
            Err(error) => jobs.into_iter().for_each(|job| job.answer(Err(error.clone()))),
        }
    }
}

/// The span of one call of a model: below that of the request that came first, and linked to those of all.
pub(crate) fn span(model: &str, items: usize, requests: &[&Span]) -> Span {
    let Some(first) = requests.first().filter(|first| !first.is_disabled()) else { return Span::none() };
    let count = requests.len();
    let span = tracing::info_span!(target: "cluegate::trace", parent: *first, "batch", model, items, requests = count);
    for request in requests {
        span.follows_from(*request);
    }
    span
}

fn line_up<W, A>(lanes: &mut Lanes<Job<W, A>>, job: Job<W, A>) {
    let tenant = Arc::clone(job.call.tenant());
    lanes.push(&tenant, job);
}
