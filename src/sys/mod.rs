//! What this process needs of its operating system, apart from running jobs: clocks, descriptors,
//! memory, processes, threads, disk space, and signals to stop.

pub mod alarm;
pub mod cgroup;
pub mod cgroup_probe;
pub mod clock;
pub mod descriptors;
pub mod disk_reserve;
pub mod file_digest;
pub mod long_path;
pub mod memory;
mod mutex;
pub mod proc;
pub mod retry;
pub mod shutdown;
pub mod threads;
pub mod vital;
pub mod waiting_io;

pub use mutex::lock;
