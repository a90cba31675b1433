//! Starts shims, and finds the traces of those that an earlier server started.

use std::{collections::BTreeSet, fs, io, process::Stdio, time::Duration};

use tokio::process::{Child, Command};

use super::{
    Context,
    probe::{self, Reached},
};
use crate::spool::Layout;

/// How long a new shim may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Between two knocks at a new shim's door.
const KNOCK_EVERY: Duration = Duration::from_millis(2);

/// A name for a new shim, never used before.
pub fn new_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// Starts a shim from our own binary and waits until it answers.
pub async fn spawn(ctx: &Context, shim: &str) -> io::Result<Reached> {
    let child = start(&ctx.layout, shim)?;
    tokio::time::timeout(READY_WITHIN, ready(ctx, shim, child))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn start(layout: &Layout, shim: &str) -> io::Result<Child> {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(layout.shim_log())?;
    // Our own image, also where the file on disk has been replaced by a newer one.
    let child = Command::new("/proc/self/exe")
        .arg("shim")
        .arg("--data-dir")
        .arg(layout.root())
        .arg("--id")
        .arg(shim)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()?;
    // A job shall see the limit that we were started with, and it inherits the shim's.
    if let Err(error) = crate::descriptors::put_back(child.id()) {
        tracing::warn!(%error, shim, "could not put back the limit of open files");
    }
    Ok(child)
}

async fn ready(ctx: &Context, shim: &str, mut child: Child) -> io::Result<Reached> {
    let mut knocks = tokio::time::interval(KNOCK_EVERY);
    let socket = ctx.layout.shims().join(Layout::shim_socket_name(shim));
    loop {
        knocks.tick().await;
        if socket.exists()
            && let reached @ Reached::Answers(..) = probe::reach(ctx, shim).await
        {
            reap_later(child);
            return Ok(reached);
        }
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("it ended at once: {status}")));
        }
    }
}

/// A shim may outlive us; while we live we are its parent and must take its exit status.
fn reap_later(mut child: Child) {
    tokio::spawn(async move {
        let _ = child.wait().await;
    });
}

/// The ids of all shims that have a lock or a socket in the data directory.
pub fn traces(layout: &Layout) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(layout.shims()) else {
        return BTreeSet::new();
    };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let (id, kind) = name.split_once('.')?;
            matches!(kind, "lock" | "sock").then(|| id.to_owned())
        })
        .collect()
}

/// Removes the names of all shims from a copy of a data directory: they are the original's. A directory
/// that is reached through a link is the original's itself.
pub fn forget_all_traces(layout: &Layout) {
    let is_link = fs::symlink_metadata(layout.shims()).is_ok_and(|there| there.is_symlink());
    if !is_link {
        for shim in traces(layout) {
            remove_traces(layout, &shim);
        }
    }
}

/// Removes what a dead shim left.
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
