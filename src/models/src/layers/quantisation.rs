//! Fewer bits for weights.

use std::fmt;
use std::str::FromStr;

use super::blocks::Format;

/// How the matrices of a language model are stored. Embeddings, norms, biases and the vision tower stay as they are; the
/// output layer never has fewer than 8 bits; matrices that a checkpoint brings in 4 bits (AWQ) keep them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantisation {
    /// 8 bits, in blocks of 32 with a scale each: 8.5 bits a weight.
    Q8_0,
    /// 4 bits, in blocks of 32 with a scale each: 4.5 bits a weight.
    Q4_0,
    /// 4 bits, in blocks of 32 with a scale and a least value each, chosen for the least error: closer than
    /// [`Self::Q4_0`]. 4.5 bits a weight in a file and on a GPU, 5 on the CPU.
    Q4K,
}

impl Quantisation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Q8_0, Self::Q4_0, Self::Q4K];

    /// What it is called: `q8_0`, `q4_0`, `q4_k`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4K => "q4_k",
        }
    }

    /// The format of matrices of so many inputs: the closest one with as many bits that has rows of that width, if there
    /// is one.
    pub(crate) fn format(self, inputs: usize) -> Option<Format> {
        let wanted = match self {
            Self::Q8_0 => Format::Q8_0,
            Self::Q4_0 => Format::Q4_0,
            Self::Q4K if inputs.is_multiple_of(Format::Q4K.width()) => Format::Q4K,
            Self::Q4K => Format::Q4_1,
        };
        (inputs > 0 && inputs.is_multiple_of(wanted.width())).then_some(wanted)
    }
}

impl fmt::Display for Quantisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Quantisation {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("`{name}` is no way to store weights; expected one of {known}"))
    }
}
