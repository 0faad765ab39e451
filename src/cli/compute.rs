//! `--device`, `--dtype`, `--quantize`: where models compute, and in what precision.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device};
use cluegate_models::LoadOptions;

use super::args::{ComputeArgs, Precision};

/// A device as the command line names it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum DeviceName {
    /// The processor.
    #[default]
    Cpu,
    /// The NVIDIA GPU of that number.
    Cuda(usize),
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let number = match name {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => Some(0),
            _ => name.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
        };
        number.map(Self::Cuda).ok_or_else(|| "expected cpu, cuda or cuda:N".to_owned())
    }
}

impl DeviceName {
    /// Opens it.
    fn open(self) -> anyhow::Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => gpu(number),
        }
    }
}

#[cfg(feature = "cuda")]
fn gpu(number: usize) -> anyhow::Result<Device> {
    use anyhow::Context as _;
    cluegate_models::cuda::device(number)
        .with_context(|| format!("cannot use the GPU cuda:{number}; `cluegate doctor` says which there are"))
}

#[cfg(not(feature = "cuda"))]
fn gpu(number: usize) -> anyhow::Result<Device> {
    anyhow::bail!(
        "this program was built for the CPU and cannot use cuda:{number}; build it with `cargo build --release \
         --features cuda` (docs/gpu.md says how), or leave --device out"
    )
}

impl ComputeArgs {
    /// Opens the device and says how models are to be loaded.
    pub(crate) fn load_options(&self) -> anyhow::Result<LoadOptions> {
        let device = self.device.open()?;
        let dtype = match self.dtype {
            Some(Precision::F32) => DType::F32,
            Some(Precision::Bf16) => DType::BF16,
            Some(Precision::F16) => DType::F16,
            None if device.is_cpu() => DType::F32,
            None => DType::BF16,
        };
        Ok(LoadOptions { device, dtype, quantisation: self.quantize })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn devices_have_names() {
        for (name, device) in
            [("cpu", DeviceName::Cpu), ("cuda", DeviceName::Cuda(0)), ("cuda:3", DeviceName::Cuda(3))]
        {
            assert_eq!(name.parse::<DeviceName>().unwrap(), device);
            assert_eq!(device.to_string().parse::<DeviceName>().unwrap(), device);
        }
        for name in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            assert!(name.parse::<DeviceName>().unwrap_err().contains("cuda:N"), "{name}");
        }
    }

    #[test]
    fn the_cpu_computes_in_f32_unless_asked_otherwise() {
        let options = ComputeArgs::default().load_options().unwrap();
        assert!(options.device.is_cpu() && options.dtype == DType::F32 && options.quantisation.is_none());
        let asked = ComputeArgs { dtype: Some(Precision::Bf16), ..ComputeArgs::default() };
        assert_eq!(asked.load_options().unwrap().dtype, DType::BF16);
    }
}
