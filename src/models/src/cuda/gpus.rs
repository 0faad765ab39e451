//! Which GPUs there are.

use std::fmt;

use candle_core::Result;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{result, sys};

/// A GPU as the driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its number for [`device`](super::device).
    pub number: usize,
    /// Its maker's name for it.
    pub name: String,
    /// All of its memory, in bytes.
    pub memory: usize,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
}

impl Gpu {
    /// Whether it runs the kernels of this module: compute capability 8.0.
    pub fn has_kernels(&self) -> bool {
        self.capability.0 >= 8
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.capability;
        let memory = self.memory as f64 / f64::from(1 << 30);
        write!(f, "cuda:{} {} ({memory:.0} GiB, compute capability {major}.{minor})", self.number, self.name)
    }
}

/// All GPUs that the driver shows this process.
///
/// # Errors
/// Those of the driver, such as none being installed.
pub fn gpus() -> Result<Vec<Gpu>> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    result::init().w()?;
    let count = result::device::get_count().w()?;
    let describe = |number: i32| -> Result<Gpu> {
        let device = result::device::get(number).w()?;
        // SAFETY: the driver has just given this handle, and these calls only read.
        #[allow(unsafe_code)]
        let (memory, major, minor) = unsafe {
            (
                result::device::total_mem(device).w()?,
                result::device::get_attribute(device, MAJOR).w()?,
                result::device::get_attribute(device, MINOR).w()?,
            )
        };
        let name = result::device::get_name(device).w()?;
        Ok(Gpu { number: number as usize, name, memory, capability: (major, minor) })
    };
    (0..count).map(describe).collect()
}
