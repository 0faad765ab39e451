//! What a decoder is built from.

/// The language model's dimensions.
#[derive(Debug, Clone)]
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
    /// Longest sequence in tokens.
    pub max_positions: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// How many frequencies turn with time, row and column; the sum is half of `head_dim`.
    pub mrope_sections: [usize; 3],
    /// Whether the output layer is the embedding table.
    pub tied: bool,
}
