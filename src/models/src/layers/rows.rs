//! What happens to rows of f32 between the matrix products on the CPU, on the calling thread.
//!
//! Written so that compilers vectorise it, and compiled for several instruction sets like the products.

use multiversion::multiversion;

use super::activation::{Activation, exp, sigmoid};

/// Values that are reduced side by side, so that the compiler can use vector instructions.
const LANES: usize = 16;

/// The sum of `term` over `row`.
#[inline(always)]
fn sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let (lanes, rest) = row.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for chunk in lanes {
        for lane in 0..LANES {
            sums[lane] += term(chunk[lane]);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|value| term(*value)).sum::<f32>()
}

/// Layer norm of rows as long as `weight`, RMS norm if there is no `bias`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn normalise(rows: &[f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32, out: &mut [f32]) {
    let width = weight.len().max(1);
    for (row, out) in rows.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mean = if bias.is_some() { sum(row, |value| value) / width as f32 } else { 0.0 };
        let variance = sum(row, |value| (value - mean) * (value - mean)) / width as f32;
        let factor = 1.0 / (variance + epsilon).sqrt();
        match bias {
            Some(bias) => {
                for (((out, value), weight), bias) in out.iter_mut().zip(row).zip(weight).zip(bias) {
                    *out = (value - mean) * factor * weight + bias;
                }
            }
            None => {
                for ((out, value), weight) in out.iter_mut().zip(row).zip(weight) {
                    *out = value * factor * weight;
                }
            }
        }
    }
}

/// Adds `bias` to each row.
pub(super) fn add_bias(rows: &mut [f32], bias: &[f32]) {
    for row in rows.chunks_exact_mut(bias.len().max(1)) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}

/// Adds `other`, of the same shape.
pub(super) fn add(rows: &mut [f32], other: &[f32]) {
    for (value, other) in rows.iter_mut().zip(other) {
        *value += other;
    }
}

/// Applies `activation` to each value.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn activate(values: &mut [f32], activation: Activation) {
    // One loop for each activation, so that the choice is made outside of it.
    match activation {
        Activation::QuickGelu => values.iter_mut().for_each(|x| *x = Activation::QuickGelu.value(*x)),
        Activation::Gelu => values.iter_mut().for_each(|x| *x = Activation::Gelu.value(*x)),
        Activation::GeluTanh => values.iter_mut().for_each(|x| *x = Activation::GeluTanh.value(*x)),
    }
}

/// SiLU of the first half of each row times its second half, into the first `width` values of the row.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn gate(rows: &mut [f32], width: usize) {
    for row in rows.chunks_exact_mut((2 * width).max(1)) {
        let (gate, up) = row.split_at_mut(width);
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = *gate * sigmoid(*gate) * *up;
        }
    }
}

/// Softmax of one row, of which everything is seen.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn softmax(row: &mut [f32]) {
    let (lanes, rest) = row.as_chunks::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    for chunk in lanes {
        for lane in 0..LANES {
            // A NaN must win, or it would vanish from the answer.
            let larger = chunk[lane] > largest[lane] || chunk[lane].is_nan();
            largest[lane] = if larger { chunk[lane] } else { largest[lane] };
        }
    }
    let largest = largest
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |most, value| if *value > most || value.is_nan() { *value } else { most });
    row.iter_mut().for_each(|value| *value = exp(*value - largest));
    let share = sum(row, |value| value).recip();
    row.iter_mut().for_each(|value| *value *= share);
}

/// Turns the heads in the first `cos.len() * 2 * heads` values of a row: the pair of a head's components `i` and
/// `i + pairs` by the angle whose cosine and sine are `cos[i]` and `sin[i]`.
pub(super) fn turn(row: &mut [f32], heads: usize, cos: &[f32], sin: &[f32]) {
    let pairs = cos.len();
    for head in row.chunks_exact_mut((2 * pairs).max(1)).take(heads) {
        let (low, high) = head.split_at_mut(pairs);
        for (((x, y), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
        }
    }
}

/// The products of `query` with `count` rows of `keys` that are `stride` values apart.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn dots(query: &[f32], keys: &[f32], stride: usize, out: &mut [f32]) {
    for (index, out) in out.iter_mut().enumerate() {
        let key = &keys[index * stride..][..query.len()];
        let ((a, a_rest), (b, b_rest)) = (query.as_chunks::<LANES>(), key.as_chunks::<LANES>());
        let mut sums = [0f32; LANES];
        for (a, b) in a.iter().zip(b) {
            for lane in 0..LANES {
                sums[lane] += a[lane] * b[lane];
            }
        }
        let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
        *out = sums.iter().sum::<f32>() + rest;
    }
}

/// Adds rows of `values`, `stride` values apart, each times its share, to `out`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn mix(shares: &[f32], values: &[f32], stride: usize, out: &mut [f32]) {
    for (index, share) in shares.iter().enumerate() {
        let row = &values[index * stride..][..out.len()];
        for (out, value) in out.iter_mut().zip(row) {
            *out += share * value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_is_right_and_keeps_nan_visible() {
        for length in [1, 5, 16, 21, 300] {
            let scores: Vec<f32> = (0..length).map(|i| ((i * 37) % 23) as f32 * 0.7 - 9.0).collect();
            let total: f64 = scores.iter().map(|score| f64::from(*score).exp()).sum();
            let mut got = scores.clone();
            softmax(&mut got);
            for (got, score) in got.iter().zip(&scores) {
                assert!((f64::from(*got) - f64::from(*score).exp() / total).abs() < 1e-6);
            }
            for position in [0, length / 2, length - 1] {
                let mut row = scores.clone();
                row[position] = f32::NAN;
                softmax(&mut row);
                assert!(row.iter().all(|value| value.is_nan()));
            }
        }
    }
}
