//! Matrices as AWQ checkpoints hold them.
//!
//! Source: `WQLinear_GEMM` and `utils/packing_utils.py` in AutoAWQ 0.2.9 (version `gemm`), which transformers and
//! lmdeploy write and read.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use half::f16;
use rayon::prelude::*;

use crate::layers::{Blocks, Matrix};

/// Values in an int32.
const IN_WORD: usize = 8;
/// Which four bits of an int32 hold the value of each of its eight columns.
const PLACES: [u32; IN_WORD] = [0, 4, 1, 5, 2, 6, 3, 7];
/// Words of a row that one task unpacks: a line of the cache.
const WORDS: usize = 16;

/// Whether a matrix is one of AWQ.
pub(super) fn is_packed(vb: &VarBuilder<'_>) -> bool {
    ["qweight", "qzeros", "scales"].iter().any(|name| vb.contains_tensor(name))
}

/// Reads a weight `(outputs, inputs)`: `qweight` (inputs, outputs / 8) and `qzeros` (groups, outputs / 8) as int32,
/// `scales` (groups, outputs) as f16. A value is its code less the zero of its group, times the scale of its group. With
/// `keep` it stays in 4 bits, else it becomes the f16 number that AutoAWQ computes, and that is converted.
///
/// # Errors
/// A missing or misshapen tensor, or one of another type; a matrix that does not divide into words and groups.
pub(super) fn read(vb: &VarBuilder<'_>, (outputs, inputs): (usize, usize), keep: bool) -> Result<Matrix> {
    let (device, dtype) = (vb.device(), vb.dtype());
    let vb = vb.clone().set_device(Device::Cpu);
    let words = |rows: usize, name: &str| -> Result<Vec<i32>> {
        let shape = (rows, outputs / IN_WORD);
        vb.get_with_hints_dtype(shape, name, Default::default(), DType::I32)?.flatten_all()?.to_vec1()
    };
    let groups = vb.get_unchecked_dtype("scales", DType::F16)?.dim(0)?;
    let scales = vb.get_with_hints_dtype((groups, outputs), "scales", Default::default(), DType::F16)?;
    if groups == 0 || !inputs.is_multiple_of(groups) || !outputs.is_multiple_of(IN_WORD) {
        candle_core::bail!(
            "AWQ scales {:?} of a matrix with {inputs} inputs and {outputs} outputs",
            scales.shape()
        );
    }
    let codes = unpack(&words(inputs, "qweight")?, inputs, outputs);
    let zeros = unpack(&words(groups, "qzeros")?, groups, outputs);
    let scales = scales.t()?.flatten_all()?.to_vec1::<f16>()?;
    let group = inputs / groups;
    if keep {
        let groups: Vec<(f16, u8)> = scales.into_iter().zip(zeros).collect();
        let blocks = Blocks::from_groups((outputs, inputs), &codes, group, &groups)?;
        return Ok(Matrix::Quantised(blocks, device.clone()));
    }
    let mut values = vec![f16::ZERO; codes.len()];
    let parts = values.par_chunks_mut(group).zip(codes.par_chunks(group));
    parts.zip(scales.into_par_iter().zip(zeros)).for_each(|((values, codes), (scale, zero))| {
        for (value, code) in values.iter_mut().zip(codes) {
            // The product is exact in f32, so this rounds once, as f16 arithmetic does.
            *value = f16::from_f32((f32::from(*code) - f32::from(zero)) * scale.to_f32());
        }
    });
    let weight = Tensor::from_vec(values, (outputs, inputs), &Device::Cpu)?;
    Ok(Matrix::Dense(weight.to_dtype(dtype)?.to_device(device)?))
}

/// Codes of `rows` rows of `columns` values, column by column.
fn unpack(words: &[i32], rows: usize, columns: usize) -> Vec<u8> {
    let width = columns / IN_WORD;
    let mut out = vec![0; rows * columns];
    out.par_chunks_mut((WORDS * IN_WORD * rows).max(1)).enumerate().for_each(|(part, out)| {
        for (row, words) in words.chunks_exact(width).enumerate() {
            let words = words.iter().skip(part * WORDS).take(WORDS);
            for (word, columns) in words.zip(out.chunks_exact_mut(IN_WORD * rows)) {
                for (column, place) in columns.chunks_exact_mut(rows).zip(PLACES) {
                    column[row] = (word.cast_unsigned() >> (4 * place) & 15) as u8;
                }
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight columns in each word, as AutoAWQ's `pack` puts them.
    fn pack(codes: &[u8], columns: usize) -> Vec<i32> {
        let order = [0, 2, 4, 6, 1, 3, 5, 7];
        let word = |eight: &[u8]| {
            order
                .iter()
                .enumerate()
                .fold(0u32, |word, (place, &at)| word | u32::from(eight[at]) << (4 * place))
        };
        codes.chunks(columns).flat_map(|row| row.chunks(8).map(word)).map(u32::cast_signed).collect()
    }

    #[test]
    fn unpacking_undoes_packing() {
        for (rows, columns) in [(1, 8), (3, 16), (5, 8 * WORDS), (7, 8 * (2 * WORDS + 3))] {
            let codes: Vec<u8> = (0..rows * columns).map(|i| ((i * 2_654_435_761) >> 7 & 15) as u8).collect();
            let got = unpack(&pack(&codes, columns), rows, columns);
            for (i, code) in codes.iter().enumerate() {
                assert_eq!(
                    got[i % columns * rows + i / columns],
                    *code,
                    "{rows} rows of {columns}: value {i}"
                );
            }
        }
    }
}
