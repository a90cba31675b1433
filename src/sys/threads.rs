//! The server's runtime and its threads: how many there may be. One thread for blocking work always
//! exists, so a kernel that refuses another one delays work and never loses it.

use std::{io, sync::mpsc, thread, time::Duration};

use tokio::runtime::{Builder, Runtime};

/// The most threads for blocking work: reading segments, syncing, searching. Work beyond that waits
/// for one of them.
const BLOCKING_MAX: usize = 64;

/// How long an idle thread stays: longer than any server lives. Tokio panics where the kernel
/// refuses a thread and none exists to take the work (`Handle::spawn_blocking`); with a shorter
/// time an idle server would have none.
const KEPT_FOR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The runtime of a server: as many workers as processors, and one thread for blocking work that
/// starts before anything else is done.
///
/// # Errors
///
/// The kernel does not allow the threads that this needs (`RLIMIT_NPROC`, the control group's
/// `pids.max`), or no descriptor is left.
///
/// # Panics
///
/// Tokio panics where a worker cannot be started: see [`check_allowed`].
pub fn server_runtime() -> io::Result<Runtime> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(workers())
        .max_blocking_threads(BLOCKING_MAX)
        .thread_keep_alive(KEPT_FOR)
        .enable_all()
        .build()?;
    let first = runtime.spawn_blocking(|| ());
    runtime.block_on(first).map_err(io::Error::other)?;
    Ok(runtime)
}

/// Checks that the threads of [`server_runtime`] can be started: starts as many at once, and ends
/// them.
///
/// # Errors
///
/// As [`server_runtime`].
pub fn check_allowed() -> io::Result<()> {
    let mut started = Vec::new();
    for _ in 0..=workers() {
        // Each waits until its sender is dropped, also on an early return.
        let (sender, receiver) = mpsc::channel::<()>();
        let thread = thread::Builder::new().spawn(move || receiver.recv())?;
        started.push((sender, thread));
    }
    for (sender, thread) in started {
        drop(sender);
        // The thread runs nothing that can panic.
        let _ = thread.join();
    }
    Ok(())
}

fn workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Runs file I/O on a thread for blocking work, where it does not block the runtime.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_allowed_end_again_and_the_runtime_works() {
        check_allowed().expect("so many threads");
        let runtime = server_runtime().expect("a runtime");
        let here = thread::current().id();
        let done = runtime.spawn_blocking(|| thread::current().id());
        assert_ne!(runtime.block_on(done).expect("done"), here);
    }
}
