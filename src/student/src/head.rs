//! The network: a few members of the same shape whose logits are averaged.

use crate::error::{Result, StudentError, StudentErrorKind};

/// One network: standardised features, perhaps a hidden layer with ReLU, a logit for each output.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Weights and biases of the hidden layer, row by row, one row a unit; none for a logistic regression.
    pub hidden: Option<(Vec<f32>, Vec<f32>)>,
    /// Weights, one row an output.
    pub output: Vec<f32>,
    /// Biases, one an output.
    pub bias: Vec<f32>,
}

/// The members and what their features are standardised by.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// Mean of each feature.
    pub mean: Vec<f32>,
    /// Standard deviation of each feature, positive.
    pub deviation: Vec<f32>,
    /// The members, at least one.
    pub members: Vec<Member>,
}

/// A vector of rows times a vector, and a bias.
pub(crate) fn affine(rows: &[f32], bias: &[f32], x: &[f32], out: &mut Vec<f32>) {
    out.clear();
    out.extend(rows.chunks_exact(x.len().max(1)).zip(bias).map(|(row, bias)| bias + dot(row, x)));
}

/// In eight partial sums, which is as fast as it gets and always the same order.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (whole_a, rest_a) = a.as_chunks::<8>();
    let (whole_b, rest_b) = b.as_chunks::<8>();
    let mut sums = [0f32; 8];
    for (a, b) in whole_a.iter().zip(whole_b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// The largest, or what is no number if one of them is none: a maximum would pass it over.
pub(crate) fn largest(logits: impl Iterator<Item = f64>) -> f64 {
    logits.fold(f64::NEG_INFINITY, |most, logit| {
        if logit.is_nan() {
            logit
        } else if most.is_nan() {
            most
        } else {
            most.max(logit)
        }
    })
}

impl Head {
    /// Number of features.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.members.first().map_or(0, |member| member.bias.len())
    }

    /// Features as the members take them.
    pub(crate) fn standardise(&self, features: &[f32]) -> Vec<f32> {
        let scaled = features.iter().zip(self.mean.iter().zip(&self.deviation));
        scaled.map(|(value, (mean, deviation))| (value - mean) / deviation).collect()
    }

    /// A logit for each output, the mean of the members'.
    ///
    /// # Errors
    /// Features of another number, or one that is not a number.
    pub(crate) fn logits(&self, features: &[f32]) -> Result<Vec<f64>> {
        if features.len() != self.width() {
            let message = format!(
                "{} features, expected {}; take the encoder of the student",
                features.len(),
                self.width()
            );
            return Err(StudentError::new(StudentErrorKind::Mismatch, message));
        }
        // A rectified unit would make 0 of what is no number, and a score of that.
        if let Some(value) = features.iter().find(|value| !value.is_finite()) {
            let message = format!("a feature of the picture is {value}: no answer; the encoder is broken");
            return Err(StudentError::new(StudentErrorKind::NotANumber, message));
        }
        let x = self.standardise(features);
        let mut sums = vec![0.0; self.outputs()];
        for member in &self.members {
            let logits = member.logits(&x);
            sums.iter_mut().zip(logits).for_each(|(sum, logit)| *sum += f64::from(logit));
        }
        Ok(sums.into_iter().map(|sum| sum / self.members.len() as f64).collect())
    }
}

impl Member {
    /// A logit for each output, of standardised features.
    pub(crate) fn logits(&self, x: &[f32]) -> Vec<f32> {
        let mut logits = Vec::new();
        match &self.hidden {
            None => affine(&self.output, &self.bias, x, &mut logits),
            Some((weights, bias)) => {
                let mut inner = Vec::new();
                affine(weights, bias, x, &mut inner);
                inner.iter_mut().for_each(|value| *value = value.max(0.0));
                affine(&self.output, &self.bias, &inner, &mut logits);
            }
        }
        logits
    }

    /// Number of hidden units.
    pub fn units(&self) -> usize {
        self.hidden.as_ref().map_or(0, |(_, bias)| bias.len())
    }
}
