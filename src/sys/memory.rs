//! Makes the allocator return large allocations to the kernel as soon as they are freed.
#![allow(unsafe_code)] // Only a C interface sets the allocator.

/// Allocations from this size on have pages of their own, bytes.
#[cfg(target_env = "gnu")]
const OWN_PAGES_BYTES: i32 = 256 << 10;

/// Returns large allocations to the kernel when they are freed. By default glibc raises its
/// threshold after the first large message and keeps the memory for the next ones: a server of
/// hundreds of sessions would stay as large as its busiest moment.
pub fn return_large_allocations() {
    // SAFETY: it sets a number in the allocator, which takes it at any time, from any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES_BYTES);
    }
}
