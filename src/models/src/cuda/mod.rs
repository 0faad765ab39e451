//! What an NVIDIA GPU computes better in one kernel than in several of candle's: attention without stored scores, and
//! the element-wise operations around the matrix products. Feature `cuda` only.
//!
//! The kernels are CUDA C++ beside this file, compiled to PTX by the build script and to machine code by the driver
//! when they are first used. They need compute capability 8.0 and take bf16; everything else goes through candle's
//! operations, which they equal up to rounding.

mod attention;
mod elementwise;
mod gpus;
#[cfg(test)]
mod tests;

use std::ops::Deref;

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr, result, sys};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{
    CudaDevice, CudaStorage, DType, Device, Layout, Result, Storage, StorageRef, Tensor, bail,
};
use half::bf16;

pub(crate) use self::attention::{HEADS, Visible, attention};
pub(crate) use self::elementwise::{
    add_bias, bias_quick_gelu, bias_rotate, normalise, normalises, rotates, swiglu, takes,
};
pub use self::gpus::{Gpu, gpus};

/// The GPU of that number, ready for models: one stream that all threads of the program share, and freed memory kept
/// for the next tensor.
///
/// # Errors
/// Those of the driver: no such GPU, no driver, or one that is too old.
pub fn device(ordinal: usize) -> Result<Device> {
    let device = Device::new_cuda_with_stream(ordinal)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: tracking orders the work of several streams; this device has one, from which nothing else is made. The
    // pool is the device's own, and the attribute is a 64-bit number.
    #[allow(unsafe_code)]
    unsafe {
        cuda.disable_event_tracking();
        let pool = result::device::get(ordinal as i32)
            .and_then(|number| result::device::get_default_mem_pool(number))
            .w()?;
        // Otherwise every synchronisation gives the freed memory back to the system, and the next tensor waits for it.
        let mut keep = u64::MAX;
        let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut keep).cast()).result().w()?;
    }
    Ok(device)
}

/// Bytes of a GPU's memory that nobody uses. Tensors that were freed count as used until others take their place.
///
/// # Errors
/// Another device, and those of the driver.
pub(crate) fn free_memory(device: &Device) -> Result<usize> {
    device.as_cuda_device()?.cuda_stream().context().bind_to_thread().w()?;
    Ok(result::mem_get_info().w()?.0)
}

/// Whether the kernels of this module take this tensor.
pub(crate) fn applies(xs: &Tensor) -> bool {
    xs.device().is_cuda() && xs.dtype() == DType::BF16
}

/// A tensor that a kernel reads.
struct Input<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Input<'a> {
    fn new(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    /// Like [`Self::new`], refusing gaps: the kernel reads from start to end.
    fn contiguous(tensor: &'a Tensor) -> Result<Self> {
        if tensor.is_contiguous() {
            Ok(Self::new(tensor))
        } else {
            bail!("a contiguous tensor is needed, this one has the layout {:?}", tensor.layout())
        }
    }

    fn slice<T: CudaDType>(&self) -> Result<&CudaSlice<T>> {
        match self.storage.deref() {
            Storage::Cuda(storage) => storage.as_cuda_slice(),
            _ => bail!("a tensor on the GPU is needed"),
        }
    }

    /// Where its first element lies. Aligned to 16 bytes, as the kernels load.
    fn address<T: CudaDType>(&self) -> Result<u64> {
        let slice = self.slice::<T>()?;
        let (start, _guard) = slice.device_ptr(slice.stream());
        let address = start + (self.layout.start_offset() * size_of::<T>()) as u64;
        if size_of::<T>() == 2 && !address.is_multiple_of(16) {
            bail!("a tensor that starts at a multiple of 16 bytes is needed, this one starts at {address}")
        }
        Ok(address)
    }
}

fn cuda_device(tensor: &Tensor) -> Result<&CudaDevice> {
    tensor.device().as_cuda_device()
}

/// Room for `count` values, which a kernel then writes, and where it starts.
fn room(device: &CudaDevice, count: usize) -> Result<(CudaSlice<bf16>, u64)> {
    // SAFETY: every caller launches a kernel that writes all of it before anything can read it.
    #[allow(unsafe_code)]
    let slice = unsafe { device.alloc::<bf16>(count)? };
    let address = slice.device_ptr(slice.stream()).0;
    Ok((slice, address))
}

fn tensor(slice: CudaSlice<bf16>, device: &CudaDevice, shape: impl Into<candle_core::Shape>) -> Tensor {
    let storage = CudaStorage::wrap_cuda_slice(slice, device.clone());
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}
