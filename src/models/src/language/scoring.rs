//! From logits to answers: what leaves the device is only what is asked for.

use candle_core::{D, DType, Tensor};
use cluegate_perception::AnswerScore;

use super::Probe;
use crate::error::{ModelError, Result};

/// All logits of each row of `[rows, vocabulary]`.
pub(super) fn logits(rows: &Tensor) -> Result<Vec<Vec<f32>>> {
    rows.to_dtype(DType::F32)?.to_vec2()?.into_iter().map(finite).collect()
}

/// The softmax's mass on `yes` and on `no`, each summed over its tokens.
pub(super) fn masses(rows: &Tensor, yes: &[u32], no: &[u32]) -> Result<Vec<AnswerScore>> {
    if rows.device().is_cpu() {
        return Ok(logits(rows)?.iter().map(|row| mass_of(row, yes, no)).collect());
    }
    let rows = rows.to_dtype(DType::F32)?;
    let weights = rows.broadcast_sub(&rows.max_keepdim(D::Minus1)?)?.exp()?;
    let total = weights.sum_keepdim(D::Minus1)?;
    let mass = |ids: &[u32]| weights.index_select(&Tensor::new(ids, rows.device())?, 1)?.sum_keepdim(1);
    // An infinite logit has a weight like any other number; the sum of all logits tells.
    let sum = rows.sum_keepdim(D::Minus1)?;
    let read = Tensor::cat(&[total, mass(yes)?, mass(no)?, sum], 1)?.to_vec2::<f32>()?;
    let answers = read.into_iter().map(finite).map(|row| {
        let row = row?;
        let share = |mass: f32| f64::from(mass) / f64::from(row[0]);
        Ok(AnswerScore { yes: share(row[1]), no: share(row[2]) })
    });
    answers.collect()
}

impl Probe {
    /// The probabilities of two answers, each summed over the tokens that spell it; tokens beyond the vocabulary have
    /// none.
    pub fn score(&self, first: &[u32], second: &[u32]) -> AnswerScore {
        mass_of(&self.logits, first, second)
    }

    /// The `count` most probable tokens with their logits, the most probable first; among equals the lower id.
    pub fn top(&self, count: usize) -> Vec<(u32, f32)> {
        let mut all: Vec<(u32, f32)> = (0..).zip(self.logits.iter().copied()).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(count);
        all
    }
}

fn mass_of(logits: &[f32], yes: &[u32], no: &[u32]) -> AnswerScore {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| f64::from(logit - largest).exp();
    let total: f64 = logits.iter().map(|&logit| weight(logit)).sum();
    let mass = |ids: &[u32]| {
        ids.iter().filter_map(|&id| logits.get(id as usize)).map(|&logit| weight(logit)).sum::<f64>() / total
    };
    AnswerScore { yes: mass(yes), no: mass(no) }
}

/// The most probable token of each row, the first of equals; an error in place of those that are no numbers.
pub(super) fn largest(rows: &Tensor) -> cluegate_perception::Result<Vec<cluegate_perception::Result<u32>>> {
    let tokens = largest_of(rows).map_err(|e| e.at("the language model"))?;
    Ok(tokens.into_iter().map(|token| token.map_err(Into::into)).collect())
}

fn largest_of(rows: &Tensor) -> Result<Vec<Result<u32>>> {
    if rows.device().is_cpu() {
        let rows = rows.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        return Ok(rows.into_iter().map(|row| finite(row).map(|row| first_largest(&row))).collect());
    }
    let rows = rows.to_dtype(DType::F32)?;
    let tokens = rows.argmax(D::Minus1)?.to_vec1::<u32>()?;
    let sums = rows.sum(D::Minus1)?.to_vec1::<f32>()?;
    Ok(tokens.into_iter().zip(sums).map(|(token, sum)| finite(vec![sum]).map(|_| token)).collect())
}

fn first_largest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best as u32
}

/// The values, if they are numbers.
fn finite(values: Vec<f32>) -> Result<Vec<f32>> {
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(ModelError::NotANumber("the judge's probabilities".to_owned()))
    }
}
