//! How the panels of a [`super::product::Packed`] are stored: in f32, or shorter and expanded on the way to the product.
//!
//! The values of a short form are exact numbers in f32, so a product with it is the f32 product with these numbers:
//! only the weights are rounded, never what they are multiplied by.
//!
//! Sources: the number formats of IEEE 754 and of `candle_core::quantized::k_quants` (ggml's block formats).

use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;

use super::blocks::{Blocks, Codes};

/// Columns of a panel: two AVX-512 registers, four of AVX2.
pub(super) const PANEL: usize = 32;
/// Rows of a panel that share a scale in each column.
pub(super) const GROUP: usize = super::blocks::BLOCK;

/// The panels of a matrix, each of [`PANEL`] columns, row by row.
#[derive(Debug, Clone)]
pub(super) enum Panels {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    Eight(Vec<Eight>),
    Four(Vec<Four>),
}

/// Some of them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stored<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
    Eight(&'a [Eight]),
    Four(&'a [Four]),
}

/// [`GROUP`] rows of a panel in 8 bits: a value is a code times the scale of its column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Eight {
    scales: [u16; PANEL],
    codes: [[i8; PANEL]; GROUP],
}

/// [`GROUP`] rows of a panel in 4 bits: a value is a code times the scale of its column plus the least value. The low
/// half of a byte belongs to row `i`, the high one to row `i + GROUP / 2`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Four {
    scales: [u16; PANEL],
    least: [u16; PANEL],
    codes: [[u8; PANEL]; GROUP / 2],
}

impl Eight {
    const EMPTY: Self = Self { scales: [0; PANEL], codes: [[0; PANEL]; GROUP] };

    fn set(&mut self, lane: usize, scale: f16, codes: &[i8; GROUP]) {
        self.scales[lane] = scale.to_bits();
        for (row, code) in self.codes.iter_mut().zip(codes) {
            row[lane] = *code;
        }
    }

    #[inline(always)]
    fn expand(&self, out: &mut [[f32; PANEL]; GROUP]) {
        let scales = self.scales.map(widen);
        for (out, codes) in out.iter_mut().zip(&self.codes) {
            for lane in 0..PANEL {
                out[lane] = f32::from(codes[lane]) * scales[lane];
            }
        }
    }
}

impl Four {
    const EMPTY: Self = Self { scales: [0; PANEL], least: [0; PANEL], codes: [[0; PANEL]; GROUP / 2] };

    fn set(&mut self, lane: usize, scale: f16, least: f16, codes: &[u8; GROUP]) {
        (self.scales[lane], self.least[lane]) = (scale.to_bits(), least.to_bits());
        let (low, high) = codes.split_at(GROUP / 2);
        for ((row, low), high) in self.codes.iter_mut().zip(low).zip(high) {
            row[lane] = low | high << 4;
        }
    }

    #[inline(always)]
    fn expand(&self, out: &mut [[f32; PANEL]; GROUP]) {
        let (scales, least) = (self.scales.map(widen), self.least.map(widen));
        let (low, high) = out.split_at_mut(GROUP / 2);
        for ((low, high), codes) in low.iter_mut().zip(high).zip(&self.codes) {
            for lane in 0..PANEL {
                // A code times a scale is exact, so there is one rounding here, fused or not.
                low[lane] = f32::from(codes[lane] & 15) * scales[lane] + least[lane];
                high[lane] = f32::from(codes[lane] >> 4) * scales[lane] + least[lane];
            }
        }
    }
}

/// The value of an f16, in arithmetic that compilers vectorise.
#[inline(always)]
fn widen(bits: u16) -> f32 {
    // 2^112, the ratio of the two formats' smallest steps.
    const STEPS: f32 = f32::from_bits((112 + 127) << 23);
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let value = (f32::from_bits(magnitude) * STEPS).to_bits();
    let value = if bits & 0x7c00 == 0x7c00 { magnitude | 0x7f80_0000 } else { value };
    f32::from_bits(value | u32::from(bits & 0x8000) << 16)
}

/// Columns of `inner` values in panels, filled up with zeros.
fn pack<'a, T: Copy + Default + 'a>(
    inner: usize,
    columns: usize,
    column: impl Fn(usize) -> &'a [T],
) -> Vec<T> {
    let mut values = vec![T::default(); columns.div_ceil(PANEL) * PANEL * inner];
    for (index, panel) in values.chunks_exact_mut((PANEL * inner).max(1)).enumerate() {
        let first = index * PANEL;
        for lane in 0..PANEL.min(columns - first) {
            for (row, value) in panel.as_chunks_mut::<PANEL>().0.iter_mut().zip(column(first + lane)) {
                row[lane] = *value;
            }
        }
    }
    values
}

impl Panels {
    /// From the columns one behind the other, `inner` values each.
    pub(super) fn from_f32<'a>(inner: usize, columns: usize, column: impl Fn(usize) -> &'a [f32]) -> Self {
        Self::F32(pack(inner, columns, column))
    }

    /// The same of f16.
    pub(super) fn from_f16(inner: usize, columns: usize, all: &[f16]) -> Self {
        Self::F16(pack(inner, columns, |i| &all[i * inner..(i + 1) * inner]))
    }

    /// The same of bf16.
    pub(super) fn from_bf16(inner: usize, columns: usize, all: &[bf16]) -> Self {
        Self::Bf16(pack(inner, columns, |i| &all[i * inner..(i + 1) * inner]))
    }

    /// From rows of blocks, which become columns.
    pub(super) fn from_blocks(blocks: &Blocks) -> Self {
        let groups = blocks.inner() / GROUP;
        let panels = blocks.rows().div_ceil(PANEL);
        let lanes = |panel: usize| 0..PANEL.min(blocks.rows() - panel * PANEL);
        if blocks.is_eight() {
            let mut all = vec![Eight::EMPTY; panels * groups];
            all.par_chunks_mut(groups.max(1)).enumerate().for_each(|(panel, all)| {
                for (index, group) in all.iter_mut().enumerate() {
                    for lane in lanes(panel) {
                        if let Codes::Eight { scale, codes } = blocks.codes(panel * PANEL + lane, index) {
                            group.set(lane, scale, &codes);
                        }
                    }
                }
            });
            return Self::Eight(all);
        }
        let mut all = vec![Four::EMPTY; panels * groups];
        all.par_chunks_mut(groups.max(1)).enumerate().for_each(|(panel, all)| {
            for (index, group) in all.iter_mut().enumerate() {
                for lane in lanes(panel) {
                    if let Codes::Four { scale, least, codes } = blocks.codes(panel * PANEL + lane, index) {
                        group.set(lane, scale, least, &codes);
                    }
                }
            }
        });
        Self::Four(all)
    }

    /// All of them.
    pub(super) fn all(&self) -> Stored<'_> {
        match self {
            Self::F32(values) => Stored::F32(values),
            Self::F16(values) => Stored::F16(values),
            Self::Bf16(values) => Stored::Bf16(values),
            Self::Eight(groups) => Stored::Eight(groups),
            Self::Four(groups) => Stored::Four(groups),
        }
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => size_of_val(values.as_slice()),
            Self::F16(values) => size_of_val(values.as_slice()),
            Self::Bf16(values) => size_of_val(values.as_slice()),
            Self::Eight(groups) => size_of_val(groups.as_slice()),
            Self::Four(groups) => size_of_val(groups.as_slice()),
        }
    }
}

impl<'a> Stored<'a> {
    /// Some of the panels, each of `inner` rows.
    #[inline(always)]
    pub(super) fn panels(self, panels: Range<usize>, inner: usize) -> Self {
        let values = panels.start * inner * PANEL..panels.end * inner * PANEL;
        let groups = panels.start * inner / GROUP..panels.end * inner / GROUP;
        match self {
            Self::F32(all) => Self::F32(&all[values]),
            Self::F16(all) => Self::F16(&all[values]),
            Self::Bf16(all) => Self::Bf16(&all[values]),
            Self::Eight(all) => Self::Eight(&all[groups]),
            Self::Four(all) => Self::Four(&all[groups]),
        }
    }

    /// Rows of the first panel, from row `first` on, which is a multiple of [`GROUP`]: where they are if they are f32,
    /// else in `room`, which has as many rows.
    #[inline(always)]
    pub(super) fn rows<'b>(
        self,
        first: usize,
        depth: usize,
        room: &'b mut [[f32; PANEL]],
    ) -> &'b [[f32; PANEL]]
    where
        'a: 'b,
    {
        if let Self::F32(values) = self {
            return &values.as_chunks::<PANEL>().0[first..first + depth];
        }
        let room = &mut room[..depth];
        match self {
            Self::F32(_) => {}
            Self::F16(values) => {
                for (out, values) in room.iter_mut().zip(&values.as_chunks::<PANEL>().0[first..]) {
                    for lane in 0..PANEL {
                        out[lane] = widen(values[lane].to_bits());
                    }
                }
            }
            Self::Bf16(values) => {
                for (out, values) in room.iter_mut().zip(&values.as_chunks::<PANEL>().0[first..]) {
                    for lane in 0..PANEL {
                        out[lane] = f32::from_bits(u32::from(values[lane].to_bits()) << 16);
                    }
                }
            }
            Self::Eight(groups) => {
                for (out, group) in room.as_chunks_mut::<GROUP>().0.iter_mut().zip(&groups[first / GROUP..]) {
                    group.expand(out);
                }
            }
            Self::Four(groups) => {
                for (out, group) in room.as_chunks_mut::<GROUP>().0.iter_mut().zip(&groups[first / GROUP..]) {
                    group.expand(out);
                }
            }
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (got, expected) = (widen(bits), f16::from_bits(bits).to_f32());
            assert!(
                got == expected && got.is_sign_negative() == expected.is_sign_negative()
                    || got.is_nan() && expected.is_nan(),
                "{bits:#x}: {got}, not {expected}"
            );
        }
    }
}
