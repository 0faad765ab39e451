//! What a decoder is built from.

/// The language model's dimensions and what sets its family apart.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Rows of the embedding table.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the feed-forward layers.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// In the RMS norms.
    pub epsilon: f64,
    /// Longest sequence in tokens. Not longer than a sliding window, within which the window changes nothing.
    pub max_positions: usize,
    /// Positions.
    pub rope: Rope,
    /// Which maps have a bias.
    pub biases: Biases,
    /// Whether queries and keys are normalised, head by head, before they are turned.
    pub head_norms: bool,
    /// How the checkpoint calls and arranges the matrices.
    pub naming: Naming,
    /// Whether the output layer is the embedding table, unless the weights hold one of its own.
    pub tied: bool,
}

/// Which maps of a layer have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Biases {
    /// Queries, keys and values.
    pub inputs: bool,
    /// The attention's output.
    pub output: bool,
    /// The feed-forward block.
    pub feed_forward: bool,
}

/// Names and arrangement of a layer's matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `self_attn.q_proj`, `mlp.gate_proj` and so on: Llama and all that follow it.
    Llama,
    /// `attention.wqkv` with the queries, key and value of each key-value head together, `feed_forward.w1` and so on.
    InternLm2,
}

/// Rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f32,
    /// How the frequencies of a longer context follow from those of the training.
    pub scaling: Scaling,
    /// What turns with time, row and column of a picture's token; text has all three equal.
    pub axes: Axes,
}

/// Changes of the rotary frequencies for longer contexts (`modeling_rope_utils.py` in transformers 5.17).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// None.
    Unscaled,
    /// All frequencies divided by a factor.
    Linear {
        /// The factor.
        factor: f32,
    },
    /// Llama 3.1: low frequencies divided by a factor, high ones kept, those between in between.
    Llama3 {
        /// The factor.
        factor: f32,
        /// Waves longer than the original context divided by this are low.
        low: f32,
        /// Waves shorter than the original context divided by this are high.
        high: f32,
        /// The original context in tokens.
        original: f32,
    },
}

/// Which coordinate turns which frequency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axes {
    /// There is only one coordinate.
    One,
    /// The first so many frequencies by time, then by row, then by column (Qwen2-VL); their sum is half a head.
    Sections([usize; 3]),
    /// Time, row and column in turns until rows and columns have so many, then time (Qwen3-VL).
    Interleaved([usize; 3]),
}

impl Rope {
    /// For each pair of a head's components its inverse frequency and the coordinate that turns it.
    pub(super) fn turns(&self, head_dim: usize) -> Vec<(f32, usize)> {
        let frequencies = crate::rope::inverse_frequencies(self.theta, head_dim);
        let axis = |index: usize| match self.axes {
            Axes::One => 0,
            Axes::Sections([time, row, _]) => usize::from(index >= time) + usize::from(index >= time + row),
            Axes::Interleaved(sections) => {
                let axis = index % 3;
                if index < 3 * sections[axis] { axis } else { 0 }
            }
        };
        let scaled = frequencies.into_iter().map(|frequency| self.scaling.apply(frequency));
        scaled.enumerate().map(|(index, frequency)| (frequency, axis(index))).collect()
    }
}

impl Scaling {
    fn apply(self, frequency: f32) -> f32 {
        match self {
            Self::Unscaled => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low, high, original } => {
                let wave = 2.0 * std::f32::consts::PI / frequency;
                if wave < original / high {
                    frequency
                } else if wave > original / low {
                    frequency / factor
                } else {
                    let share = (original / wave - low) / (high - low);
                    (1.0 - share) * frequency / factor + share * frequency
                }
            }
        }
    }
}
