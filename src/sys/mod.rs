//! What this process asks of its operating system, apart from running jobs: clocks, descriptors,
//! memory, threads, room on the disk, and when to stop.

pub mod clock;
pub mod descriptors;
pub mod disk_reserve;
pub mod long_path;
pub mod memory;
pub mod shutdown;
pub mod threads;
pub mod vital;
