//! Seeds of pictures: what a request asked for, and for further attempts numbers that follow from it.

/// The seed of a member's first attempt.
pub(crate) fn first_seed(seed: u64, member: u32) -> u64 {
    seed.wrapping_add(u64::from(member))
}

/// A seed that depends on the request, the member and the attempt, and on nothing else, so that a request can be
/// repeated.
pub(crate) fn next_seed(seed: u64, member: usize, attempt: u32) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"cluegate attempt seed");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&(member as u64).to_le_bytes());
    hasher.update(&attempt.to_le_bytes());
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    u64::from(u32::from_le_bytes([a, b, c, d]))
}
