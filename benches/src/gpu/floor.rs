//! What no program can do faster: operations over the rate of the matrix units, or bytes over memory bandwidth,
//! whichever takes longer, at the rates that the GPU was measured to reach.

use cluegate::models::qwen2_vl::Config;

/// Bytes of a bf16 value.
const VALUE: f64 = 2.0;

/// Rates that were measured, by large and simple operations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ceilings {
    /// Operations a second of a bf16 matrix product.
    pub(crate) operations: f64,
    /// Bytes a second, read and written.
    pub(crate) bytes: f64,
}

/// Lengths in tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lengths {
    /// Patches of a picture.
    pub(crate) patches: usize,
    /// A picture and the constant text.
    pub(crate) prefix: usize,
    /// What a statement adds, on average.
    pub(crate) statement: f64,
    /// A question that is answered freely, without picture.
    pub(crate) reasoning: usize,
    /// Its answer.
    pub(crate) answer: usize,
}

/// The least time of each part of the work, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floor {
    /// A picture through the vision tower.
    pub(crate) vision: f64,
    /// The picture and the constant text through the language model.
    pub(crate) prefill: f64,
    /// One statement behind them.
    pub(crate) statement: f64,
    /// One token of an answer, decoded alone.
    pub(crate) token_alone: f64,
    /// One token of an answer, its share of a batch.
    pub(crate) token_batched: f64,
}

impl Floor {
    /// For a model and a batch of `batch` answers.
    pub(crate) fn new(config: &Config, lengths: Lengths, batch: usize, ceilings: Ceilings) -> Self {
        let text = &config.text;
        let (hidden, inner) = (text.hidden as f64, text.intermediate as f64);
        let (queries, keys) = ((text.heads * text.head_dim) as f64, (text.kv_heads * text.head_dim) as f64);
        let layers = text.layers as f64;
        let weights = layers * (2.0 * hidden * queries + 2.0 * hidden * keys + 3.0 * hidden * inner);
        let head = hidden * text.vocabulary as f64;
        let ms = |operations: f64| operations / ceilings.operations * 1e3;
        // Scores and weighted values, each one multiplication and addition for every pair that is seen.
        let attention = |pairs: f64| 4.0 * pairs * queries * layers;
        let prefix = lengths.prefix as f64;
        let own = lengths.statement;
        let statement = 2.0 * weights * own + attention(own * (prefix + own / 2.0)) + 2.0 * head;
        let columns =
            (lengths.patches_tokens(config) + lengths.reasoning) as f64 + lengths.answer as f64 / 2.0;
        let token = |batch: f64| {
            let read = VALUE * (weights + head) + batch * columns * VALUE * 2.0 * keys * layers;
            let computed = batch * (2.0 * (weights + head) + attention(columns));
            (read / ceilings.bytes * 1e3).max(ms(computed)) / batch
        };
        Self {
            vision: ms(vision(config, lengths.patches as f64)),
            prefill: ms(2.0 * weights * prefix + attention(prefix * prefix / 2.0)),
            statement: ms(statement),
            token_alone: token(1.0),
            token_batched: token(batch as f64),
        }
    }
}

impl Lengths {
    /// Tokens of a picture.
    fn patches_tokens(&self, config: &Config) -> usize {
        self.patches / (config.vision.merge * config.vision.merge)
    }
}

/// Operations of the vision tower on `patches`.
fn vision(config: &Config, patches: f64) -> f64 {
    let vision = &config.vision;
    let (width, inner) = (vision.width as f64, vision.intermediate as f64);
    let block = 2.0 * patches * (4.0 * width * width + 2.0 * width * inner) + 4.0 * patches * patches * width;
    let pixels = (3 * vision.frames * vision.patch * vision.patch) as f64;
    let area = (vision.merge * vision.merge) as f64;
    let merged = area * width;
    let merger = 2.0 * patches / area * merged * (merged + vision.hidden as f64);
    vision.depth as f64 * block + 2.0 * patches * pixels * width + merger
}
