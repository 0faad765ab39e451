//! With feature `cuda`: compiles the CUDA kernels to PTX, from which the driver makes machine code for its GPU.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

const KERNELS: [&str; 2] = ["attention", "elementwise"];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=src/cuda");
    println!("cargo::rerun-if-env-changed=NVCC");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return ExitCode::SUCCESS;
    }
    match KERNELS.iter().try_for_each(|name| compile(name)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

/// The oldest architecture that has bf16 on its tensor cores; the driver translates for newer ones.
fn compile(name: &str) -> Result<(), String> {
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).ok_or("cargo sets no OUT_DIR")?;
    let nvcc = std::env::var_os("NVCC").map(PathBuf::from).unwrap_or_else(|| {
        let home = std::env::var_os("CUDA_HOME").or_else(|| std::env::var_os("CUDA_PATH"));
        home.map_or_else(|| "nvcc".into(), |home| PathBuf::from(home).join("bin/nvcc"))
    });
    let mut command = Command::new(&nvcc);
    command.args(["-ptx", "-arch=compute_80", "-O3", "-std=c++17", "-o"]);
    command.arg(out.join(format!("{name}.ptx"))).arg(format!("src/cuda/{name}.cu"));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} could not compile src/cuda/{name}.cu: {status}", nvcc.display())),
        Err(e) => Err(format!(
            "no CUDA compiler: {} does not run ({e}); install the CUDA toolkit and set CUDA_HOME or NVCC",
            nvcc.display()
        )),
    }
}
