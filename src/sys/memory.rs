//! How the allocator gives memory back: what is large goes to the kernel as soon as it is freed.
//!
//! Who needs how much is not known here.
#![allow(unsafe_code)] // The allocator's settings have a C interface alone.

/// Allocations from this size on have pages of their own, bytes.
#[cfg(target_env = "gnu")]
const OWN_PAGES_BYTES: i32 = 256 << 10;

/// Has large allocations returned to the kernel when they are freed. By itself glibc learns from
/// the first long message that long ones are usual, and keeps the room for the next ones: a server
/// of hundreds of sessions would stay as large as its busiest moment.
pub fn return_large_allocations() {
    // SAFETY: it sets a number in the allocator, which takes it at any time, from any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES_BYTES);
    }
}
