//! From labelled features to a head: members by cross-validation, then a threshold on what was held out.
//!
//! Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), a cosine schedule, and dropout on hidden units,
//! all from one seed. Every output has the same weight on its two sides, however rare one of them is.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::calibrate::{Calibration, Goal, calibrate, count_at};
use crate::error::{Result, StudentError, StudentErrorKind};
use crate::head::{Head, Member, largest};

/// A labelled picture.
#[derive(Debug, Clone)]
pub struct Example {
    /// What tells it from others, such as its content hash: which side of the split it is on follows from that alone.
    pub key: String,
    /// Features of each view of it, the whole first.
    pub views: Vec<Vec<f32>>,
    /// For each rule whether the judge found it violated.
    pub violated: Vec<bool>,
}

impl Example {
    fn is_unsafe(&self) -> bool {
        self.violated.contains(&true)
    }
}

/// How a head is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainOptions {
    /// Seed of the folds, the first weights and the order.
    pub seed: u64,
    /// Share of the pictures that are held out for the threshold, 0 to 1, exclusive.
    pub held_out: f64,
    /// Folds of the cross-validation, and members of the head; at least 2.
    pub folds: usize,
    /// Hidden units to try, 0 for a logistic regression; the best by cross-validation is taken.
    pub hidden: Vec<usize>,
    /// Passes over the pictures.
    pub epochs: usize,
    /// What has to be kept.
    pub goal: Goal,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self { seed: 1, held_out: 0.35, folds: 4, hidden: vec![0, 128], epochs: 30, goal: Goal::default() }
    }
}

/// What cross-validation said of one number of hidden units, at the goal's recall without a bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// Hidden units.
    pub hidden: usize,
    /// Share of pictures that would be sent on, each scored by the member that was not trained on it.
    pub sent_on: f64,
}

/// A head, its threshold, and how they were found.
#[derive(Debug, Clone)]
pub struct Distilled {
    /// The head.
    pub head: Head,
    /// Its threshold and what it does on the held-out pictures.
    pub calibration: Calibration,
    /// What cross-validation said.
    pub choices: Vec<Choice>,
    /// Pictures that were trained on, and those of them that are unsafe.
    pub trained: (u64, u64),
}

const BATCH: usize = 64;
const RATE: f32 = 1e-3;
const DECAY: f32 = 1e-2;
const DROPOUT: f64 = 0.2;
/// Features that never vary are divided by this.
const LEAST_DEVIATION: f32 = 1e-6;
/// Most that a rare side of an output weighs over a common one.
const MOST_WEIGHT: f32 = 20.0;

/// Whether a picture is held out: by its key and the seed alone, so that more labels move none to the other side.
pub fn is_held_out(key: &str, options: &TrainOptions) -> bool {
    share_of(key, options.seed) < options.held_out
}

/// A number in 0 to 1 that a key has.
fn share_of(key: &str, seed: u64) -> f64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(key.as_bytes());
    let bytes = hasher.finalize();
    let first = bytes.as_bytes().iter().take(6).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    first as f64 / (1_u64 << 48) as f64
}

/// Trains a head on `examples` of one width, with a label for each of the rules.
///
/// # Errors
/// `Labels` if there are too few pictures, or too few unsafe ones, for the folds or the goal.
pub fn distill(examples: &[Example], options: &TrainOptions) -> Result<Distilled> {
    let (held_out, training): (Vec<&Example>, Vec<&Example>) =
        examples.iter().partition(|example| is_held_out(&example.key, options));
    let head = standardised(&training)?;
    let folds: Vec<usize> = training
        .iter()
        .map(|example| (share_of(&example.key, options.seed ^ 0xf01d) * options.folds as f64) as usize)
        .collect();
    let enough = |fold: usize| {
        let own = training.iter().zip(&folds).filter(|(_, own)| **own != fold).map(|(example, _)| example);
        let (is, is_not): (Vec<bool>, Vec<bool>) = own.map(|example| example.is_unsafe()).partition(|is| *is);
        is.len() >= 2 && is_not.len() >= 2
    };
    if options.folds < 2 || options.hidden.is_empty() || !(0..options.folds).all(enough) {
        let message = format!(
            "{} pictures to train on, {} of them unsafe; expected some of both in each of {} folds: label more pictures",
            training.len(),
            training.iter().filter(|example| example.is_unsafe()).count(),
            options.folds
        );
        return Err(StudentError::new(StudentErrorKind::Labels, message));
    }
    let rows: Vec<Row> = training.iter().map(|example| Row::new(&head, example)).collect();
    let mut best: Option<(f64, Vec<Member>)> = None;
    let mut choices = Vec::new();
    for hidden in &options.hidden {
        let members = members(&rows, &folds, *hidden, options);
        let scores: Vec<(f64, bool)> = rows
            .iter()
            .zip(&folds)
            .map(|(row, fold)| {
                let logits = members[*fold].logits(&row.x);
                (largest(logits.into_iter().map(f64::from)), row.is_unsafe())
            })
            .collect();
        let sent_on = sent_at(&scores, options.goal.recall);
        choices.push(Choice { hidden: *hidden, sent_on });
        if best.as_ref().is_none_or(|(least, _)| sent_on < *least) {
            best = Some((sent_on, members));
        }
    }
    let head = Head { members: best.map(|(_, members)| members).unwrap_or_default(), ..head };
    let scores = held_out
        .iter()
        .map(|example| Ok((score(&head, &example.views)?, example.is_unsafe())))
        .collect::<Result<Vec<_>>>()?;
    let calibration = calibrate(&scores, options.goal)?;
    let trained =
        (training.len() as u64, training.iter().filter(|example| example.is_unsafe()).count() as u64);
    Ok(Distilled { head, calibration, choices, trained })
}

/// The score of a picture: that of its most suspicious view.
pub(crate) fn score(head: &Head, views: &[Vec<f32>]) -> Result<f64> {
    views.iter().try_fold(f64::NEG_INFINITY, |most, view| Ok(most.max(head.score(view)?)))
}

/// The share of pictures at or over the highest threshold that keeps this share of the unsafe ones.
fn sent_at(scores: &[(f64, bool)], recall: f64) -> f64 {
    let mut positives: Vec<f64> = scores.iter().filter(|(_, is)| *is).map(|(score, _)| *score).collect();
    positives.sort_by(f64::total_cmp);
    let missed = ((1.0 - recall) * positives.len() as f64).floor() as usize;
    let threshold = positives.get(missed).copied().unwrap_or(f64::NEG_INFINITY);
    count_at(scores, threshold, 0.5).sent_on
}

/// A head without members, by the mean and the deviation of the features.
fn standardised(training: &[&Example]) -> Result<Head> {
    let rows: Vec<&Vec<f32>> = training.iter().filter_map(|example| example.views.first()).collect();
    let width = rows.first().map_or(0, |row| row.len());
    if width == 0 || rows.len() != training.len() || rows.iter().any(|row| row.len() != width) {
        let message = "expected pictures with features of one number; label some pictures first";
        return Err(StudentError::new(StudentErrorKind::Labels, message));
    }
    let count = rows.len() as f64;
    let mean: Vec<f64> =
        (0..width).map(|at| rows.iter().map(|row| f64::from(row[at])).sum::<f64>() / count).collect();
    let deviation = (0..width).map(|at| {
        let squares: f64 = rows.iter().map(|row| (f64::from(row[at]) - mean[at]).powi(2)).sum();
        ((squares / count).sqrt() as f32).max(LEAST_DEVIATION)
    });
    let deviation = deviation.collect();
    let head = Head { mean: mean.iter().map(|mean| *mean as f32).collect(), deviation, members: Vec::new() };
    if head.mean.iter().chain(&head.deviation).all(|value| value.is_finite()) {
        Ok(head)
    } else {
        let message = "a feature that is not a number; the encoder is broken";
        Err(StudentError::new(StudentErrorKind::NotANumber, message))
    }
}

/// Standardised features and a target for each rule.
struct Row {
    x: Vec<f32>,
    targets: Vec<f32>,
}

impl Row {
    fn new(head: &Head, example: &Example) -> Self {
        let x = example.views.first().map(|view| head.standardise(view)).unwrap_or_default();
        let target = |is: bool| f32::from(u8::from(is));
        Self { x, targets: example.violated.iter().map(|violated| target(*violated)).collect() }
    }

    fn is_unsafe(&self) -> bool {
        self.targets.contains(&1.0)
    }
}

/// One member for each fold, trained on the others; at the same time, each on its own from its own seed.
fn members(rows: &[Row], folds: &[usize], hidden: usize, options: &TrainOptions) -> Vec<Member> {
    let train = |fold: usize| {
        let own: Vec<&Row> =
            rows.iter().zip(folds).filter(|(_, own)| **own != fold).map(|(row, _)| row).collect();
        let seed = options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((hidden as u64) << 32) ^ fold as u64;
        Trainer::new(&own, hidden, seed).train(&own, options.epochs)
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..options.folds).map(|fold| scope.spawn(move || train(fold))).collect();
        // A thread that panics is a bug, which is not to be passed over.
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// A block of numbers with what Adam knows of them.
struct Block {
    values: Vec<f32>,
    gradient: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    decays: bool,
}

impl Block {
    fn new(values: Vec<f32>, decays: bool) -> Self {
        let zeros = vec![0.0; values.len()];
        Self { gradient: zeros.clone(), first: zeros.clone(), second: zeros, values, decays }
    }

    /// A step of AdamW, and a new gradient of zeros.
    fn step(&mut self, rate: f32, number: i32) {
        const FIRST: f32 = 0.9;
        const SECOND: f32 = 0.999;
        let (fix_first, fix_second) = (1.0 - FIRST.powi(number), 1.0 - SECOND.powi(number));
        let decay = if self.decays { 1.0 - rate * DECAY } else { 1.0 };
        let state = self.first.iter_mut().zip(&mut self.second);
        for ((value, gradient), (first, second)) in self.values.iter_mut().zip(&mut self.gradient).zip(state)
        {
            *first = FIRST * *first + (1.0 - FIRST) * *gradient;
            *second = SECOND * *second + (1.0 - SECOND) * *gradient * *gradient;
            *value = *value * decay - rate * (*first / fix_first) / ((*second / fix_second).sqrt() + 1e-8);
            *gradient = 0.0;
        }
    }
}

struct Trainer {
    random: ChaCha8Rng,
    width: usize,
    outputs: usize,
    /// Weights and biases of the hidden layer.
    hidden: Option<(Block, Block)>,
    output: Block,
    bias: Block,
    /// For each output what a picture of each side weighs, the negative side first.
    weights: Vec<[f32; 2]>,
}

impl Trainer {
    fn new(rows: &[&Row], hidden: usize, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (width, outputs) = (rows[0].x.len(), rows[0].targets.len());
        let inner = if hidden == 0 { width } else { hidden };
        let layer = (hidden > 0).then(|| {
            (
                Block::new(uniform(&mut random, hidden * width, width), true),
                Block::new(vec![0.0; hidden], false),
            )
        });
        let output = Block::new(uniform(&mut random, outputs * inner, inner), true);
        let count = rows.len() as f32;
        let weight = |output: usize| {
            let positive: f32 = rows.iter().map(|row| row.targets[output]).sum();
            let side = |own: f32| (count / (2.0 * own.max(1.0))).min(MOST_WEIGHT);
            [side(count - positive), side(positive)]
        };
        let weights = (0..outputs).map(weight).collect();
        Self {
            random,
            width,
            outputs,
            hidden: layer,
            output,
            bias: Block::new(vec![0.0; outputs], false),
            weights,
        }
    }

    fn train(mut self, rows: &[&Row], epochs: usize) -> Member {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let batches = rows.len().div_ceil(BATCH);
        let steps = (epochs * batches).max(1) as f32;
        let mut number = 0_i32;
        for _ in 0..epochs {
            order.shuffle(&mut self.random);
            for batch in order.chunks(BATCH) {
                for index in batch {
                    self.learn(rows[*index], 1.0 / batch.len() as f32);
                }
                number += 1;
                let rate = RATE * 0.5 * (1.0 + (std::f32::consts::PI * number as f32 / steps).cos());
                let layer = self.hidden.iter_mut().flat_map(|(weights, bias)| [weights, bias]);
                layer.chain([&mut self.output, &mut self.bias]).for_each(|block| block.step(rate, number));
            }
        }
        Member {
            hidden: self.hidden.map(|(weights, bias)| (weights.values, bias.values)),
            output: self.output.values,
            bias: self.bias.values,
        }
    }

    /// Adds the gradient of one picture's loss, the mean of its outputs' weighted cross-entropies.
    fn learn(&mut self, row: &Row, share: f32) {
        let mut inner = Vec::new();
        if let Some((weights, bias)) = &self.hidden {
            crate::head::affine(&weights.values, &bias.values, &row.x, &mut inner);
            let keep = (1.0 - DROPOUT) as f32;
            for value in &mut inner {
                let kept = self.random.random_bool(1.0 - DROPOUT);
                *value = if kept { value.max(0.0) / keep } else { 0.0 };
            }
        }
        let x = if self.hidden.is_some() { &inner } else { &row.x };
        let mut logits = Vec::new();
        crate::head::affine(&self.output.values, &self.bias.values, x, &mut logits);
        let mut back = vec![0.0; inner.len()];
        for (output, logit) in logits.iter().enumerate() {
            let target = row.targets[output];
            let weight = self.weights[output][usize::from(target > 0.5)];
            let error = weight * share * (1.0 / (1.0 + (-logit).exp()) - target) / self.outputs as f32;
            self.bias.gradient[output] += error;
            let at = output * x.len()..(output + 1) * x.len();
            add(&mut self.output.gradient[at.clone()], x, error);
            if !back.is_empty() {
                add(&mut back, &self.output.values[at], error);
            }
        }
        if let Some((weights, bias)) = &mut self.hidden {
            for (unit, (value, error)) in inner.iter().zip(&back).enumerate() {
                if *value > 0.0 {
                    let error = error / (1.0 - DROPOUT) as f32;
                    bias.gradient[unit] += error;
                    add(&mut weights.gradient[unit * self.width..(unit + 1) * self.width], &row.x, error);
                }
            }
        }
    }
}

fn add(sum: &mut [f32], values: &[f32], factor: f32) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += factor * value;
    }
}

/// Numbers of a layer with so many inputs, as PyTorch's `Linear` begins with.
fn uniform(random: &mut impl Rng, count: usize, inputs: usize) -> Vec<f32> {
    let most = 1.0 / (inputs as f32).sqrt();
    (0..count).map(|_| random.random_range(-most..most)).collect()
}
