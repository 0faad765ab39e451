//! The layers that transformers consist of, once for all models.
//!
//! On the CPU they run on kernels of their own, which compute a product, what precedes it and what follows it block of
//! rows by block of rows, so that little but weights travels through memory: see [`product`], [`rows`] and
//! [`attention`]. The kernels compute in f32: of tensors in f16 or bf16 only what goes in and what comes out of a layer
//! is rounded, and weights stay as short as they are ([`panels`]). On another device the same formulas run on candle's
//! operations or on kernels of that device.
//!
//! **Threads.** A layer divides its work between the threads of the rayon pool that it is called on, and does not if
//! there is but one, or little work. [`on_all_cores`] enters the pool once for many layers.

mod activation;
mod attention;
mod blocks;
mod division;
mod feed_forward;
mod linear;
mod norm;
mod panels;
mod product;
mod quantisation;
mod rows;

use std::ops::Deref;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor};

pub use self::activation::Activation;
pub(crate) use self::attention::{Memory, Sequence, attention};
pub(crate) use self::blocks::Blocks;
pub use self::division::on_all_cores;
pub(crate) use self::feed_forward::{FeedForward, Inner};
pub(crate) use self::linear::{Linear, Matrix, Turn, normalise_rows, turned};
pub(crate) use self::norm::Norm;
pub use self::quantisation::Quantisation;

/// Whether the layers have kernels of their own for tensors like `x`.
pub(crate) fn has_kernels(x: &Tensor) -> bool {
    x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16)
}

/// f32 of the shorter floats; others as they are.
///
/// # Errors
/// A failed tensor operation.
pub(crate) fn widened(x: &Tensor) -> Result<Tensor> {
    if matches!(x.dtype(), DType::F16 | DType::BF16) { x.to_dtype(DType::F32) } else { Ok(x.clone()) }
}

/// The same values as the kernels read them: f32 without gaps.
fn dense(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::F32)?.contiguous()
}

/// The values of a tensor on the CPU, f32.
struct Values<'a, S: Deref<Target = Storage>> {
    storage: S,
    layout: &'a Layout,
}

/// Access to the values of a tensor, which must be f32 on the CPU.
fn values(x: &Tensor) -> Values<'_, impl Deref<Target = Storage> + Sync> {
    let (storage, layout) = x.storage_and_layout();
    Values { storage, layout }
}

impl<S: Deref<Target = Storage>> Values<'_, S> {
    /// All values in order.
    fn dense(&self) -> Result<&[f32]> {
        match (&*self.storage, self.layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => Ok(&values[start..end]),
            _ => self.refuse(),
        }
    }

    /// The values from the first one on, which lie as far apart as the layout says; the last axis without gaps.
    fn strided(&self) -> Result<&[f32]> {
        match (&*self.storage, self.layout.stride().last()) {
            (Storage::Cpu(CpuStorage::F32(values)), Some(1)) => Ok(&values[self.layout.start_offset()..]),
            _ => self.refuse(),
        }
    }

    fn refuse<T>(&self) -> Result<T> {
        candle_core::bail!("expected f32 without gaps on the CPU, got {:?}", self.layout)
    }
}
