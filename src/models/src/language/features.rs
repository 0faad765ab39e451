//! What the decoder reads in the place of a picture.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::decoder::{Decoder, Entering};

/// What the language model sees of a picture.
#[derive(Debug, Clone)]
pub(crate) struct Features {
    /// One row for each place of a feature, `[features, hidden]`.
    pub(crate) tokens: Tensor,
    /// Added to the residual stream at these places after each of the first layers (the deepstack of Qwen3-VL), of the
    /// same shape; usually none.
    pub(crate) deep: Vec<Tensor>,
}

impl From<Tensor> for Features {
    fn from(tokens: Tensor) -> Self {
        Self { tokens, deep: Vec::new() }
    }
}

/// What `ids` enter the decoder as, with the features of a picture at the image tokens within `picture`.
pub(super) fn entering(
    decoder: &Decoder,
    ids: &[u32],
    picture: Range<usize>,
    image_token: u32,
    features: &Features,
) -> Result<Entering> {
    let places = places(ids, picture, image_token);
    let count: usize = places.iter().filter(|run| run.feature).map(|run| run.tokens.len()).sum();
    if features.tokens.dim(0)? != count {
        candle_core::bail!("{} features of a picture that has {count} tokens", features.tokens.dim(0)?);
    }
    let embeddings = fill(&places, &features.tokens, |run| decoder.embed(&ids[run]))?;
    let nothing = |run: Range<usize>| {
        Tensor::zeros((run.len(), embeddings.dim(1)?), embeddings.dtype(), embeddings.device())
    };
    let deep = features.deep.iter().map(|deep| fill(&places, deep, nothing)).collect::<Result<_>>()?;
    Ok(Entering { embeddings, deep })
}

/// Tokens beside each other that are all features, or all text.
struct Run {
    tokens: Range<usize>,
    feature: bool,
}

fn places(ids: &[u32], picture: Range<usize>, image_token: u32) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (at, &id) in ids.iter().enumerate() {
        let feature = id == image_token && picture.contains(&at);
        match runs.last_mut().filter(|run| run.feature == feature) {
            Some(run) => run.tokens.end = at + 1,
            None => runs.push(Run { tokens: at..at + 1, feature }),
        }
    }
    runs
}

/// Rows of `features` in the runs of features, of `text` in the others.
fn fill(runs: &[Run], features: &Tensor, text: impl Fn(Range<usize>) -> Result<Tensor>) -> Result<Tensor> {
    let mut taken = 0;
    let parts = runs.iter().map(|run| {
        if run.feature {
            taken += run.tokens.len();
            features.narrow(0, taken - run.tokens.len(), run.tokens.len())
        } else {
            text(run.tokens.clone())
        }
    });
    Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)
}
