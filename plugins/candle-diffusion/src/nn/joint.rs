//! What transformers over picture and text together are made of (MMDiT, Esser et al. 2024; diffusers 0.42.1,
//! `models/normalization.py`, `models/embeddings.py`, `models/attention.py`).
//!
//! Tokens travel as `(batch, tokens, width)`; a conditioning vector `(batch, width)` from time and pooled text scales,
//! shifts and gates them.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::attention::attend;
use super::layers::Linear;

/// Root mean square norm over the last dimension.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    /// Loads `weight` `(width)`.
    pub(crate) fn load(vb: &VarBuilder, width: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: vb.get(width, "weight")?, eps: eps as f32 })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::rms_norm(&x.contiguous()?, &self.weight, self.eps)
    }
}

/// Layer norm over the last dimension without weights of its own.
pub(crate) fn normalise(x: &Tensor) -> Result<Tensor> {
    /// Fixed in diffusers.
    const EPS: f32 = 1e-6;
    let width = x.dim(D::Minus1)?;
    let (ones, zeros) =
        (Tensor::ones(width, x.dtype(), x.device())?, Tensor::zeros(width, x.dtype(), x.device())?);
    candle_nn::ops::layer_norm(&x.contiguous()?, &ones, &zeros, EPS)
}

/// `x * (1 + scale) + shift`, with one `shift` and one `scale` `(batch, width)` for all tokens.
pub(crate) fn modulate(x: &Tensor, shift: &Tensor, scale: &Tensor) -> Result<Tensor> {
    x.broadcast_mul(&(scale.unsqueeze(1)? + 1.0)?)?.broadcast_add(&shift.unsqueeze(1)?)
}

/// `x + gate * change`, with one `gate` `(batch, width)` for all tokens.
pub(crate) fn add_gated(x: &Tensor, gate: &Tensor, change: &Tensor) -> Result<Tensor> {
    x + change.broadcast_mul(&gate.unsqueeze(1)?)?
}

/// Shifts, scales and gates made from the conditioning vector.
#[derive(Debug)]
pub(crate) struct Modulation(Linear);

impl Modulation {
    /// Loads `linear`, which makes `parts` vectors of `width`.
    pub(crate) fn load(vb: &VarBuilder, width: usize, parts: usize) -> Result<Self> {
        Ok(Self(Linear::load(&vb.pp("linear"), width, parts * width)?))
    }

    /// The `N` vectors `(batch, width)` for a conditioning vector; `N` is the number of parts it was loaded with.
    pub(crate) fn forward<const N: usize>(&self, conditioning: &Tensor) -> Result<[Tensor; N]> {
        let parts = self.0.forward(&conditioning.silu()?)?.chunk(N, 1)?;
        parts.try_into().map_err(|parts: Vec<Tensor>| {
            candle_core::Error::Msg(format!("expected {N} parts of a modulation, found {}", parts.len()))
        })
    }
}

/// The last norm of a stream, whose scale comes before its shift (`AdaLayerNormContinuous`).
#[derive(Debug)]
pub(crate) struct FinalNorm(Modulation);

impl FinalNorm {
    pub(crate) fn load(vb: &VarBuilder, width: usize) -> Result<Self> {
        Ok(Self(Modulation::load(vb, width, 2)?))
    }

    pub(crate) fn forward(&self, x: &Tensor, conditioning: &Tensor) -> Result<Tensor> {
        let [scale, shift] = self.0.forward(conditioning)?;
        modulate(&normalise(x)?, &shift, &scale)
    }
}

/// Two layers around a GELU by hyperbolic tangent.
#[derive(Debug)]
pub(crate) struct FeedForward {
    expand: Linear,
    contract: Linear,
}

impl FeedForward {
    pub(crate) fn load(vb: &VarBuilder, width: usize) -> Result<Self> {
        /// Fixed in diffusers.
        const WIDENING: usize = 4;
        Ok(Self {
            expand: Linear::load(&vb.pp("net.0.proj"), width, WIDENING * width)?,
            contract: Linear::load(&vb.pp("net.2"), WIDENING * width, width)?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.contract.forward(&self.expand.forward(x)?.gelu()?)
    }
}

/// Two layers around a SiLU, from a vector to the width of a conditioning vector.
#[derive(Debug)]
pub(crate) struct Embedder {
    linear_1: Linear,
    linear_2: Linear,
}

impl Embedder {
    pub(crate) fn load(vb: &VarBuilder, input: usize, width: usize) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::load(&vb.pp("linear_1"), input, width)?,
            linear_2: Linear::load(&vb.pp("linear_2"), width, width)?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear_2.forward(&self.linear_1.forward(x)?.silu()?)
    }
}

/// Sines and cosines of falling frequency for each of `values`, `(values, width)`.
///
/// `cosines_first` and `shift` are `flip_sin_to_cos` and `downscale_freq_shift` of `get_timestep_embedding` in diffusers.
pub(crate) fn sinusoids(
    values: &[f64],
    width: usize,
    (cosines_first, shift): (bool, f64),
    device: &Device,
) -> Result<Tensor> {
    let half = width / 2;
    // In f32 step by step, as the reference: at timestep 1000 the rounding of a frequency shows.
    let gap = half as f32 - shift as f32;
    let mut all = Vec::with_capacity(values.len() * width);
    for value in values {
        let angle = |i: usize| *value as f32 * (-(10_000f64.ln() as f32) * i as f32 / gap).exp();
        let (sines, cosines) = ((0..half).map(|i| angle(i).sin()), (0..half).map(|i| angle(i).cos()));
        if cosines_first {
            all.extend(cosines.chain(sines))
        } else {
            all.extend(sines.chain(cosines))
        }
        // An odd width is filled up with a zero.
        all.resize(all.len() + width % 2, 0.0);
    }
    Tensor::from_vec(all, (values.len(), width), device)
}

/// The conditioning vector: time, pooled text and, for distilled models, guidance.
#[derive(Debug)]
pub(crate) struct TimeText {
    time: Embedder,
    text: Embedder,
    guidance: Option<Embedder>,
}

impl TimeText {
    pub(crate) fn load(vb: &VarBuilder, pooled: usize, width: usize, guidance: bool) -> Result<Self> {
        let embedder = |name: &str, input: usize| Embedder::load(&vb.pp(name), input, width);
        Ok(Self {
            time: embedder("timestep_embedder", SINUSOIDS)?,
            text: embedder("text_embedder", pooled)?,
            guidance: guidance.then(|| embedder("guidance_embedder", SINUSOIDS)).transpose()?,
        })
    }

    /// `(batch, width)` for a timestep of 0 to 1000, pooled text `(batch, ..)` and a guidance scale.
    pub(crate) fn forward(&self, timestep: f64, pooled: &Tensor, guidance: f64) -> Result<Tensor> {
        let sinusoids = |value: f64| {
            sinusoids(&[value], SINUSOIDS, (true, 0.0), pooled.device())?.to_dtype(pooled.dtype())
        };
        let mut time = self.time.forward(&sinusoids(timestep)?)?;
        if let Some(embedder) = &self.guidance {
            // Stretched as the timestep is, whose own unit is 1/1000.
            time = (time + embedder.forward(&sinusoids(guidance * 1000.0)?)?)?;
        }
        self.text.forward(pooled)?.broadcast_add(&time)
    }
}

/// Sines and cosines of a timestep; fixed in diffusers.
const SINUSOIDS: usize = 256;

/// Queries, keys and values of one stream, each `(batch, tokens, heads * head width)`.
pub(crate) struct Projected {
    query: Tensor,
    key: Tensor,
    value: Tensor,
}

/// The projections of one stream into an attention that it shares with others.
#[derive(Debug)]
pub(crate) struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
    query_norm: Option<RmsNorm>,
    key_norm: Option<RmsNorm>,
    heads: usize,
}

/// Names of a stream's projections and their norms.
pub(crate) type ProjectionNames = [&'static str; 5];

/// Those of the picture, or of a stream that attends to itself.
pub(crate) const PICTURE: ProjectionNames = ["to_q", "to_k", "to_v", "norm_q", "norm_k"];

/// Those of the text beside a picture.
pub(crate) const TEXT: ProjectionNames =
    ["add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"];

impl Projections {
    /// Loads projections from `width` to as much, with norms over each head if `normed`.
    pub(crate) fn load(
        vb: &VarBuilder,
        names: ProjectionNames,
        (width, heads): (usize, usize),
        normed: bool,
    ) -> Result<Self> {
        let [query, key, value, query_norm, key_norm] = names;
        let linear = |name: &str| Linear::load(&vb.pp(name), width, width);
        let norm = |name: &str| normed.then(|| RmsNorm::load(&vb.pp(name), width / heads, 1e-6)).transpose();
        Ok(Self {
            query: linear(query)?,
            key: linear(key)?,
            value: linear(value)?,
            query_norm: norm(query_norm)?,
            key_norm: norm(key_norm)?,
            heads,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Projected> {
        let normed = |x: Tensor, norm: &Option<RmsNorm>| -> Result<Tensor> {
            let Some(norm) = norm else { return Ok(x) };
            let (batch, tokens, width) = x.dims3()?;
            let heads = x.reshape((batch, tokens, self.heads, width / self.heads))?;
            norm.forward(&heads)?.reshape((batch, tokens, width))
        };
        Ok(Projected {
            query: normed(self.query.forward(x)?, &self.query_norm)?,
            key: normed(self.key.forward(x)?, &self.key_norm)?,
            value: self.value.forward(x)?,
        })
    }
}

/// Attention of all tokens of `streams` to all of them, in the streams' order, `(batch, tokens of all, width)`; `rope`
/// turns queries and keys.
pub(crate) fn attend_jointly(streams: &[Projected], heads: usize, rope: Option<&Rope>) -> Result<Tensor> {
    let joined = |part: fn(&Projected) -> &Tensor| match streams {
        [one] => Ok(part(one).clone()),
        all => Tensor::cat(&all.iter().map(part).collect::<Vec<_>>(), 1),
    };
    let (mut query, mut key) = (joined(|s| &s.query)?, joined(|s| &s.key)?);
    if let Some(rope) = rope {
        (query, key) = (rope.turn(&query, heads)?, rope.turn(&key, heads)?);
    }
    attend(&query, &key, &joined(|s| &s.value)?, heads)
}

/// Rotary positions: neighbouring values of a head are turned by an angle that grows with the token's place.
#[derive(Debug)]
pub(crate) struct Rope {
    /// `(tokens, head width / 2)`.
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// For tokens at `places` (a coordinate for each axis), where axis `i` turns `widths[i]` values of a head.
    pub(crate) fn new(places: &[Vec<f64>], widths: &[usize], dtype: DType, device: &Device) -> Result<Self> {
        /// Slowest wavelength, in multiples of 2 pi; fixed in diffusers.
        const THETA: f64 = 10_000.0;
        let half: usize = widths.iter().sum::<usize>() / 2;
        let mut angles = Vec::with_capacity(places.len() * half);
        for place in places {
            for (coordinate, width) in place.iter().zip(widths) {
                let turn = |i: usize| coordinate / THETA.powf(2.0 * i as f64 / *width as f64);
                angles.extend((0..width / 2).map(turn));
            }
        }
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|angle| f(*angle) as f32).collect();
            Tensor::from_vec(values, (places.len(), half), device)?.to_dtype(dtype)
        };
        Ok(Self { cos: table(f64::cos)?, sin: table(f64::sin)? })
    }

    fn turn(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let split = x.reshape((batch, tokens, heads, width / heads))?.transpose(1, 2)?.contiguous()?;
        let turned = candle_nn::rotary_emb::rope_i(&split, &self.cos, &self.sin)?;
        turned.transpose(1, 2)?.reshape((batch, tokens, width))
    }
}

/// Patches of `side` x `side` of `(batch, channels, height, width)` as tokens `(batch, patches, channels * side * side)`;
/// the sides are multiples of `side`.
pub(crate) fn to_patches(x: &Tensor, side: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let (rows, columns) = (height / side, width / side);
    x.reshape(&[batch, channels, rows, side, columns, side])?.permute([0, 2, 4, 1, 3, 5])?.reshape((
        batch,
        rows * columns,
        channels * side * side,
    ))
}

/// The picture that [`to_patches`] was made from, `rows` patches high.
pub(crate) fn from_patches(x: &Tensor, side: usize, rows: usize) -> Result<Tensor> {
    let (batch, patches, size) = x.dims3()?;
    let (columns, channels) = (patches / rows, size / (side * side));
    x.reshape(&[batch, rows, columns, channels, side, side])?.permute([0, 3, 1, 4, 2, 5])?.reshape((
        batch,
        channels,
        rows * side,
        columns * side,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_come_back_in_their_places() {
        let x =
            Tensor::arange(0f32, 2.0 * 3.0 * 4.0 * 6.0, &Device::Cpu).unwrap().reshape((2, 3, 4, 6)).unwrap();
        let patches = to_patches(&x, 2).unwrap();
        assert_eq!(patches.dims(), [2, 6, 12]);
        // The second patch of the first picture begins two columns to the right.
        assert_eq!(patches.get(0).unwrap().get(1).unwrap().get(0).unwrap().to_scalar::<f32>().unwrap(), 2.0);
        let back = from_patches(&patches, 2, 2).unwrap();
        assert_eq!(
            back.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            x.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        );
    }
}
