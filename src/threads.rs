//! The server's runtime and its threads: how many there may be, and that one for blocking work is
//! always there, so that a kernel that refuses another thread delays work and never loses it.
//!
//! What the threads do is not known here.

use std::{
    io,
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

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
pub fn server_runtime() -> io::Result<Runtime> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    // Tokio panics where a worker cannot be started, and cannot take the others back then.
    are_allowed(workers + 1)?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING_MAX)
        .thread_keep_alive(KEPT_FOR)
        .enable_all()
        .build()?;
    let first = runtime.spawn_blocking(|| ());
    runtime.block_on(first).map_err(io::Error::other)?;
    Ok(runtime)
}

/// Starts so many threads at once, and ends them.
fn are_allowed(count: usize) -> io::Result<()> {
    let all_started = Arc::new(Barrier::new(count + 1));
    let mut started = Vec::with_capacity(count);
    for _ in 0..count {
        let barrier = Arc::clone(&all_started);
        let thread = thread::Builder::new().spawn(move || {
            barrier.wait();
        });
        match thread {
            Ok(thread) => started.push(thread),
            // Those that wait at the barrier end with the process, which has nothing else to do.
            Err(error) => return Err(error),
        }
    }
    all_started.wait();
    for thread in started {
        // It has nothing in it that could panic.
        let _ = thread.join();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_allowed_end_again_and_the_runtime_works() {
        are_allowed(8).expect("eight threads");
        let runtime = server_runtime().expect("a runtime");
        let here = thread::current().id();
        let done = runtime.spawn_blocking(|| thread::current().id());
        assert_ne!(runtime.block_on(done).expect("done"), here);
    }
}
