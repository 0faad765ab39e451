//! Lets the library, and tests that are linked with it, find libtorch where it was built against, so that nobody has to set
//! LD_LIBRARY_PATH.

fn main() -> Result<(), String> {
    println!("cargo:rerun-if-env-changed=LIBTORCH_LIB");
    let libtorch = std::env::var("LIBTORCH_LIB").map_err(
        |_| "LIBTORCH_LIB is not set: run plugins/torch-diffusers/setup, which fetches libtorch and builds",
    )?;
    // The folder itself, and beside the library, where a packager may put it.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{libtorch}/lib:$ORIGIN");
    Ok(())
}
