//! How much the engine computes and remembers at a time.

use candle_core::Device;

/// Bounds of a language model's memory. The defaults follow the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sequences remembered at a time: the pictures under judgment with their crops, and thoughts not yet rated.
    pub remembered: usize,
    /// Their size in bytes.
    pub remembered_bytes: usize,
    /// Tokens of one forward pass over many questions. More only grows the buffers once the device is busy.
    pub batch_tokens: usize,
    /// Attention scores of one forward pass, over all heads: a pass over a long past gets fewer tokens.
    pub batch_scores: usize,
    /// Size in bytes of the sequences that are decoded side by side; others wait.
    pub decoding_bytes: usize,
}

impl Limits {
    /// What suits a device: two cores are busy with a thousand tokens, an accelerator with eight times as many.
    pub fn of(device: &Device) -> Self {
        if device.is_cpu() {
            Self {
                remembered: 256,
                remembered_bytes: 256 << 20,
                batch_tokens: 1024,
                batch_scores: 64 << 20,
                decoding_bytes: 512 << 20,
            }
        } else {
            let free = free_memory(device);
            Self {
                remembered: 1024,
                remembered_bytes: free / 4,
                batch_tokens: 8192,
                batch_scores: 1 << 30,
                decoding_bytes: free / 4,
            }
        }
    }

    /// How many tokens one pass may take whose rows each see `columns` columns, with `heads` heads; at least one.
    pub(super) fn tokens(&self, heads: usize, columns: usize) -> usize {
        self.batch_tokens.min(self.batch_scores / (heads * columns).max(1)).max(1)
    }
}

/// Bytes that are free on a device beside the model: what the driver says, or little where nobody can be asked.
fn free_memory(device: &Device) -> usize {
    const LITTLE: usize = 8 << 30;
    #[cfg(feature = "cuda")]
    if let Ok(free) = crate::cuda::free_memory(device) {
        return free;
    }
    let _ = device;
    LITTLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_past_leaves_room_for_fewer_tokens() {
        let limits = Limits { batch_tokens: 1000, batch_scores: 1 << 20, ..Limits::of(&Device::Cpu) };
        assert_eq!(limits.tokens(8, 64), 1000);
        assert_eq!(limits.tokens(8, 1024), 128);
        assert_eq!(limits.tokens(1 << 12, 1 << 12), 1);
    }
}
