//! From questions to the logits of the next token. What questions share is computed once: the picture and the constant
//! text are a past, against which all suffixes run in batches; the next turn of a conversation goes on from where the
//! last one ended.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::Tensor;
use cluegate_perception::{Call, ContentHash, Picture, Prompt};
use rayon::prelude::*;

use super::LanguageModel;
use super::cache::Remembered;
use super::decoder::{Entering, KeyValues, Past, Piece, Position};
use super::features::entering;
use super::prompt::{PictureTokens, Tokens, shared_length};
use crate::cores::{Cores, IN_TURN};
use crate::error::{ModelError, Result};

/// A prompt with its tokens.
#[derive(Debug, Clone)]
pub(super) struct Question<'a> {
    pub(super) prompt: &'a Prompt,
    pub(super) tokens: Arc<Tokens>,
    picture: Option<PictureTokens>,
}

impl<'a> Question<'a> {
    /// A prompt whose tokens are known, with what stands for its picture.
    pub(super) fn new(prompt: &'a Prompt, tokens: Arc<Tokens>, picture: Option<PictureTokens>) -> Self {
        Self { prompt, tokens, picture }
    }

    /// The picture's content hash: part of every key under which anything about it is remembered.
    pub(super) fn hash(&self) -> Option<ContentHash> {
        self.prompt.prefix.picture.as_ref().map(Picture::hash)
    }
}

/// Questions that are computed together, by their indices.
#[derive(Debug)]
enum Unit {
    /// First turns that share a picture, or none, and the constant text.
    Shared(Vec<usize>),
    /// Later turns, each after a conversation of its own; on a GPU also the only question about a picture.
    Own(Vec<usize>),
}

impl Unit {
    fn members(&self) -> &[usize] {
        match self {
            Self::Shared(members) | Self::Own(members) => members,
        }
    }
}

/// Questions that were computed side by side.
pub(super) struct Batch {
    /// Indices of the questions, one for each row.
    pub(super) members: Vec<usize>,
    /// After each question, `[rows, vocabulary]`.
    pub(super) logits: Tensor,
    rows: Kept,
}

/// Where the keys and values of a batch's questions are.
enum Kept {
    Nothing,
    /// Behind a shared past.
    Behind {
        past: Option<Remembered>,
        own: KeyValues,
        lengths: Vec<usize>,
    },
    /// Whole sequences; `padding[i]` columns at the end of row `i` are none of it.
    Whole {
        sequences: KeyValues,
        padding: Vec<usize>,
    },
}

impl Batch {
    /// The sequence of a row, in pieces; nothing if it was not kept.
    pub(super) fn sequence(&self, row: usize) -> Vec<Piece<'_>> {
        match &self.rows {
            Kept::Nothing => Vec::new(),
            Kept::Behind { past, own, lengths } => {
                let own = Piece { from: own, row, first: 0, length: lengths[row] };
                past.iter().map(Remembered::piece).chain([own]).collect()
            }
            Kept::Whole { sequences, padding } => {
                let whole = sequences.row(row);
                vec![Piece { length: whole.length - padding[row], ..whole }]
            }
        }
    }
}

impl LanguageModel {
    /// A prompt's tokens, with room for `more` after them.
    pub(super) fn question<'a>(&self, prompt: &'a Prompt, more: usize) -> Result<Question<'a>> {
        let picture = self.picture_tokens(prompt)?;
        let tokens = self.tokens(prompt, picture.as_ref(), more)?;
        Ok(Question::new(prompt, tokens, picture))
    }

    /// What `read` makes of the logits after each prompt, in the order of the prompts.
    pub(super) fn read_next<R>(
        &self,
        prompts: &[Prompt],
        call: &Call,
        read: impl Fn(&Tensor) -> Result<Vec<R>>,
    ) -> Result<Vec<R>> {
        let questions =
            prompts.par_iter().map(|prompt| self.question(prompt, 0)).collect::<Result<Vec<_>>>()?;
        self.read_questions(&questions, call, read)
    }

    /// The same of questions whose tokens are known.
    pub(super) fn read_questions<R>(
        &self,
        questions: &[Question<'_>],
        call: &Call,
        read: impl Fn(&Tensor) -> Result<Vec<R>>,
    ) -> Result<Vec<R>> {
        let mut answers: Vec<(usize, R)> = Vec::with_capacity(questions.len());
        for (_, computed) in self.prefill(questions, false, call) {
            for batch in computed? {
                let read = read(&batch.logits).map_err(|e| e.at("the language model"))?;
                answers.extend(batch.members.into_iter().zip(read));
            }
        }
        answers.sort_by_key(|(index, _)| *index);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    /// Computes questions: which ones belong together, by their indices, and what became of them.
    pub(super) fn prefill(
        &self,
        questions: &[Question<'_>],
        keep: bool,
        call: &Call,
    ) -> Vec<(Vec<usize>, Result<Vec<Batch>>)> {
        let units = self.units(questions);
        // Several pictures are computed side by side, else the questions about one.
        let inner = if units.len() > 1 { &IN_TURN } else { &self.cores };
        let outer = if units.len() > 1 { &self.cores } else { &IN_TURN };
        let computed = outer.map(&units, |unit| match unit {
            Unit::Shared(members) => self.shared(members, questions, keep, inner, call),
            Unit::Own(members) => self.own(members, questions, keep, call),
        });
        units.iter().map(|unit| unit.members().to_vec()).zip(computed).collect()
    }

    fn units(&self, questions: &[Question<'_>]) -> Vec<Unit> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut group_of: HashMap<(Option<ContentHash>, &str), usize> = HashMap::new();
        let mut later = Vec::new();
        for (index, question) in questions.iter().enumerate() {
            if !question.prompt.turns.is_empty() {
                later.push(index);
                continue;
            }
            let group =
                *group_of.entry((question.hash(), &*question.prompt.prefix.text)).or_insert_with(|| {
                    groups.push(Vec::new());
                    groups.len() - 1
                });
            groups[group].push(index);
        }
        let alone = |group: &mut Vec<usize>| group.len() == 1;
        if !self.decoder.device().is_cpu() && groups.iter().filter(|group| group.len() == 1).count() > 1 {
            // One question is little work for a GPU: those about different pictures go together.
            later.extend(groups.extract_if(.., alone).flatten());
        }
        let share = later.len().div_ceil(self.cores.count()).max(1);
        let later = later.chunks(share).map(|part| Unit::Own(part.to_vec()));
        groups.into_iter().map(Unit::Shared).chain(later).collect()
    }

    /// First turns after one shared past.
    fn shared(
        &self,
        members: &[usize],
        questions: &[Question<'_>],
        keep: bool,
        cores: &Cores,
        call: &Call,
    ) -> Result<Vec<Batch>> {
        let Some(first) = members.first().map(|&index| &questions[index]) else { return Ok(Vec::new()) };
        let tokens = |index: usize| &*questions[index].tokens;
        let shared = self.shared_by(first, members.iter().map(|&index| tokens(index)))?;
        // What stands before the picture need not be the same in every chat template.
        let beginning = first.tokens.ids.get(..shared);
        if !beginning.is_some_and(|ids| members.iter().all(|&index| tokens(index).ids.starts_with(ids))) {
            return self.own(members, questions, keep, call);
        }
        let own_length = |index: usize| tokens(index).ids.len() - shared;
        // Questions of like length go together: padding is work for nothing.
        let mut order = members.to_vec();
        order.sort_by_key(|&index| std::cmp::Reverse(own_length(index)));
        let longest = own_length(order[0]);
        let most = self.limits.tokens(self.decoder.config().heads, shared + longest);
        if longest > most {
            return self.own(members, questions, keep, call);
        }
        let past = self.remembered(first, shared, call)?;
        let total: usize = members.iter().map(|&index| own_length(index)).sum();
        let budget = total.div_ceil(cores.count()).min(most);
        let mut batches = Vec::new();
        let mut rest = order.as_slice();
        while let Some(&longest) = rest.first() {
            // Within the limit, and as evenly as rows allow.
            let fit = (most / own_length(longest)).max(1);
            let (batch, later) =
                rest.split_at(budget.div_ceil(own_length(longest)).clamp(1, fit).min(rest.len()));
            batches.push(batch);
            rest = later;
        }
        let computed = cores.map(&batches, |batch| {
            call.check().map_err(ModelError::Ended)?;
            let rows: Vec<&Tokens> = batch.iter().map(|&index| tokens(index)).collect();
            let past_of = past.as_ref().map_or(Past(None), Remembered::past);
            let lengths: Vec<usize> = rows.iter().map(|row| row.ids.len() - shared).collect();
            let (ids, _) = padded(&rows, &vec![shared; rows.len()]);
            // After the picture all coordinates count on alike, so the longest row's positions are everyone's.
            let computed = self.decoder.score(past_of, &ids, &lengths, &rows[0].positions[shared..], keep);
            let (logits, own) = computed.map_err(|e| ModelError::from(e).at("the language model"))?;
            let rows = own.map_or(Kept::Nothing, |own| Kept::Behind { past: past.clone(), own, lengths });
            Ok(Batch { members: batch.to_vec(), logits, rows })
        });
        computed.into_iter().collect()
    }

    /// Questions that each go on from the longest beginning that is remembered of them.
    fn own(
        &self,
        members: &[usize],
        questions: &[Question<'_>],
        keep: bool,
        call: &Call,
    ) -> Result<Vec<Batch>> {
        let mut rows = Vec::with_capacity(members.len());
        for &index in members {
            rows.push((index, self.longest_past(&questions[index], call)?));
        }
        let new = |(index, past): &(usize, Option<Remembered>)| {
            questions[*index].tokens.ids.len() - past.as_ref().map_or(0, Remembered::length)
        };
        rows.sort_by_key(|row| std::cmp::Reverse(new(row)));
        let mut batches = Vec::new();
        let mut rest = rows.as_slice();
        while let Some(first) = rest.first() {
            let columns = rest.iter().map(|(index, _)| questions[*index].tokens.ids.len()).max().unwrap_or(0);
            let most = self.limits.tokens(self.decoder.config().heads, columns + new(first));
            // Every row has a copy of its past.
            let fit = self.limits.decoding_bytes / (self.decoder.shape().token_bytes() * columns).max(1);
            let (part, later) = rest.split_at((most / new(first)).min(fit).clamp(1, rest.len()));
            call.check().map_err(ModelError::Ended)?;
            let batch = self.own_batch(part, questions, keep);
            batches.push(batch.map_err(|e| ModelError::from(e).at("the language model"))?);
            rest = later;
        }
        Ok(batches)
    }

    /// One batch of rows with pasts of their own, the one with the most new tokens first.
    fn own_batch(
        &self,
        part: &[(usize, Option<Remembered>)],
        questions: &[Question<'_>],
        keep: bool,
    ) -> candle_core::Result<Batch> {
        let members: Vec<usize> = part.iter().map(|(index, _)| *index).collect();
        let rows: Vec<&Tokens> = members.iter().map(|&index| &*questions[index].tokens).collect();
        let pasts: Vec<usize> =
            part.iter().map(|(_, past)| past.as_ref().map_or(0, Remembered::length)).collect();
        let lengths: Vec<usize> = rows.iter().zip(&pasts).map(|(row, past)| row.ids.len() - past).collect();
        let pieces: Vec<Vec<Piece<'_>>> =
            part.iter().map(|(_, past)| past.iter().map(Remembered::piece).collect()).collect();
        let mut sequences = KeyValues::gather(&self.decoder.shape(), &pieces, lengths[0])?;
        let (ids, positions) = padded(&rows, &pasts);
        let entering = self.decoder.embed(&ids)?.into();
        let logits = self.decoder.append(&mut sequences, &entering, &positions, Some(&lengths))?;
        let logits =
            logits.ok_or_else(|| candle_core::Error::msg("no logits although they were asked for"))?;
        let padding = lengths.iter().map(|length| lengths[0] - length).collect();
        let rows = if keep { Kept::Whole { sequences, padding } } else { Kept::Nothing };
        Ok(Batch { members, logits, rows })
    }

    /// The longest remembered beginning of a question that leaves a token to be computed, at least its picture and
    /// the constant text, and all but a batch of tokens.
    fn longest_past(&self, question: &Question<'_>, call: &Call) -> Result<Option<Remembered>> {
        let tokens = &question.tokens;
        let last = tokens.ids.len() - 1;
        let whole_picture = |found: &Remembered| found.length() >= tokens.picture_end();
        let found = self.cache.longest(question.hash(), &tokens.ids[..last]).filter(whole_picture);
        let found = match found {
            Some(found) => Some(found),
            None => self.remembered(question, self.shared_by(question, std::iter::once(&**tokens))?, call)?,
        };
        let known = found.as_ref().map_or(0, Remembered::length);
        let most = self.limits.tokens(self.decoder.config().heads, tokens.ids.len());
        if last + 1 - known > most { self.remembered(question, last, call) } else { Ok(found) }
    }

    /// How many tokens to compute once for all: what they share, and at least the picture, before which the template
    /// puts the same text for everyone.
    fn shared_by<'t>(
        &self,
        question: &Question<'_>,
        all: impl Iterator<Item = &'t Tokens> + Clone,
    ) -> Result<usize> {
        let beginning = self.chat.prompter.beginning(question.prompt, question.picture.as_ref())?;
        let picture_end = all.clone().map(Tokens::picture_end).max().unwrap_or(0);
        Ok(shared_length(&beginning, all).max(picture_end))
    }

    /// The first `length` tokens of a question, computed or remembered; `None` for none.
    fn remembered(&self, question: &Question<'_>, length: usize, call: &Call) -> Result<Option<Remembered>> {
        if length == 0 {
            return Ok(None);
        }
        let at = |e: candle_core::Error| ModelError::from(e).at("the language model");
        let (hash, tokens) = (question.hash(), &question.tokens);
        let ids = &tokens.ids[..length];
        // A picture is computed whole or not at all.
        let found = self.cache.longest(hash, ids).filter(|found| found.length() >= tokens.picture_end());
        if let Some(found) = found.as_ref().filter(|found| found.length() == length) {
            return Ok(Some(found.clone()));
        }
        call.check().map_err(ModelError::Ended)?;
        let past: Vec<Piece<'_>> = found.iter().map(Remembered::piece).collect();
        let start = found.as_ref().map_or(0, Remembered::length);
        let entering: Entering = match (&question.prompt.prefix.picture, tokens.picture) {
            (Some(picture), Some((first, end))) if start == 0 => {
                let features = self.encoder()?.features(picture)?;
                let place = first..end.min(length);
                entering(&self.decoder, ids, place, self.image_token()?, &features).map_err(at)?
            }
            _ => self.decoder.embed(&ids[start..]).map_err(at)?.into(),
        };
        let mut sequence = KeyValues::gather(&self.decoder.shape(), &[past], length - start).map_err(at)?;
        let piece = self.limits.tokens(self.decoder.config().heads, length);
        let mut done = 0;
        for positions in tokens.positions[start..length].chunks(piece) {
            call.check().map_err(ModelError::Ended)?;
            let part = entering.narrow(done, positions.len()).map_err(at)?;
            self.decoder.append(&mut sequence, &part, positions, None).map_err(at)?;
            done += positions.len();
        }
        let sequence = Arc::new(sequence);
        self.cache.insert(hash, ids.to_vec(), sequence.clone());
        Ok(Some(Remembered::new(sequence, length)))
    }
}

/// What rows have after their pasts, padded at the end to the length of the first one, which is the longest: tokens
/// and positions, row by row. Any token will do as padding: nothing real can see what comes after it.
fn padded(rows: &[&Tokens], pasts: &[usize]) -> (Vec<u32>, Vec<Position>) {
    let length = rows.iter().zip(pasts).map(|(row, past)| row.ids.len() - past).max().unwrap_or(0);
    let (mut ids, mut positions) = (Vec::new(), Vec::new());
    for (row, &past) in rows.iter().zip(pasts) {
        let fill = length - (row.ids.len() - past);
        ids.extend_from_slice(&row.ids[past..]);
        ids.extend(std::iter::repeat_n(row.ids[past], fill));
        positions.extend_from_slice(&row.positions[past..]);
        positions.extend(std::iter::repeat_n([row.next_position(); 3], fill));
    }
    (ids, positions)
}
