//! From labelled features to the looks of a student: members by cross-validation, then a threshold on what was held out.
//!
//! A cosine schedule of rates, and everything random from one seed. Every output has the same weight on its two sides, however
//! rare one of them is.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::calibrate::{Calibration, Goal, calibrate, count_at, nine_digits};
use crate::error::{Result, StudentError, StudentErrorKind};
use crate::head::{Head, Member, largest};
use crate::looks::{Band, Closer, Look, Looks};
use crate::network::{Network, Pass};

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

/// Gives the features of the parts of examples, one list for each of the places that it is given.
pub type PartsOf<'a, E> = &'a mut dyn FnMut(&[usize]) -> std::result::Result<Vec<Vec<Vec<f32>>>, E>;

/// How a student is trained.
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
    /// Passes over the pictures for the first look.
    pub epochs: usize,
    /// The closer look, if it is to have one.
    pub closer: CloserOptions,
    /// What has to be kept.
    pub goal: Goal,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            held_out: 0.35,
            folds: 4,
            hidden: vec![0, 128],
            epochs: 30,
            closer: CloserOptions::default(),
            goal: Goal::default(),
        }
    }
}

/// How the closer look is trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloserOptions {
    /// Hidden units.
    pub hidden: usize,
    /// Passes over the pictures: ten times as long as one of the first look.
    pub epochs: usize,
    /// Part of the unsafe pictures that may be missed which the first look may miss alone, 0 to 1, exclusive.
    pub share_of_misses: f64,
    /// Share of the safe pictures that the first look may send on, 0 to 1, exclusive.
    pub safe_sent: f64,
}

impl Default for CloserOptions {
    /// What made a fifth of the pictures worth a closer look and cost nothing of what it gains (docs/student.md).
    fn default() -> Self {
        Self { hidden: 128, epochs: 12, share_of_misses: 0.2, safe_sent: 0.02 }
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

/// The looks, their threshold, and how they were found.
#[derive(Debug, Clone)]
pub struct Distilled {
    /// The looks.
    pub looks: Looks,
    /// Share of the held-out pictures that a closer look is taken at, 0 to 1.
    pub looked_closer: f64,
    /// The threshold and what it does on the held-out pictures.
    pub calibration: Calibration,
    /// The held-out pictures by their place among the examples, and whether each goes on to the judge.
    pub held_out: Vec<(usize, bool)>,
    /// What cross-validation said.
    pub choices: Vec<Choice>,
    /// Pictures that were trained on, and those of them that are unsafe.
    pub trained: (u64, u64),
}

/// Scores of pictures, and whether the judge calls each unsafe.
type Scores = Vec<(f64, bool)>;

const BATCH: usize = 64;
const RATE: f32 = 1e-3;
/// Features that never vary are divided by this.
const LEAST_DEVIATION: f32 = 1e-6;
/// A score that none exceeds.
const MOST_SCORE: f64 = 1e9;
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

/// Trains a student on `examples` of one width, with a label for each of the rules.
///
/// `parts` gives the features of the parts of examples, by their places, for a closer look; without it there is none. It is
/// asked for those that the first look does not clear, from which alone the closer look learns, and for the held-out ones
/// that are looked at closer.
///
/// # Errors
/// `Labels` if there are too few pictures, or too few unsafe ones, for the folds or the goal; what `parts` answers.
pub fn distill<E: From<StudentError>>(
    examples: &[Example],
    options: &TrainOptions,
    mut parts: Option<PartsOf<'_, E>>,
) -> std::result::Result<Distilled, E> {
    let (held_out, training): (Vec<usize>, Vec<usize>) =
        (0..examples.len()).partition(|index| is_held_out(&examples[*index].key, options));
    let fold = |index: &usize| {
        (share_of(&examples[*index].key, options.seed ^ 0xf01d) * options.folds as f64) as usize
    };
    let folds: Vec<usize> = training.iter().map(fold).collect();
    let shown: Vec<&Example> = training.iter().map(|index| &examples[*index]).collect();
    check(&shown, &folds, options)?;
    let (first, scores, choices) = first_look(&shown, &folds, options)?;
    let mut looks = Looks { first, closer: None };
    if let Some(parts) = &mut parts {
        let band = band(&scores, options);
        let clears = |score: f64| band.clear_below.is_some_and(|below| score < below);
        let of = |places: &[usize]| {
            let examples: Vec<&Example> = places.iter().map(|at| shown[*at]).collect();
            let folds: Vec<usize> = places.iter().map(|at| folds[*at]).collect();
            (examples, folds)
        };
        let mut unclear: Vec<usize> = (0..shown.len()).filter(|at| !clears(scores[*at].0)).collect();
        let (few, of_few) = of(&unclear);
        if check(&few, &of_few, options).is_err() {
            // Too few to learn from alone.
            unclear = (0..shown.len()).collect();
        }
        let of_parts = parts(&unclear.iter().map(|at| training[*at]).collect::<Vec<usize>>())?;
        let (unclear, folds) = of(&unclear);
        looks.closer = Some(closer_look(&unclear, &of_parts, &folds, band, options)?);
    }
    let (calibration, held) = hold_against(&mut looks, examples, &held_out, options, parts)?;
    let unsure = held.iter().filter(|look| looks.closer.is_some() && matches!(look, Look::Score(_))).count();
    let looked_closer = nine_digits(unsure as f64 / held.len().max(1) as f64);
    let goes_on = |look: &Look| look.rank() >= calibration.threshold;
    let held_out = held_out.into_iter().zip(held.iter().map(goes_on)).collect();
    let trained = (shown.len() as u64, shown.iter().filter(|example| example.is_unsafe()).count() as u64);
    Ok(Distilled { looks, looked_closer, calibration, held_out, choices, trained })
}

/// Finds the threshold on the held-out pictures, and what the looks make of each.
fn hold_against<E: From<StudentError>>(
    looks: &mut Looks,
    examples: &[Example],
    held_out: &[usize],
    options: &TrainOptions,
    mut parts: Option<PartsOf<'_, E>>,
) -> std::result::Result<(Calibration, Vec<Look>), E> {
    loop {
        let mut unsure = Vec::new();
        for index in held_out {
            if looks.looks_closer(&examples[*index].views)? {
                unsure.push(*index);
            }
        }
        let of_parts = match &mut parts {
            Some(parts) => parts(&unsure)?,
            None => Vec::new(),
        };
        let mut of_parts = of_parts.into_iter();
        let look = |index: &usize| {
            let parts = || Ok::<_, StudentError>(of_parts.next().unwrap_or_default());
            looks.look(&examples[*index].views, parts)
        };
        let held = held_out.iter().map(look).collect::<Result<Vec<Look>>>()?;
        let ranks: Vec<(f64, bool)> = held
            .iter()
            .zip(held_out)
            .map(|(look, index)| (look.rank(), examples[*index].is_unsafe()))
            .collect();
        match (calibrate(&ranks, options.goal)?, &mut looks.closer) {
            (Some(calibration), _) => return Ok((calibration, held)),
            // The first look alone would miss too much here: it clears nothing.
            (None, Some(Closer { band: Band { clear_below: below @ Some(_), .. }, .. })) => *below = None,
            (None, _) => return Err(no_threshold().into()),
        }
    }
}

fn no_threshold() -> StudentError {
    StudentError::new(StudentErrorKind::Labels, "no threshold reaches the goal: label more pictures")
}

/// Refuses what no fold could be trained on.
fn check(training: &[&Example], folds: &[usize], options: &TrainOptions) -> Result<()> {
    let enough = |fold: usize| {
        let own = training.iter().zip(folds).filter(|(_, own)| **own != fold).map(|(example, _)| example);
        let (is, is_not): (Vec<bool>, Vec<bool>) = own.map(|example| example.is_unsafe()).partition(|is| *is);
        is.len() >= 2 && is_not.len() >= 2
    };
    if options.folds >= 2 && !options.hidden.is_empty() && (0..options.folds).all(enough) {
        return Ok(());
    }
    let message = format!(
        "{} pictures to train on, {} of them unsafe; expected some of both in each of {} folds: label more pictures",
        training.len(),
        training.iter().filter(|example| example.is_unsafe()).count(),
        options.folds
    );
    Err(StudentError::new(StudentErrorKind::Labels, message))
}

/// The first look, the score that it gives each picture by the member that was not trained on it, and how its number of
/// hidden units was chosen.
fn first_look(
    training: &[&Example],
    folds: &[usize],
    options: &TrainOptions,
) -> Result<(Head, Scores, Vec<Choice>)> {
    let head = standardised(training.iter().filter_map(|example| example.views.first()), training.len())?;
    let rows: Vec<Row> = training.iter().map(|example| Row::new(example, &head)).collect();
    let mut best: Option<(f64, Vec<Member>, Scores)> = None;
    let mut choices = Vec::new();
    for hidden in &options.hidden {
        let plan = Plan { hidden: *hidden, epochs: options.epochs, seed: options.seed };
        let members: Vec<Member> = members(&rows, folds, plan).into_iter().map(|(whole, _)| whole).collect();
        let scores: Scores = rows
            .iter()
            .zip(folds)
            .map(|(row, fold)| {
                let logits = members[*fold].logits(&row.x);
                (largest(logits.into_iter().map(f64::from)), row.is_unsafe())
            })
            .collect();
        let sent_on = sent_at(&scores, options.goal.recall);
        choices.push(Choice { hidden: *hidden, sent_on });
        if best.as_ref().is_none_or(|(least, ..)| sent_on < *least) {
            best = Some((sent_on, members, scores));
        }
    }
    let (members, scores) = best.map(|(_, members, scores)| (members, scores)).unwrap_or_default();
    Ok((Head { members, ..head }, scores, choices))
}

/// Which scores of the first look are to decide, by those that it gave pictures that it was not trained on.
fn band(scores: &[(f64, bool)], options: &TrainOptions) -> Band {
    let sorted = |side: bool| {
        let mut scores: Vec<f64> =
            scores.iter().filter(|(_, is)| *is == side).map(|(score, _)| *score).collect();
        scores.sort_by(f64::total_cmp);
        scores
    };
    let (positives, negatives) = (sorted(true), sorted(false));
    let CloserOptions { share_of_misses, safe_sent, .. } = options.closer;
    let missed = ((1.0 - options.goal.recall) * share_of_misses * positives.len() as f64) as usize;
    let below = (missed > 0).then(|| positives.get(missed).copied()).flatten();
    let from = negatives.get(((1.0 - safe_sent) * negatives.len() as f64) as usize).copied();
    Band { clear_below: below.map(nine_digits), send_from: nine_digits(from.unwrap_or(MOST_SCORE)) }
}

/// The closer look, from examples and their parts.
fn closer_look(
    training: &[&Example],
    of_parts: &[Vec<Vec<f32>>],
    folds: &[usize],
    band: Band,
    options: &TrainOptions,
) -> Result<Closer> {
    if of_parts.len() != training.len() || of_parts.iter().any(Vec::is_empty) {
        let message =
            format!("parts of {} pictures, expected some of each of {}", of_parts.len(), training.len());
        return Err(StudentError::new(StudentErrorKind::Labels, message));
    }
    let whole = standardised(training.iter().filter_map(|example| example.views.first()), training.len())?;
    let count = of_parts.iter().map(Vec::len).sum();
    let parts = standardised(of_parts.iter().flatten(), count)?;
    let rows: Vec<Row> = training
        .iter()
        .zip(of_parts)
        .map(|(example, own)| {
            let own = own.iter().map(|part| parts.standardise(part)).collect();
            Row { parts: own, ..Row::new(example, &whole) }
        })
        .collect();
    let CloserOptions { hidden, epochs, .. } = options.closer;
    let plan = Plan { hidden, epochs, seed: options.seed ^ 0xc105 };
    let (of_whole, of_parts): (Vec<Member>, Vec<Option<Member>>) =
        members(&rows, folds, plan).into_iter().unzip();
    Ok(Closer {
        whole: Head { members: of_whole, ..whole },
        parts: Head { members: of_parts.into_iter().flatten().collect(), ..parts },
        band,
    })
}

/// The share of pictures at or over the highest threshold that keeps this share of the unsafe ones.
fn sent_at(scores: &[(f64, bool)], recall: f64) -> f64 {
    let mut positives: Vec<f64> = scores.iter().filter(|(_, is)| *is).map(|(score, _)| *score).collect();
    positives.sort_by(f64::total_cmp);
    let missed = ((1.0 - recall) * positives.len() as f64).floor() as usize;
    let threshold = positives.get(missed).copied().unwrap_or(f64::NEG_INFINITY);
    count_at(scores, threshold, 0.5).sent_on
}

/// A head without members, by the mean and the deviation of `expected` rows of features.
fn standardised<'a>(rows: impl Iterator<Item = &'a Vec<f32>>, expected: usize) -> Result<Head> {
    let rows: Vec<&Vec<f32>> = rows.collect();
    let width = rows.first().map_or(0, |row| row.len());
    if width == 0 || rows.len() != expected || rows.iter().any(|row| row.len() != width) {
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
    /// Of each part; none for the first look.
    parts: Vec<Vec<f32>>,
    targets: Vec<f32>,
}

impl Row {
    fn new(example: &Example, whole: &Head) -> Self {
        let x = example.views.first().map(|view| whole.standardise(view)).unwrap_or_default();
        let target = |is: bool| f32::from(u8::from(is));
        let targets = example.violated.iter().map(|violated| target(*violated)).collect();
        Self { x, parts: Vec::new(), targets }
    }

    fn is_unsafe(&self) -> bool {
        self.targets.contains(&1.0)
    }
}

/// How one look's members are trained.
#[derive(Debug, Clone, Copy)]
struct Plan {
    hidden: usize,
    epochs: usize,
    seed: u64,
}

/// One member for each fold, trained on the others; at the same time, each on its own from its own seed. With one for the
/// parts, where the rows have some.
fn members(rows: &[Row], folds: &[usize], plan: Plan) -> Vec<(Member, Option<Member>)> {
    let train = |fold: usize| {
        let own: Vec<&Row> =
            rows.iter().zip(folds).filter(|(_, own)| **own != fold).map(|(row, _)| row).collect();
        let seed = plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((plan.hidden as u64) << 32) ^ fold as u64;
        Trainer::new(&own, plan.hidden, seed).train(&own, plan.epochs)
    };
    let count = folds.iter().max().map_or(0, |last| last + 1);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..count).map(|fold| scope.spawn(move || train(fold))).collect();
        // A thread that panics is a bug, which is not to be passed over.
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

struct Trainer {
    random: ChaCha8Rng,
    whole: Network,
    parts: Option<Network>,
    /// For each output what a picture of each side weighs, the negative side first.
    weights: Vec<[f32; 2]>,
}

impl Trainer {
    fn new(rows: &[&Row], hidden: usize, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let outputs = rows[0].targets.len();
        let whole = Network::new(&mut random, rows[0].x.len(), hidden, outputs);
        let part = rows[0].parts.first();
        let parts = part.map(|part| Network::new(&mut random, part.len(), hidden, outputs));
        let count = rows.len() as f32;
        let weight = |output: usize| {
            let positive: f32 = rows.iter().map(|row| row.targets[output]).sum();
            let side = |own: f32| (count / (2.0 * own.max(1.0))).min(MOST_WEIGHT);
            [side(count - positive), side(positive)]
        };
        Self { random, whole, parts, weights: (0..outputs).map(weight).collect() }
    }

    fn train(mut self, rows: &[&Row], epochs: usize) -> (Member, Option<Member>) {
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
                self.whole.step(rate, number);
                self.parts.iter_mut().for_each(|parts| parts.step(rate, number));
            }
        }
        (self.whole.into_member(), self.parts.map(Network::into_member))
    }

    /// Adds the gradient of one picture's loss, the mean of its outputs' weighted cross-entropies.
    fn learn(&mut self, row: &Row, share: f32) {
        let whole = self.whole.forward(&row.x, &mut self.random);
        let parts: Vec<Pass> = match &self.parts {
            Some(network) => row.parts.iter().map(|part| network.forward(part, &mut self.random)).collect(),
            None => Vec::new(),
        };
        let outputs = whole.logits.len();
        // The most suspicious part of each output, the only one that learns from it.
        let most: Vec<usize> = (0..outputs)
            .map(|output| {
                let logit = |part: &usize| parts[*part].logits[output];
                (0..parts.len()).max_by(|a, b| logit(a).total_cmp(&logit(b))).unwrap_or_default()
            })
            .collect();
        let errors: Vec<f32> = (0..outputs)
            .map(|output| {
                let of_part = parts.get(most[output]).map_or(0.0, |pass| pass.logits[output]);
                let (logit, target) = (whole.logits[output] + of_part, row.targets[output]);
                let weight = self.weights[output][usize::from(target > 0.5)];
                weight * share * (1.0 / (1.0 + (-logit).exp()) - target) / outputs as f32
            })
            .collect();
        self.whole.backward(&row.x, &whole, &errors);
        let Some(network) = &mut self.parts else { return };
        for (index, pass) in parts.iter().enumerate() {
            let own: Vec<f32> = most
                .iter()
                .zip(&errors)
                .map(|(most, error)| if *most == index { *error } else { 0.0 })
                .collect();
            if own.iter().any(|error| *error != 0.0) {
                network.backward(&row.parts[index], pass, &own);
            }
        }
    }
}
