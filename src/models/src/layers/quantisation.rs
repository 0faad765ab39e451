//! Fewer bits for weights.

/// How the matrices of a language model are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantisation {
    /// 8 bits, in blocks of 32 with a scale each.
    Q8_0,
    /// 4 bits, in blocks of 32 with a scale each.
    Q4_0,
}
