//! Products of f32 matrices on the CPU, with the right-hand side laid out for the registers.
//!
//! A model's weights are multiplied again and again, so they are put in order once, when they are loaded: panels of
//! [`PANEL`] columns, each panel row by row. A tile of the result then stays in registers while a panel streams by,
//! and nothing is packed at run time. Weights of 16, 8 or 4 bits are expanded some rows of a panel at a time. Each element of a result is a chain of fused multiply-adds over the inner
//! dimension in its natural order: it does not depend on how many rows there are, nor on how the work is divided.
//!
//! The inner loops are plain Rust that compilers vectorise, compiled for several instruction sets, of which the best
//! is chosen at run time. One core of an AMD EPYC 9004, whose peak is 117 GFLOP/s, reaches 107 on the products of the
//! embedded suite; the `gemm` crate, which packs both sides anew each time, 102.

use half::{bf16, f16};
use multiversion::multiversion;
use multiversion::target::target_cfg_f;

use super::blocks::Blocks;
use super::panels::{PANEL, Panels, Stored};

/// Rows of a panel that are used at a time: 128 KiB, which the second cache holds.
const DEPTH: usize = 1024;
/// The same of panels that are expanded first: 32 KiB, which the first cache holds.
const EXPANDED: usize = 256;

/// A matrix of `inner` rows and `columns` columns, the right-hand side of a product. Columns are filled up with zeros
/// to whole panels.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    panels: Panels,
    inner: usize,
    columns: usize,
}

impl Packed {
    /// From columns, which is how a layer's weight `(out, in)` is stored: `column(i)` has `inner` values.
    pub(super) fn from_columns<'a>(
        inner: usize,
        columns: usize,
        column: impl Fn(usize) -> &'a [f32],
    ) -> Self {
        Self { panels: Panels::from_f32(inner, columns, column), inner, columns }
    }

    /// From columns in f16, one behind the other; they stay f16.
    pub(super) fn from_f16(inner: usize, columns: usize, all: &[f16]) -> Self {
        Self { panels: Panels::from_f16(inner, columns, all), inner, columns }
    }

    /// From columns in bf16, one behind the other; they stay bf16.
    pub(super) fn from_bf16(inner: usize, columns: usize, all: &[bf16]) -> Self {
        Self { panels: Panels::from_bf16(inner, columns, all), inner, columns }
    }

    /// From quantised columns, which are the rows of `blocks`; they stay quantised.
    pub(super) fn from_blocks(blocks: &Blocks) -> Self {
        Self { panels: Panels::from_blocks(blocks), inner: blocks.inner(), columns: blocks.rows() }
    }

    /// From rows: `row(i)` has `columns` values.
    pub(super) fn from_rows<'a>(inner: usize, columns: usize, row: impl Fn(usize) -> &'a [f32]) -> Self {
        let mut values = vec![0f32; columns.div_ceil(PANEL) * PANEL * inner];
        for index in 0..inner {
            for (panel, part) in row(index)[..columns].chunks(PANEL).enumerate() {
                let start = (panel * inner + index) * PANEL;
                values[start..start + part.len()].copy_from_slice(part);
            }
        }
        Self { panels: Panels::F32(values), inner, columns }
    }

    /// Number of rows.
    pub(super) fn inner(&self) -> usize {
        self.inner
    }

    /// Number of columns.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.panels.bytes()
    }

    /// The whole matrix.
    pub(super) fn all(&self) -> Part<'_> {
        Part { stored: self.panels.all(), inner: self.inner, depth: self.inner, columns: self.columns }
    }

    /// The first `columns` columns.
    pub(super) fn first_columns(&self, columns: usize) -> Part<'_> {
        Part { columns: columns.min(self.columns), ..self.all() }
    }

    /// The first `depth` rows.
    pub(super) fn first_rows(&self, depth: usize) -> Part<'_> {
        Part { depth: depth.min(self.inner), ..self.all() }
    }

    /// About equally many panels for each of `parts` parts, none empty.
    pub(super) fn divide(&self, parts: usize) -> Vec<Part<'_>> {
        let all = self.columns.div_ceil(PANEL);
        let panels = all.div_ceil(parts.max(1)).max(1);
        let part = |first: usize| {
            let columns = (self.columns - first * PANEL).min(panels * PANEL);
            let stored = self.panels.all().panels(first..(first + panels).min(all), self.inner);
            Part { stored, inner: self.inner, depth: self.inner, columns }
        };
        (0..all).step_by(panels).map(part).collect()
    }
}

/// Some columns of a [`Packed`], and of these some rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    stored: Stored<'a>,
    /// Rows of the panels.
    inner: usize,
    /// Rows that count.
    depth: usize,
    columns: usize,
}

impl Part<'_> {
    pub(super) fn columns(&self) -> usize {
        self.columns
    }
}

/// The left-hand side: rows of at least as many values as the right-hand side has rows, `stride` values apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) count: usize,
}

impl<'a> Rows<'a> {
    /// Rows without gaps.
    pub(super) fn dense(values: &'a [f32], width: usize) -> Self {
        Self { values, stride: width, count: values.len().checked_div(width).unwrap_or(0) }
    }
}

/// Writes `rows * right` to `out`, whose rows are `stride` values apart; with `add` it is added to what is there.
/// On the calling thread.
pub(super) fn multiply(rows: Rows<'_>, right: Part<'_>, out: &mut [f32], stride: usize, add: bool) {
    if rows.count == 0 {
        return;
    }
    if right.depth == 0 {
        if !add {
            out.chunks_mut(stride.max(1)).take(rows.count).for_each(|row| row[..right.columns].fill(0.0));
        }
        return;
    }
    panels(rows, right, out, stride, add);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn panels(rows: Rows<'_>, right: Part<'_>, out: &mut [f32], stride: usize, add: bool) {
    let (step, room) = if matches!(right.stored, Stored::F32(_)) { (DEPTH, 0) } else { (EXPANDED, EXPANDED) };
    let mut room = vec![[0f32; PANEL]; room.min(right.depth)];
    for index in 0..right.columns.div_ceil(PANEL) {
        let stored = right.stored.panels(index..index + 1, right.inner);
        let first = index * PANEL;
        let width = PANEL.min(right.columns - first);
        for from in (0..right.depth).step_by(step) {
            let depth = step.min(right.depth - from);
            let panel = stored.rows(from, depth, &mut room);
            let rows = Rows { values: &rows.values[from.min(rows.values.len())..], ..rows };
            let target = Target { values: &mut out[first..], stride, width, add: add || from > 0 };
            // As many rows at a time as leave the sums of a tile in registers.
            if target_cfg_f!(target_feature = "avx512f") {
                strips::<true, 4, 4>(rows, panel, target);
            } else if target_cfg_f!(target_feature = "fma") || cfg!(target_arch = "aarch64") {
                strips::<true, 2, 4>(rows, panel, target);
            } else {
                strips::<false, 1, 2>(rows, panel, target);
            }
        }
    }
}

/// Where the columns of one panel go: from the beginning of `values` on, `width` of them.
struct Target<'a> {
    values: &'a mut [f32],
    stride: usize,
    width: usize,
    add: bool,
}

/// One panel with all rows: `WIDE` at a time if all columns count, `NARROW` if at most half do.
#[inline(always)]
fn strips<const FMA: bool, const WIDE: usize, const NARROW: usize>(
    rows: Rows<'_>,
    panel: &[[f32; PANEL]],
    mut target: Target<'_>,
) {
    let mut row = 0;
    if target.width > PANEL / 2 {
        while row + WIDE <= rows.count {
            tile::<FMA, WIDE, PANEL>(rows, row, panel, &mut target);
            row += WIDE;
        }
        while WIDE > 2 && row + 2 <= rows.count {
            tile::<FMA, 2, PANEL>(rows, row, panel, &mut target);
            row += 2;
        }
        while row < rows.count {
            tile::<FMA, 1, PANEL>(rows, row, panel, &mut target);
            row += 1;
        }
    } else {
        while row + NARROW <= rows.count {
            tile::<FMA, NARROW, { PANEL / 2 }>(rows, row, panel, &mut target);
            row += NARROW;
        }
        while row < rows.count {
            tile::<FMA, 1, { PANEL / 2 }>(rows, row, panel, &mut target);
            row += 1;
        }
    }
}

#[inline(always)]
fn tile<const FMA: bool, const ROWS: usize, const WIDTH: usize>(
    rows: Rows<'_>,
    first: usize,
    panel: &[[f32; PANEL]],
    target: &mut Target<'_>,
) {
    let sums = sums::<FMA, ROWS, WIDTH>(&rows.values[first * rows.stride..], rows.stride, panel, panel.len());
    let width = WIDTH.min(target.width);
    for (row, sums) in sums.iter().enumerate() {
        let place = (first + row) * target.stride;
        let out = &mut target.values[place..place + width];
        if target.add {
            for (out, sum) in out.iter_mut().zip(sums) {
                *out += sum;
            }
        } else if width == WIDTH {
            out.copy_from_slice(sums);
        } else {
            out.copy_from_slice(&sums[..width]);
        }
    }
}

/// The loop that takes the time. Compilers keep the sums of four rows in registers; with more of them, which would be
/// a little faster, whether they do depends on how this is written.
#[inline(always)]
fn sums<const FMA: bool, const ROWS: usize, const WIDTH: usize>(
    values: &[f32],
    stride: usize,
    panel: &[[f32; PANEL]],
    depth: usize,
) -> [[f32; WIDTH]; ROWS] {
    let left: [&[f32]; ROWS] = std::array::from_fn(|row| &values[row * stride..][..depth]);
    let mut sums = [[0f32; WIDTH]; ROWS];
    for (inner, right) in panel[..depth].iter().enumerate() {
        for row in 0..ROWS {
            let factor = left[row][inner];
            for lane in 0..WIDTH {
                // Without the instruction `mul_add` would be a call of the C library.
                sums[row][lane] = if FMA {
                    factor.mul_add(right[lane], sums[row][lane])
                } else {
                    factor * right[lane] + sums[row][lane]
                };
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Small integers: every order of summing gives the same.
    fn number(seed: usize) -> f32 {
        (((seed * 2_654_435_761) >> 7) % 13) as f32 - 6.0
    }

    proptest! {
        #[test]
        fn products_are_right(
            count in 0usize..40, inner in 0usize..70, columns in 1usize..140, gap in 0usize..5, add: bool,
            depth in 0usize..70, parts in 1usize..6,
        ) {
            let left: Vec<f32> = (0..count * (inner + gap)).map(number).collect();
            let right: Vec<f32> = (0..inner * columns).map(|i| number(i + 77)).collect();
            let packed = Packed::from_rows(inner, columns, |i| &right[i * columns..(i + 1) * columns]);
            let turned: Vec<f32> =
                (0..columns * inner).map(|i| right[(i % inner.max(1)) * columns + i / inner.max(1)]).collect();
            let other = Packed::from_columns(inner, columns, |i| &turned[i * inner..(i + 1) * inner]);
            prop_assert!(matches!((packed.all().stored, other.all().stored), (Stored::F32(a), Stored::F32(b)) if a == b));
            let depth = depth.min(inner);
            let rows = Rows { values: &left, stride: inner + gap, count };
            let mut got = vec![1f32; count * (columns + gap)];
            multiply(rows, packed.first_rows(depth), &mut got, columns + gap, add);
            let product = |r: usize, c: usize, depth: usize| -> f32 {
                (0..depth).map(|k| left[r * (inner + gap) + k] * right[k * columns + c]).sum()
            };
            for r in 0..count {
                for c in 0..columns + gap {
                    let sum = if c < columns { product(r, c, depth) + f32::from(u8::from(add)) } else { 1.0 };
                    prop_assert_eq!(got[r * (columns + gap) + c], sum, "row {}, column {}", r, c);
                }
            }
            let mut first = 0;
            for part in packed.divide(parts) {
                let mut got = vec![0f32; count * part.columns()];
                multiply(rows, part, &mut got, part.columns(), false);
                for (i, value) in got.iter().enumerate() {
                    let (r, c) = (i / part.columns(), first + i % part.columns());
                    prop_assert_eq!(*value, product(r, c, inner));
                }
                first += part.columns();
            }
            prop_assert!(inner == 0 || first == columns);
        }
    }

    /// More inner rows than are used at a time.
    #[test]
    fn deep_products_go_on_where_they_stopped() {
        let inner = 2 * DEPTH + 5;
        let left: Vec<f32> = (0..3 * inner).map(number).collect();
        let right: Vec<f32> = (0..inner * 20).map(|i| number(i + 5)).collect();
        let packed = Packed::from_rows(inner, 20, |i| &right[i * 20..(i + 1) * 20]);
        let mut got = vec![0f32; 60];
        multiply(Rows::dense(&left, inner), packed.all(), &mut got, 20, false);
        for (i, value) in got.iter().enumerate() {
            let (r, c) = (i / 20, i % 20);
            let sum: f32 = (0..inner).map(|k| left[r * inner + k] * right[k * 20 + c]).sum();
            assert_eq!(*value, sum);
        }
    }
}
