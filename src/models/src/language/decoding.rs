//! Answers in the making: many at a time, one token for all of them with every step.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use cluegate_perception::{
    AnswerId, Call, Completion, CompletionRequest, ContentHash, Decoding, FinishReason, PerceptionError,
    Result,
};

use super::decoder::{KeyValues, Piece, Shape};
use super::prefill::Question;
use super::{LanguageModel, scoring};
use crate::error::ModelError;

/// Part of a lane's rows that may have ended before the others are moved together.
const DEAD_SHARE: usize = 4;

/// Greedy answers to all requests, however many fit at a time.
///
/// # Errors
/// The first that any request meets; the call's own once nobody waits any more.
pub(super) fn complete(
    model: &LanguageModel,
    requests: &[CompletionRequest],
    call: &Call,
) -> Result<Vec<Completion>> {
    let mut answers = Answers::new(model);
    let mut places: Vec<(AnswerId, usize)> = Vec::with_capacity(requests.len());
    let mut done: Vec<Option<Completion>> = vec![None; requests.len()];
    let mut waiting: VecDeque<usize> = (0..requests.len()).collect();
    // Whether there may be room for those that wait.
    let mut room = true;
    while done.iter().any(Option::is_none) {
        call.check()?;
        if room && !waiting.is_empty() {
            let asked: Vec<&CompletionRequest> = waiting.iter().map(|&index| &requests[index]).collect();
            let joined = answers.join_all(&asked, call);
            let mut still = VecDeque::new();
            for (index, joined) in waiting.into_iter().zip(joined) {
                match joined? {
                    Some(id) => places.push((id, index)),
                    None => still.push_back(index),
                }
            }
            waiting = still;
        }
        let ended = answers.step_all()?;
        room = !ended.is_empty();
        for (id, completion) in ended {
            if let Some(&(_, index)) = places.iter().find(|(place, _)| *place == id) {
                done[index] = Some(completion?);
            }
        }
    }
    Ok(done.into_iter().flatten().collect())
}

/// A batch of answers. On a CPU it has one lane for each core, which computes alone; else a single one.
pub(super) struct Answers<'a> {
    model: &'a LanguageModel,
    lanes: Vec<Mutex<Lane>>,
    /// Answers that had ended when they joined.
    ended: Vec<(AnswerId, Result<Completion>)>,
    next: u64,
}

/// Sequences that grow side by side.
#[derive(Debug, Default)]
struct Lane {
    /// One for each row of the sequences.
    rows: Vec<Making>,
    sequences: Option<KeyValues>,
}

/// An answer in the making.
#[derive(Debug)]
struct Making {
    id: AnswerId,
    picture: Option<ContentHash>,
    /// The question's tokens and those of the answer that were read.
    read: Vec<u32>,
    answer: Vec<u32>,
    max_tokens: usize,
    /// Where the last token of the answer, not yet read, stands.
    position: u32,
    /// It has left; its row goes along until the others are moved together.
    gone: bool,
}

impl Making {
    /// Most tokens of its sequence.
    fn longest(&self) -> usize {
        self.read.len() + self.max_tokens - self.answer.len() + 1
    }

    /// Takes the next token; why the answer has ended, if it has.
    fn take(&mut self, token: u32, ends: &[u32]) -> Option<FinishReason> {
        if ends.contains(&token) {
            return Some(FinishReason::Stop);
        }
        self.answer.push(token);
        (self.answer.len() >= self.max_tokens).then_some(FinishReason::Length)
    }
}

impl Lane {
    fn alive(&self) -> impl Iterator<Item = &Making> {
        self.rows.iter().filter(|row| !row.gone)
    }

    fn tokens(&self) -> usize {
        self.alive().count() * self.alive().map(Making::longest).max().unwrap_or(0)
    }

    fn capacity(&self) -> usize {
        self.sequences.as_ref().map_or(0, |sequences| sequences.rows() * sequences.capacity())
    }

    /// Moves the rows together, without those that are gone and with those that have started. If that fails, all is as
    /// it was.
    fn rebuild(&mut self, shape: &Shape, started: Vec<Started<'_>>) -> candle_core::Result<()> {
        let mut pieces: Vec<Vec<Piece<'_>>> = Vec::new();
        if let Some(sequences) = &self.sequences {
            let alive = self.rows.iter().enumerate().filter(|(_, making)| !making.gone);
            pieces.extend(alive.map(|(index, _)| vec![sequences.row(index)]));
        }
        let mut joining: Vec<Making> = Vec::with_capacity(started.len());
        for one in started {
            pieces.push(one.sequence);
            joining.push(one.making);
        }
        let room =
            self.alive().chain(&joining).map(|making| making.max_tokens - making.answer.len() + 1).max();
        let sequences = room.map(|room| KeyValues::gather(shape, &pieces, room)).transpose()?;
        self.rows.retain(|making| !making.gone);
        self.rows.append(&mut joining);
        self.sequences = sequences;
        Ok(())
    }
}

/// A question that was read and waits for its place in a lane.
struct Started<'b> {
    making: Making,
    sequence: Vec<Piece<'b>>,
}

impl<'a> Answers<'a> {
    pub(super) fn new(model: &'a LanguageModel) -> Self {
        let lanes = (0..model.cores.count()).map(|_| Mutex::default()).collect();
        Self { model, lanes, ended: Vec::new(), next: 0 }
    }

    fn lane(&mut self, index: usize) -> &mut Lane {
        self.lanes[index].get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn lanes(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.iter_mut().map(|lane| lane.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    /// See [`Decoding::join`].
    fn join_all(&mut self, requests: &[&CompletionRequest], call: &Call) -> Vec<Result<Option<AnswerId>>> {
        let model = self.model;
        let mut answers: Vec<Result<Option<AnswerId>>> = requests.iter().map(|_| Ok(None)).collect();
        let (mut questions, mut places) = (Vec::new(), Vec::new());
        let mut room = self.room();
        for (index, request) in requests.iter().enumerate() {
            match model.question(&request.prompt, request.max_tokens) {
                Err(error) => answers[index] = Err(error.into()),
                Ok(question) => {
                    let longest = question.tokens.ids.len() + request.max_tokens;
                    if !room.take(longest) {
                        continue;
                    }
                    places.push(index);
                    questions.push(question);
                }
            }
        }
        let computed: Vec<(Vec<usize>, Result<_>)> = model
            .prefill(&questions, true, call)
            .into_iter()
            .map(|(members, batches)| (members, batches.map_err(PerceptionError::from)))
            .collect();
        let mut started: Vec<Started<'_>> = Vec::new();
        for (members, batches) in &computed {
            let batches = match batches {
                Ok(batches) => batches,
                Err(error) => {
                    members.iter().for_each(|&member| answers[places[member]] = Err(error.clone()));
                    continue;
                }
            };
            for batch in batches {
                let tokens = scoring::largest(&batch.logits);
                for (row, &member) in batch.members.iter().enumerate() {
                    let token = match &tokens {
                        Ok(tokens) => tokens[row].clone(),
                        Err(error) => Err(error.clone()),
                    };
                    let max_tokens = requests[places[member]].max_tokens;
                    answers[places[member]] = token.map(|token| {
                        let sequence = batch.sequence(row);
                        Some(self.start(&questions[member], token, max_tokens, sequence, &mut started))
                    });
                }
            }
        }
        if let Err(error) = self.settle(started) {
            // Whoever has just joined is nowhere; who was there before still is.
            let gone = |id: &AnswerId| !self.holds(*id);
            let lost: Vec<usize> = (0..answers.len())
                .filter(|&index| matches!(&answers[index], Ok(Some(id)) if gone(id)))
                .collect();
            lost.into_iter().for_each(|index| answers[index] = Err(error.clone()));
        }
        answers
    }

    /// An answer with its first token: one that ends with it is told at the next step, the others grow.
    fn start<'b>(
        &mut self,
        question: &Question<'_>,
        token: u32,
        max_tokens: usize,
        sequence: Vec<Piece<'b>>,
        started: &mut Vec<Started<'b>>,
    ) -> AnswerId {
        let id = AnswerId(self.next);
        self.next += 1;
        let mut making = Making {
            id,
            picture: question.hash(),
            read: question.tokens.ids.clone(),
            answer: Vec::new(),
            max_tokens,
            position: question.tokens.next_position(),
            gone: false,
        };
        let finish = if max_tokens == 0 {
            Some(FinishReason::Length)
        } else {
            making.take(token, &self.model.chat.ends)
        };
        match finish {
            Some(finish) => {
                let completion = self.model.completion(&making, finish);
                self.ended.push((id, completion));
            }
            None => started.push(Started { making, sequence }),
        }
        id
    }

    /// Gives every started answer a row in the lane with the fewest.
    fn settle(&mut self, started: Vec<Started<'_>>) -> Result<()> {
        let mut shares: Vec<Vec<Started<'_>>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for one in started {
            let fewest = (0..shares.len())
                .min_by_key(|&index| shares[index].len() + self.lane(index).alive().count())
                .unwrap_or(0);
            shares[fewest].push(one);
        }
        for (index, share) in shares.into_iter().enumerate() {
            if !share.is_empty() {
                let shape = self.model.decoder.shape();
                self.lane(index).rebuild(&shape, share).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn holds(&self, id: AnswerId) -> bool {
        let in_lane = |lane: &Mutex<Lane>| {
            let lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
            lane.alive().any(|making| making.id == id)
        };
        self.ended.iter().any(|(ended, _)| *ended == id) || self.lanes.iter().any(in_lane)
    }

    fn room(&mut self) -> Room {
        let tokens = self.model.limits.decoding_bytes / self.model.decoder.shape().token_bytes().max(1);
        let (mut rows, mut longest) = (0, 0);
        for lane in self.lanes() {
            rows += lane.alive().count();
            longest = longest.max(lane.alive().map(Making::longest).max().unwrap_or(0));
        }
        Room { tokens, rows, longest }
    }

    /// See [`Decoding::step`].
    fn step_all(&mut self) -> Result<Vec<(AnswerId, Result<Completion>)>> {
        let model = self.model;
        let mut ended = std::mem::take(&mut self.ended);
        let busy: Vec<&Mutex<Lane>> = self
            .lanes
            .iter()
            .filter(|lane| lane.lock().unwrap_or_else(PoisonError::into_inner).alive().next().is_some())
            .collect();
        let stepped = model
            .cores
            .map(&busy, |lane| model.step(&mut lane.lock().unwrap_or_else(PoisonError::into_inner)));
        for lane in stepped {
            ended.extend(lane?);
        }
        Ok(ended)
    }
}

/// Whether more sequences fit: all are as long as the longest may become.
struct Room {
    tokens: usize,
    rows: usize,
    longest: usize,
}

impl Room {
    fn take(&mut self, longest: usize) -> bool {
        let (rows, longest) = (self.rows + 1, self.longest.max(longest));
        // One always fits, else it would wait for ever.
        let fits = self.rows == 0 || rows * longest <= self.tokens;
        if fits {
            (self.rows, self.longest) = (rows, longest);
        }
        fits
    }
}

impl LanguageModel {
    /// Reads the last token of every answer of a lane and gives each its next one.
    fn step(&self, lane: &mut Lane) -> Result<Vec<(AnswerId, Result<Completion>)>> {
        let dead = lane.rows.iter().filter(|row| row.gone).count();
        if dead > 0 && (dead * DEAD_SHARE >= lane.rows.len() || lane.capacity() > 2 * lane.tokens()) {
            lane.rebuild(&self.decoder.shape(), Vec::new()).map_err(failed)?;
        }
        let Lane { rows, sequences: Some(sequences) } = lane else { return Ok(Vec::new()) };
        let last: Vec<u32> = rows.iter().map(|row| row.answer.last().copied().unwrap_or(0)).collect();
        let positions: Vec<[u32; 3]> = rows.iter().map(|row| [row.position; 3]).collect();
        let entering = self.decoder.embed(&last).map_err(failed)?.into();
        let ones = vec![1; rows.len()];
        let logits = self.decoder.append(sequences, &entering, &positions, Some(&ones)).map_err(failed)?;
        let tokens = logits.as_ref().map_or(Ok(Vec::new()), scoring::largest)?;
        let mut ended = Vec::new();
        for (index, (row, token)) in rows.iter_mut().zip(tokens).enumerate() {
            row.position += 1;
            if row.gone {
                continue;
            }
            row.read.extend(row.answer.last());
            let completion = match token {
                Err(error) => Err(error),
                Ok(token) => match row.take(token, &self.chat.ends) {
                    None => continue,
                    Some(finish) => self.completion(row, finish),
                },
            };
            row.gone = true;
            if completion.is_ok() {
                // A next turn goes on from here. Without the room for tokens that never came.
                let piece = vec![sequences.row(index)];
                let sequence = KeyValues::gather(&self.decoder.shape(), &[piece], 0).map_err(failed)?;
                self.cache.insert(row.picture, std::mem::take(&mut row.read), Arc::new(sequence));
            }
            ended.push((row.id, completion));
        }
        if rows.iter().all(|row| row.gone) {
            *lane = Lane::default();
        }
        Ok(ended)
    }

    fn completion(&self, making: &Making, finish: FinishReason) -> Result<Completion> {
        let text = self.chat.prompter.tokenizer.decode(&making.answer)?;
        Ok(Completion { text, tokens: making.answer.len(), finish })
    }
}

impl Decoding for Answers<'_> {
    fn join(&mut self, requests: &[&CompletionRequest], call: &Call) -> Vec<Result<Option<AnswerId>>> {
        self.join_all(requests, call)
    }

    fn leave(&mut self, answer: AnswerId) {
        self.ended.retain(|(id, _)| *id != answer);
        for lane in self.lanes() {
            lane.rows.iter_mut().filter(|row| row.id == answer).for_each(|row| row.gone = true);
            if lane.alive().next().is_none() {
                *lane = Lane::default();
            }
        }
    }

    fn step(&mut self) -> Result<Vec<(AnswerId, Result<Completion>)>> {
        self.step_all()
    }

    fn len(&self) -> usize {
        let alive = |lane: &Mutex<Lane>| lane.lock().unwrap_or_else(PoisonError::into_inner).alive().count();
        self.ended.len() + self.lanes.iter().map(alive).sum::<usize>()
    }
}

fn failed(error: candle_core::Error) -> PerceptionError {
    ModelError::from(error).at("the language model").into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn a_lane_that_cannot_be_rebuilt_is_as_it_was() {
        let shape = Shape { layers: 1, kv_heads: 2, head: 2, dtype: DType::F32, device: Device::Cpu };
        let mut question = KeyValues::empty(&shape, 1, 3).unwrap();
        question.grow(3);
        let started = |id, length| Started {
            making: Making {
                id: AnswerId(id),
                picture: None,
                read: vec![0; length],
                answer: vec![0],
                max_tokens: 5,
                position: 3,
                gone: false,
            },
            sequence: vec![Piece { length, ..question.row(0) }],
        };
        let ids = |lane: &Lane| lane.rows.iter().map(|row| row.id.0).collect::<Vec<_>>();
        let mut lane = Lane::default();
        lane.rebuild(&shape, vec![started(1, 3), started(2, 2)]).unwrap();
        // More columns than there are.
        assert!(lane.rebuild(&shape, vec![started(3, 4)]).is_err());
        assert_eq!(ids(&lane), [1, 2]);
        assert_eq!(lane.sequences.as_ref().unwrap().starts(), [0, 1]);
        lane.rows[0].gone = true;
        lane.rebuild(&shape, vec![started(4, 1)]).unwrap();
        assert_eq!(ids(&lane), [2, 4]);
        let sequences = lane.sequences.as_ref().unwrap();
        assert_eq!((sequences.starts(), sequences.end(), sequences.capacity()), (&[0, 1][..], 2, 7));
        lane.rows.iter_mut().for_each(|row| row.gone = true);
        lane.rebuild(&shape, Vec::new()).unwrap();
        assert!(lane.rows.is_empty() && lane.sequences.is_none());
    }
}
