//! The server's runtime and its threads: how many there may be, and that one for blocking work is
//! always there, so that a kernel that refuses another thread delays work and never loses it.
//!
//! What the threads do is not known here.

use std::{io, sync::mpsc, thread, time::Duration};

use tokio::runtime::{Builder, Runtime};

/// Most threads for blocking work: reading segments, syncing, searching. What comes beyond that
/// waits for one of them.
const BLOCKING_MAX: usize = 64;

/// How long an idle thread stays. Longer than any server lives: tokio panics where the kernel
/// refuses a thread and none is there to take the work (`Handle::spawn_blocking`), and with a
/// shorter time a quiet server would have none.
const KEPT_FOR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The runtime of a server: as many workers as there are processors, and one thread for blocking
/// work that is there before anything else is done.
///
/// # Errors
///
/// The kernel does not allow the threads that this takes (`RLIMIT_NPROC`, the control group's
/// `pids.max`), or no descriptor is left.
///
/// # Panics
///
/// Tokio's own way where a worker cannot be started: see [`are_allowed`].
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

/// Whether the threads of [`server_runtime`] may be started: starts as many at once, and ends them.
///
/// # Errors
///
/// As there.
pub fn check_allowed() -> io::Result<()> {
    let mut started = Vec::new();
    for _ in 0..=workers() {
        // Each waits until its sender is gone, however this ends.
        let (sender, receiver) = mpsc::channel::<()>();
        let thread = thread::Builder::new().spawn(move || receiver.recv())?;
        started.push((sender, thread));
    }
    for (sender, thread) in started {
        drop(sender);
        // It has nothing in it that could panic.
        let _ = thread.join();
    }
    Ok(())
}

fn workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Runs file I/O where it cannot hold up the runtime.
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
