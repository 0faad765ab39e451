//! The batch of free answers in the making: who joins it, who leaves it, and what becomes of it when it fails.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cluegate_perception::{
    AnswerId, Call, Completion, CompletionRequest, Decoding, LocalLanguageModel, PerceptionError, Result,
};

use tracing::Span;

use crate::batch::span;
use crate::lanes::Lanes;
use crate::queue::{Exit, Job};
use crate::statistics::Counters;
use crate::thread::{check_count, guard, wrong};

type AnswerJob = Job<Vec<CompletionRequest>, Vec<Completion>>;

/// Decodes the answers of all requests side by side, token by token.
///
/// ```text
///           ┌───────┐  no room  ┌─────────┐
///  push ──▶ │ lanes │ ────────▶ │ refused │      refused: first in line, overtaken by nobody
///           └───┬───┘           └────┬────┘
///               └───────┬────────────┘
///                       ▼ join
///                 ┌───────────┐ step   ended, failed, or the caller is gone
///                 │  members  │ ─────▶
///                 └─────┬─────┘
///             the batch ▼ failed
///                 ┌───────────┐
///                 │   alone   │      each once more, by itself, before anybody else joins
///                 └───────────┘
/// ```
pub(crate) struct Decoder<'m> {
    exit: Exit<Vec<CompletionRequest>, Vec<Completion>>,
    /// Requests that have not ended, each under its own number.
    jobs: BTreeMap<u64, Unfinished>,
    next_job: u64,
    lanes: Lanes<Seat>,
    refused: VecDeque<Seat>,
    alone: VecDeque<Seat>,
    running: Running<'m>,
    members: BTreeMap<AnswerId, Seat>,
    /// Whether the model may have room for those it refused: a member has left since, or there is none.
    room: bool,
}

struct Unfinished {
    job: AnswerJob,
    /// Lasts as long as this.
    _span: Span,
    answers: Vec<Option<Completion>>,
}

/// One of the answers that a request asks for.
#[derive(Debug, Clone, Copy)]
struct Seat {
    job: u64,
    index: usize,
    /// It is decoded by itself, because the batch in which it was has failed.
    alone: bool,
}

impl<'m> Decoder<'m> {
    pub(crate) fn new(
        model: &'m dyn LocalLanguageModel,
        exit: Exit<Vec<CompletionRequest>, Vec<Completion>>,
    ) -> Self {
        let running =
            Running { model, decoding: None, name: exit.name, counters: Arc::clone(&exit.counters) };
        Self {
            exit,
            jobs: BTreeMap::new(),
            next_job: 0,
            lanes: Lanes::new(),
            refused: VecDeque::new(),
            alone: VecDeque::new(),
            running,
            members: BTreeMap::new(),
            room: true,
        }
    }

    pub(crate) fn exit(&self) -> &Exit<Vec<CompletionRequest>, Vec<Completion>> {
        &self.exit
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.members.is_empty()
    }

    /// Takes in all that has come; `false` when the callers' end is gone.
    pub(crate) fn receive(&mut self) -> bool {
        let mut come = Vec::new();
        let open = self.exit.drain(|job| come.push(job));
        come.into_iter().for_each(|job| self.push(job));
        open
    }

    pub(crate) fn push(&mut self, job: AnswerJob) {
        let number = self.next_job;
        self.next_job += 1;
        for index in 0..job.work.len() {
            self.lanes.push(job.call.tenant(), Seat { job: number, index, alone: false });
        }
        let answers = vec![None; job.work.len()];
        let span = tracing::info_span!(target: "cluegate::trace", parent: &job.span, "decode", answers = answers.len());
        self.jobs.insert(number, Unfinished { job, _span: span, answers });
    }

    /// Lets answers leave whose callers are gone, lets those join for which there is room, and decodes one token.
    pub(crate) fn advance(&mut self) {
        self.jobs.retain(|_, unfinished| !unfinished.job.is_over());
        self.let_leave();
        self.let_join();
        // An answer that could not join takes the others of its request with it.
        self.let_leave();
        self.step();
    }

    /// Ends the seats of requests that have ended.
    fn let_leave(&mut self) {
        let Self { jobs, lanes, refused, alone, members, .. } = self;
        let open = |seat: &Seat| jobs.contains_key(&seat.job);
        lanes.retain(open);
        refused.retain(open);
        alone.retain(open);
        let gone: Vec<AnswerId> =
            members.iter().filter(|(_, seat)| !open(seat)).map(|(answer, _)| *answer).collect();
        if gone.is_empty() {
            return;
        }
        self.room = true;
        gone.iter().for_each(|answer| {
            self.members.remove(answer);
        });
        let left = self.running.guarded(|running| {
            gone.iter().for_each(|answer| running.leave(*answer));
            Ok(())
        });
        if left.is_err() {
            // Those who stay did not cause it.
            self.restart(Vec::new());
        }
    }

    /// Lets as many join as there is room for, in one pass.
    fn let_join(&mut self) {
        if self.members.values().any(|seat| seat.alone) {
            return;
        }
        if !self.alone.is_empty() {
            if self.members.is_empty()
                && let Some(seat) = self.alone.pop_front()
            {
                self.join(vec![seat]);
            }
            return;
        }
        let places = |own: &Self| own.exit.largest_batch.saturating_sub(own.members.len());
        if !self.refused.is_empty() {
            if !self.room || places(self) == 0 {
                return;
            }
            // By itself, so that nobody takes the room that it waits for.
            let first = self.refused.pop_front();
            self.join(first.into_iter().collect());
            if !self.room || !self.alone.is_empty() {
                return;
            }
        }
        let places = places(self);
        let again = self.refused.len().min(places);
        let mut seats: Vec<Seat> = self.refused.drain(..again).collect();
        while seats.len() < places
            && let Some(seat) = self.lanes.take(|_| true)
        {
            seats.push(seat);
        }
        if !seats.is_empty() {
            self.join(seats);
        }
    }

    fn join(&mut self, seats: Vec<Seat>) {
        let was_empty = self.members.is_empty();
        let Self { jobs, running, .. } = self;
        // A request may have ended since its seats were taken, with one of them that could not join.
        let open =
            seats.into_iter().filter_map(|seat| Some((seat, jobs.get(&seat.job)?.job.work.get(seat.index)?)));
        let (seats, requests): (Vec<Seat>, Vec<&CompletionRequest>) = open.unzip();
        if seats.is_empty() {
            return;
        }
        let call =
            Call::together(seats.iter().filter_map(|seat| Some(jobs.get(&seat.job)?.job.call.clone())));
        let spans: Vec<&Span> =
            seats.iter().filter_map(|seat| Some(&jobs.get(&seat.job)?.job.span)).collect();
        let joined = span(self.exit.name, seats.len(), &spans).in_scope(|| {
            running.guarded(|running| {
                let joined = running.join(&requests, &call);
                check_count(self.exit.name, "answers to join", requests.len(), joined.len())?;
                Ok(joined)
            })
        });
        let joined = match joined {
            Ok(joined) => joined,
            Err(error) => return self.fail(seats, &error),
        };
        let (mut refused, mut displaced) = (Vec::new(), Vec::new());
        for (index, (seat, result)) in seats.into_iter().zip(joined).enumerate() {
            match result {
                Ok(Some(answer)) => {
                    if let Some(unfinished) = self.jobs.get_mut(&seat.job) {
                        unfinished.job.take_up();
                    }
                    displaced.extend(self.members.insert(answer, seat));
                }
                Ok(None) if was_empty && index == 0 => {
                    let error = wrong(self.exit.name, "an empty batch has no room for an answer");
                    self.end(seat.job, Err(error));
                }
                Ok(None) => refused.push(seat),
                Err(error) => self.end(seat.job, Err(error)),
            }
        }
        // Nobody will leave an empty batch: whoever was refused beside one that failed is asked again at once.
        self.room = refused.is_empty() || self.members.is_empty();
        refused.into_iter().rev().for_each(|seat| self.refused.push_front(seat));
        if !displaced.is_empty() {
            let error = wrong(self.exit.name, "two answers in the making have the same identity");
            self.fail(displaced, &error);
        }
    }

    /// One token for every member.
    fn step(&mut self) {
        if self.members.is_empty() {
            return;
        }
        self.exit.counters.batch(self.members.len());
        let stepped = self.running.guarded(|running| Ok((running.step()?, running.len())));
        let (ended, left) = match stepped {
            Ok(stepped) => stepped,
            Err(error) => return self.fail(Vec::new(), &error),
        };
        let mut strangers = 0;
        for (answer, result) in ended {
            match self.members.remove(&answer) {
                Some(seat) => self.finish(seat, result),
                None => strangers += 1,
            }
            self.room = true;
        }
        if strangers > 0 || left != self.members.len() {
            let expected = self.members.len();
            let what = format_args!(
                "expected {expected} answers in the making, it has {left}, and ended {strangers} others"
            );
            let error = wrong(self.exit.name, what);
            self.fail(Vec::new(), &error);
        }
    }

    fn finish(&mut self, seat: Seat, result: Result<Completion>) {
        let Some(unfinished) = self.jobs.get_mut(&seat.job) else { return };
        match result {
            Ok(completion) => {
                unfinished.answers[seat.index] = Some(completion);
                if unfinished.answers.iter().all(Option::is_some) {
                    let answers = std::mem::take(&mut unfinished.answers);
                    self.end(seat.job, Ok(answers.into_iter().flatten().collect()));
                }
            }
            Err(error) => self.end(seat.job, Err(error)),
        }
    }

    fn end(&mut self, job: u64, answer: Result<Vec<Completion>>) {
        if let Some(unfinished) = self.jobs.remove(&job) {
            unfinished.job.answer(answer);
        }
    }

    /// Ends the batch after a failure that is nobody's in particular. One that was in it by itself caused it; several
    /// are decoded once more. `joining` were about to become members.
    fn fail(&mut self, joining: Vec<Seat>, error: &PerceptionError) {
        let seats: Vec<u64> = self.members.values().chain(&joining).map(|seat| seat.job).collect();
        self.restart(joining);
        if let [only] = seats[..] {
            self.end(only, Err(error.clone()));
        }
    }

    /// Drops the batch; its answers are decoded once more, each by itself.
    fn restart(&mut self, joining: Vec<Seat>) {
        self.running.discard();
        self.room = true;
        let members = std::mem::take(&mut self.members).into_values();
        self.alone.extend(members.chain(joining).map(|seat| Seat { alone: true, ..seat }));
    }
}

/// The model's batch, and what stands between it and its panics.
struct Running<'m> {
    model: &'m dyn LocalLanguageModel,
    /// Made when it is needed, and again after a failure.
    decoding: Option<Box<dyn Decoding + 'm>>,
    name: &'static str,
    counters: Arc<Counters>,
}

impl Running<'_> {
    /// Runs `work` on the batch; a panic is an error.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut dyn Decoding) -> Result<T>) -> Result<T> {
        let Self { model, decoding, name, counters } = self;
        guard(name, counters, || work(&mut **decoding.get_or_insert_with(|| model.decoding())))
    }

    /// Does away with a batch that has failed.
    fn discard(&mut self) {
        let failed = self.decoding.take();
        // One that panics once more while it is dropped is gone all the same.
        let _ = guard(self.name, &self.counters, || {
            drop(failed);
            Ok(())
        });
    }
}
