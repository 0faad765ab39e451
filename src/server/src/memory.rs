//! Memory of a process that is a gateway.

/// Largest piece of memory in bytes that is taken from what the process has, and not from the system for itself alone.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const PIECE: std::ffi::c_int = 32 << 20;
/// Bytes at the end of it that may lie free before they are given back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SPARE: std::ffi::c_int = 64 << 20;

/// Makes the process keep memory that it has done with, for what comes next. A request takes and gives back about five
/// times what its picture has as a file; by default glibc returns pieces of that size to the system, which then gives them
/// out page by page, cleared, with every request. For a program that serves to call at its start; without glibc it does
/// nothing.
pub fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallopt(3) takes two numbers, may be called at any time, and changes only when memory is returned. What
        // it refuses stays as it was.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, PIECE);
            libc::mallopt(libc::M_TRIM_THRESHOLD, SPARE);
        }
    }
}
