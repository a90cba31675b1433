//! Starts shims, and finds the traces of those that an earlier server started.

use std::{collections::BTreeSet, fs, io, io::Write, process::Stdio, time::Duration};

use tokio::process::{Child, Command};

use super::{
    Context,
    budget::ConnectionPermit,
    looked::Looked,
    probe::{self, ProbeOutcome},
};
use crate::spool::{Layout, ShimKey, safe_file};

/// How long a new shim may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The interval between two looks whether a new shim listens.
const PROBE_EVERY: Duration = Duration::from_millis(2);

/// An id for a new shim, never used before.
pub fn new_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// How many shims may be starting at a time: each takes several descriptors for a moment.
pub const STARTING_MAX: usize = 16;

/// Most descriptors that the start of one shim takes.
const START_DESCRIPTORS: usize = 8;

/// How many shims may be starting at a time under this limit of open files.
pub fn starting_max(open_files_max: Option<u64>) -> usize {
    let left = open_files_max.map_or(u64::MAX, crate::sys::descriptors::left_of);
    usize::try_from(left).map_or(STARTING_MAX, |left| {
        (left / 2 / START_DESCRIPTORS).clamp(1, STARTING_MAX)
    })
}

/// Starts a shim from our own binary and waits until it answers. Waits for a connection slot first.
pub async fn spawn(ctx: &Context, shim: &str) -> io::Result<ProbeOutcome> {
    let stopped = || io::Error::from(io::ErrorKind::Interrupted);
    let permit = ctx.stopping.run_until_cancelled(ctx.budget.take()).await;
    let permit = permit.ok_or_else(stopped)?;
    let starting = ctx
        .stopping
        .run_until_cancelled(ctx.starting.acquire())
        .await;
    // Never closed.
    let _starting = starting.ok_or_else(stopped)?.map_err(io::Error::other)?;
    let mut child = start(ctx, shim)?;
    let ready = tokio::time::timeout(READY_WITHIN, ready(ctx, shim, &mut child, permit));
    tokio::select! {
        biased;
        reached = ready => reached.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?,
        () = ctx.stopping.cancelled() => {
            // It holds nothing, and the server can no longer tell it to leave.
            child.kill().await?;
            Err(stopped())
        }
    }
}

fn start(ctx: &Context, shim: &str) -> io::Result<Child> {
    let layout = &ctx.layout;
    let log = safe_file::open_log(&layout.shim_log())?;
    // Our own image, even if the file on disk was replaced by a newer version.
    let mut child = Command::new("/proc/self/exe")
        .arg("shim")
        .arg("--data-dir")
        .arg(layout.root())
        .arg("--id")
        .arg(shim)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()?;
    hand_over(&mut child, &ctx.key_of(shim))?;
    // A job inherits the shim's limit. It must be the one with which the server was started.
    if let Err(error) = crate::sys::descriptors::restore_limit(child.id()) {
        tracing::warn!(%error, shim, "could not put back the limit of open files");
    }
    Ok(child)
}

/// Gives a shim its key through the pipe that is its stdin, because other processes can read its
/// command line and environment. The write does not block: a key fits into the pipe's buffer.
fn hand_over(child: &mut Child, key: &ShimKey) -> io::Result<()> {
    let pipe = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut pipe = fs::File::from(pipe.into_owned_fd()?);
    pipe.write_all(key.bytes())
}

async fn ready(
    ctx: &Context,
    shim: &str,
    child: &mut Child,
    permit: ConnectionPermit,
) -> io::Result<ProbeOutcome> {
    let mut ticks = tokio::time::interval(PROBE_EVERY);
    let socket = ctx.layout.shims().join(Layout::shim_socket_name(shim));
    let mut permit = Some(permit);
    loop {
        ticks.tick().await;
        if socket.exists() {
            let reached = match permit.take() {
                Some(permit) => probe::ask(ctx, shim, permit).await,
                None => probe::reach(ctx, shim).await,
            };
            if let ProbeOutcome::Answers(..) = reached {
                // A shim may outlive the server. Until then the runtime reaps a dropped child,
                // without a descriptor for it.
                return Ok(reached);
            }
        }
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("it ended at once: {status}")));
        }
    }
}

/// How long listing the directory is tried again.
const LIST_WITHIN: Duration = Duration::from_secs(1);

/// The pause between two tries to list it.
const LIST_EVERY: Duration = Duration::from_millis(100);

/// The ids of all shims that have a lock or a socket in the data directory.
///
/// # Errors
///
/// The directory could not be listed for a second, so it is unknown which shims live.
pub async fn traces(layout: &Layout) -> io::Result<BTreeSet<String>> {
    let deadline = tokio::time::Instant::now() + LIST_WITHIN;
    let mut tries = tokio::time::interval(LIST_EVERY);
    loop {
        tries.tick().await;
        match list(layout) {
            Err(error) if tokio::time::Instant::now() >= deadline => {
                let directory = layout.shims();
                let what = format!(
                    "{} cannot be listed, so it is unknown which jobs still run: {error}",
                    directory.display()
                );
                return Err(io::Error::new(error.kind(), what));
            }
            Err(error) => tracing::warn!(%error, "the traces of shims cannot be listed yet"),
            listed => return listed,
        }
    }
}

fn list(layout: &Layout) -> io::Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(layout.shims())? {
        let name = entry?.file_name();
        // The names of shims' files are UTF-8.
        let parts = name.to_str().and_then(|name| name.split_once('.'));
        if let Some((id, "lock" | "sock")) = parts {
            ids.insert(id.to_owned());
        }
    }
    Ok(ids)
}

/// Removes the files of a shim that could not be started, if it is proven to be dead. One that is
/// only slow exits by itself.
pub async fn remove_failed(ctx: &Context, shim: &str) {
    if probe::look(ctx, shim).await == Looked::Gone {
        remove_traces(&ctx.layout, shim);
    }
}

/// Removes the files of all shims from a copy of a data directory: they name shims of the original.
/// If the directory is a symbolic link, it may be the original's own, and nothing is removed.
///
/// # Errors
///
/// The directory could not be listed for a second.
pub async fn forget_all_traces(layout: &Layout) -> io::Result<()> {
    let is_link = fs::symlink_metadata(layout.shims()).is_ok_and(|there| there.is_symlink());
    if !is_link {
        for shim in traces(layout).await? {
            remove_traces(layout, &shim);
        }
    }
    Ok(())
}

/// Removes the socket and the lock of a dead shim.
pub fn remove_traces(layout: &Layout, shim: &str) {
    for name in [Layout::shim_socket_name(shim), Layout::shim_lock_name(shim)] {
        match fs::remove_file(layout.shims().join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(shim, %error, "a dead shim's trace could not be removed");
            }
            _ => {}
        }
    }
}
