//! Matrices in 8 or 4 bits a weight, in ggml's block formats: on their way to the panels of the CPU, and as candle's
//! kernels on a GPU read them.
//!
//! Source of the formats: `candle_core::quantized::k_quants` in candle 0.11 (`BlockQ8_0`, `BlockQ4_0`, `BlockQ4_1`,
//! `BlockQ4K`). A row is a number of blocks; a block of 32 values has a scale in f16, in `q4_1` the least value too;
//! 256 values of `q4_k` share two f16 numbers, of which each 32 values take a multiple (6 bits) as scale and as least
//! value.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Result, Tensor, bail};
use half::f16;
use rayon::prelude::*;

/// Values that share a scale.
pub(crate) const BLOCK: usize = 32;
/// Rows that one task quantises.
const ROWS: usize = 32;

/// How the blocks of a matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// 8 bits and a scale: 8.5 bits a weight.
    Q8_0,
    /// 4 bits and a scale: 4.5 bits a weight.
    Q4_0,
    /// 4 bits, a scale and a least value: 5 bits a weight.
    Q4_1,
    /// 4 bits with scales and least values in 6 bits: 4.5 bits a weight, in rows of multiples of 256.
    Q4K,
}

impl Format {
    fn ggml(self) -> GgmlDType {
        match self {
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q4K => GgmlDType::Q4K,
        }
    }

    /// What ggml calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q4K => "q4_k",
        }
    }

    /// Rows are multiples of so many values.
    pub(crate) fn width(self) -> usize {
        self.ggml().block_size()
    }

    fn row_bytes(self, inner: usize) -> usize {
        inner / self.width() * self.ggml().type_size()
    }
}

/// A matrix of rows of blocks.
#[derive(Clone)]
pub(crate) struct Blocks {
    bytes: Vec<u8>,
    format: Format,
    rows: usize,
    inner: usize,
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blocks[{}, {}; {:?}]", self.rows, self.inner, self.format)
    }
}

/// A block in the form that the panels have.
pub(super) enum Codes {
    Eight { scale: f16, codes: [i8; BLOCK] },
    Four { scale: f16, least: f16, codes: [u8; BLOCK] },
}

impl Blocks {
    /// Quantises a matrix `(rows, inner)` that lies on the CPU.
    ///
    /// # Errors
    /// A width that the format does not have; a value that is no number, or too large for a scale in f16.
    pub(crate) fn quantise(weight: &Tensor, format: Format) -> Result<Self> {
        let (rows, inner) = weight.dims2()?;
        if inner == 0 || !inner.is_multiple_of(format.width()) {
            bail!("{format:?} of {:?}: rows must be multiples of {} values", weight.shape(), format.width());
        }
        let parts = (0..rows.div_ceil(ROWS))
            .into_par_iter()
            .map(|part| {
                let first = part * ROWS;
                let part = weight.narrow(0, first, ROWS.min(rows - first))?.to_dtype(DType::F32)?;
                let shape = part.shape().clone();
                let values = part.flatten_all()?.to_vec1::<f32>()?;
                if !values.iter().all(|value| value.is_finite()) {
                    bail!("a weight that is to be quantised is NaN or infinite");
                }
                // A copy of these rows alone: candle quantises from the beginning of what lies under a view.
                let part = Tensor::from_vec(values, shape, &Device::Cpu)?;
                Ok(QTensor::quantize(&part, format.ggml())?.data()?.into_owned())
            })
            .collect::<Result<Vec<_>>>()?;
        Self::new(parts.concat(), format, rows, inner)
    }

    /// From groups of 4-bit codes: a value is `(code - zero) * scale`. `codes` holds one a byte, `(rows, inner)`;
    /// `groups` holds scale and zero of each `group` values of a row, row by row.
    ///
    /// # Errors
    /// Lengths that do not fit; a scale that is no number.
    pub(crate) fn from_groups(
        (rows, inner): (usize, usize),
        codes: &[u8],
        group: usize,
        groups: &[(f16, u8)],
    ) -> Result<Self> {
        let fits = group > 0 && group.is_multiple_of(BLOCK) && inner.is_multiple_of(group);
        if !fits || codes.len() != rows * inner || groups.len() != rows * (inner / group) {
            bail!(
                "{} codes and {} groups of {group} for a matrix [{rows}, {inner}]",
                codes.len(),
                groups.len()
            );
        }
        let size = Format::Q4_1.ggml().type_size();
        let mut bytes = vec![0; codes.len() / BLOCK * size];
        bytes.par_chunks_mut(size).zip(codes.par_chunks(BLOCK)).enumerate().for_each(
            |(block, (out, codes))| {
                let (scale, zero) = groups[block * BLOCK / group];
                let least = f16::from_f32(-f32::from(zero) * scale.to_f32());
                out[..2].copy_from_slice(&scale.to_le_bytes());
                out[2..4].copy_from_slice(&least.to_le_bytes());
                let (low, high) = codes.split_at(BLOCK / 2);
                for ((out, low), high) in out[4..].iter_mut().zip(low).zip(high) {
                    *out = low & 15 | high << 4;
                }
            },
        );
        Self::new(bytes, Format::Q4_1, rows, inner)
    }

    fn new(bytes: Vec<u8>, format: Format, rows: usize, inner: usize) -> Result<Self> {
        let blocks = Self { bytes, format, rows, inner };
        if blocks.bytes.len() != rows * format.row_bytes(inner) {
            bail!("{} bytes for {blocks:?}", blocks.bytes.len());
        }
        let finite = (0..rows).into_par_iter().all(|row| {
            (0..inner / BLOCK).all(|block| match blocks.codes(row, block) {
                Codes::Eight { scale, .. } => scale.is_finite(),
                Codes::Four { scale, least, .. } => scale.is_finite() && least.is_finite(),
            })
        });
        if !finite {
            bail!("{blocks:?} has a scale that f16 cannot hold");
        }
        Ok(blocks)
    }

    /// Several matrices of one width, one below the other; in 8 bits if their formats differ.
    ///
    /// # Errors
    /// Other widths.
    pub(crate) fn stack(mut parts: Vec<Self>) -> Result<Self> {
        if parts.iter().any(|part| part.format != parts[0].format) {
            for part in parts.iter_mut().filter(|part| !part.is_eight()) {
                *part = Self::quantise(&part.dequantise()?, Format::Q8_0)?;
            }
        }
        let mut parts = parts.into_iter();
        let Some(mut all) = parts.next() else { bail!("no matrices to put together") };
        for part in parts {
            if part.inner != all.inner {
                bail!("{part:?} below {all:?}");
            }
            all.bytes.extend_from_slice(&part.bytes);
            all.rows += part.rows;
        }
        Ok(all)
    }

    /// Some of the rows, in that order.
    ///
    /// # Errors
    /// A row that is not there.
    pub(crate) fn select(&self, rows: &[u32]) -> Result<Self> {
        let size = self.format.row_bytes(self.inner);
        let mut bytes = Vec::with_capacity(rows.len() * size);
        for &row in rows {
            let start = row as usize * size;
            let Some(row) = self.bytes.get(start..start + size) else { bail!("row {row} of {self:?}") };
            bytes.extend_from_slice(row);
        }
        Ok(Self { bytes, format: self.format, rows: rows.len(), inner: self.inner })
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub(crate) fn inner(&self) -> usize {
        self.inner
    }

    /// The values, `(rows, inner)` in f32 on the CPU.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub(crate) fn dequantise(&self) -> Result<Tensor> {
        let mut out = vec![0f32; self.rows * self.inner];
        let per_row = self.inner / BLOCK;
        out.par_chunks_mut(BLOCK).enumerate().for_each(|(index, out)| {
            match self.codes(index / per_row, index % per_row) {
                Codes::Eight { scale, codes } => {
                    for (out, code) in out.iter_mut().zip(codes) {
                        *out = f32::from(code) * scale.to_f32();
                    }
                }
                Codes::Four { scale, least, codes } => {
                    for (out, code) in out.iter_mut().zip(codes) {
                        *out = f32::from(code) * scale.to_f32() + least.to_f32();
                    }
                }
            }
        });
        Tensor::from_vec(out, (self.rows, self.inner), &Device::Cpu)
    }

    /// What candle's kernels read.
    ///
    /// # Errors
    /// Those of the device.
    pub(super) fn to_device(&self, device: &Device) -> Result<QTensor> {
        let storage = QStorage::from_data(Cow::Borrowed(&self.bytes), device, self.format.ggml())?;
        QTensor::new(storage, (self.rows, self.inner))
    }

    /// Whether values have 8 bits, not 4.
    pub(super) fn is_eight(&self) -> bool {
        self.format == Format::Q8_0
    }

    /// Block `block` of [`BLOCK`] values of a row.
    pub(super) fn codes(&self, row: usize, block: usize) -> Codes {
        let (size, row) = (self.format.ggml().type_size(), row * self.format.row_bytes(self.inner));
        let at = |block: usize| &self.bytes[row + block * size..][..size];
        match self.format {
            Format::Q8_0 => {
                let block = at(block);
                let codes = std::array::from_fn(|i| block[2 + i].cast_signed());
                Codes::Eight { scale: number(block, 0), codes }
            }
            Format::Q4_0 => {
                let block = at(block);
                let scale = number(block, 0);
                Codes::Four { scale, least: f16::from_f32(-8.0 * scale.to_f32()), codes: halves(&block[2..]) }
            }
            Format::Q4_1 => {
                let block = at(block);
                Codes::Four { scale: number(block, 0), least: number(block, 2), codes: halves(&block[4..]) }
            }
            Format::Q4K => {
                let (whole, part) = (at(block / 8), block % 8);
                let (scale, least) = multiples(&whole[4..16], part);
                let times = |number: f16, by: u8| f16::from_f32(number.to_f32() * f32::from(by));
                // 32 bytes hold two blocks, the first in their low halves.
                let bytes = &whole[16 + part / 2 * BLOCK..][..BLOCK];
                let codes = std::array::from_fn(|i| bytes[i] >> (part % 2 * 4) & 15);
                Codes::Four {
                    scale: times(number(whole, 0), scale),
                    least: -times(number(whole, 2), least),
                    codes,
                }
            }
        }
    }
}

fn number(bytes: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The low halves of 16 bytes, then the high ones.
fn halves(bytes: &[u8]) -> [u8; BLOCK] {
    std::array::from_fn(|i| if i < BLOCK / 2 { bytes[i] & 15 } else { bytes[i - BLOCK / 2] >> 4 })
}

/// Scale and least value of one of eight blocks of `q4_k`, 6 bits each in 12 bytes: those of the first four lie in the
/// low bits of a byte each; the others have four bits in the last four bytes and two more above those of the first.
fn multiples(bytes: &[u8], block: usize) -> (u8, u8) {
    if block < 4 {
        return (bytes[block] & 63, bytes[block + 4] & 63);
    }
    let (low, scale, least) = (bytes[block + 4], bytes[block - 4], bytes[block]);
    (low & 15 | scale >> 6 << 4, low >> 4 | least >> 6 << 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [Format; 4] = [Format::Q8_0, Format::Q4_0, Format::Q4_1, Format::Q4K];

    fn largest_gap(a: &Tensor, b: &Tensor) -> Result<f32> {
        (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar()
    }

    #[test]
    fn blocks_mean_what_candle_means() -> Result<()> {
        let weight = Tensor::randn(0.01f32, 0.3, (70, 512), &Device::Cpu)?;
        for (format, most) in FORMATS.into_iter().zip([0.01, 0.2, 0.15, 0.15]) {
            let blocks = Blocks::quantise(&weight, format)?;
            let ours = blocks.dequantise()?;
            let theirs = blocks.to_device(&Device::Cpu)?.dequantize(&Device::Cpu)?;
            // Scales of q4_k are products that we round to f16.
            let exact = if format == Format::Q4K { 2e-3 } else { 0.0 };
            let gap = largest_gap(&ours, &theirs)?;
            assert!(gap <= exact, "{format:?}: {gap} from candle's values");
            let gap = largest_gap(&ours, &weight)?;
            assert!(gap < most, "{format:?}: {gap} from the weights");
            let picked = blocks.select(&[69, 3])?.dequantise()?;
            assert_eq!(
                largest_gap(&picked, &ours.index_select(&Tensor::new(&[69u32, 3], &Device::Cpu)?, 0)?)?,
                0.0
            );
            let stacked = Blocks::stack(vec![blocks.clone(), blocks.select(&[1])?])?.dequantise()?;
            assert_eq!(largest_gap(&stacked.narrow(0, 0, 70)?, &ours)?, 0.0);
            assert_eq!(stacked.dims(), [71, 512]);
            assert!(blocks.select(&[70]).is_err());
        }
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused() -> Result<()> {
        let weight = |value: f32, (rows, inner): (usize, usize)| {
            let values = (0..rows * inner).map(|i| value * (i % 7) as f32).collect();
            Tensor::from_vec(values, (rows, inner), &Device::Cpu)
        };
        assert!(Blocks::quantise(&weight(1.0, (3, 33))?, Format::Q8_0).is_err());
        assert!(Blocks::quantise(&weight(1.0, (3, 128))?, Format::Q4K).is_err());
        assert!(Blocks::quantise(&weight(f32::NAN, (3, 32))?, Format::Q8_0).is_err());
        for format in FORMATS {
            assert!(Blocks::quantise(&weight(1e9, (3, 256))?, format).is_err(), "{format:?}");
        }
        let blocks = Blocks::quantise(&weight(1.0, (3, 256))?, Format::Q4_0)?;
        let other = Blocks::quantise(&weight(1.0, (3, 512))?, Format::Q4_0)?;
        assert!(Blocks::stack(vec![blocks, other]).is_err());
        assert!(Blocks::from_groups((2, 64), &[0; 128], 48, &[]).is_err());
        assert!(Blocks::from_groups((2, 64), &[0; 128], 64, &[(f16::NAN, 0); 2]).is_err());
        Ok(())
    }

    #[test]
    fn groups_keep_their_values() -> Result<()> {
        let codes: Vec<u8> = (0..4 * 64).map(|i| (i * 7 % 16) as u8).collect();
        let groups: Vec<_> =
            (0..8).map(|i| (f16::from_f32(0.01 * (i + 1) as f32), (i * 5 % 16) as u8)).collect();
        let got = Blocks::from_groups((4, 64), &codes, 32, &groups)?
            .dequantise()?
            .flatten_all()?
            .to_vec1::<f32>()?;
        for (i, got) in got.into_iter().enumerate() {
            let (scale, zero) = groups[i / 32];
            let expected = (f32::from(codes[i]) - f32::from(zero)) * scale.to_f32();
            // Only the least value is rounded.
            assert!(
                (got - expected).abs() <= f32::from(zero) * scale.to_f32() / 2048.0,
                "{got}, not {expected}"
            );
        }
        Ok(())
    }
}
