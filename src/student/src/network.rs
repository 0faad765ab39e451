//! A network while it is trained: AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), dropout on
//! hidden units, and gradients by hand.

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use crate::head::{Member, affine};

const DECAY: f32 = 1e-2;
const DROPOUT: f64 = 0.2;

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

/// A member that learns.
pub(crate) struct Network {
    width: usize,
    /// Weights and biases of the hidden layer.
    hidden: Option<(Block, Block)>,
    output: Block,
    bias: Block,
}

/// What a network made of features, and what its gradient needs.
pub(crate) struct Pass {
    /// Hidden units after dropout; none without a hidden layer.
    inner: Vec<f32>,
    /// A logit for each output.
    pub(crate) logits: Vec<f32>,
}

impl Network {
    /// Of `hidden` units, 0 for a logistic regression.
    pub(crate) fn new(random: &mut ChaCha8Rng, width: usize, hidden: usize, outputs: usize) -> Self {
        let inner = if hidden == 0 { width } else { hidden };
        let layer = (hidden > 0).then(|| {
            (Block::new(uniform(random, hidden * width, width), true), Block::new(vec![0.0; hidden], false))
        });
        let output = Block::new(uniform(random, outputs * inner, inner), true);
        Self { width, hidden: layer, output, bias: Block::new(vec![0.0; outputs], false) }
    }

    /// Logits of standardised features, with dropout.
    pub(crate) fn forward(&self, x: &[f32], random: &mut ChaCha8Rng) -> Pass {
        let (mut inner, mut logits) = (Vec::new(), Vec::new());
        if let Some((weights, bias)) = &self.hidden {
            affine(&weights.values, &bias.values, x, &mut inner);
            let keep = (1.0 - DROPOUT) as f32;
            for value in &mut inner {
                let kept = random.random_bool(1.0 - DROPOUT);
                *value = if kept { value.max(0.0) / keep } else { 0.0 };
            }
        }
        let last = if self.hidden.is_some() { &inner } else { x };
        affine(&self.output.values, &self.bias.values, last, &mut logits);
        Pass { inner, logits }
    }

    /// Adds the gradient of a loss whose derivative by each logit is `errors`.
    pub(crate) fn backward(&mut self, x: &[f32], pass: &Pass, errors: &[f32]) {
        let last = if self.hidden.is_some() { &pass.inner } else { x };
        let mut back = vec![0.0; pass.inner.len()];
        for (output, error) in errors.iter().enumerate().filter(|(_, error)| **error != 0.0) {
            self.bias.gradient[output] += error;
            let at = output * last.len()..(output + 1) * last.len();
            add(&mut self.output.gradient[at.clone()], last, *error);
            if !back.is_empty() {
                add(&mut back, &self.output.values[at], *error);
            }
        }
        let Some((weights, bias)) = &mut self.hidden else { return };
        for (unit, (value, error)) in pass.inner.iter().zip(&back).enumerate() {
            if *value > 0.0 {
                let error = error / (1.0 - DROPOUT) as f32;
                bias.gradient[unit] += error;
                add(&mut weights.gradient[unit * self.width..(unit + 1) * self.width], x, error);
            }
        }
    }

    /// Takes a step down the gradient, the `number`th from 1, and forgets it.
    pub(crate) fn step(&mut self, rate: f32, number: i32) {
        let layer = self.hidden.iter_mut().flat_map(|(weights, bias)| [weights, bias]);
        layer.chain([&mut self.output, &mut self.bias]).for_each(|block| block.step(rate, number));
    }

    /// What was learned.
    pub(crate) fn into_member(self) -> Member {
        Member {
            hidden: self.hidden.map(|(weights, bias)| (weights.values, bias.values)),
            output: self.output.values,
            bias: self.bias.values,
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
