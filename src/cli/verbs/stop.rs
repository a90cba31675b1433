//! `stop`: ends the server of a data directory. Running jobs go on under their shims, unless
//! `--drain` or `--kill-jobs` is given.
//!
//! The kernel names the process: the one that listens on the socket, or if none listens, the one
//! that holds the directory's lock; never a file with a process id alone. A pidfd then makes sure
//! that the signal cannot reach another process with the same id.

use std::{
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
};

use anyhow::{Context, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::{
    cli::{
        connect::{
            client::RequestError,
            dial::{self, ConnectError},
            find_job::{self, LIVE},
            holder,
            link::{self, Link, VersionNotice},
            proc::{self, Launched},
            target::{DataDir, Target},
            wire::WireError,
        },
        render::print,
    },
    escape,
    spool::Layout,
};

/// How long `stop` waits from SIGTERM to the server's end, milliseconds; the contract allows 5 s.
const STOP_MAX_MS: u16 = 30_000;

/// Options of `stop`.
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    #[command(flatten)]
    dir: DataDir,

    /// Wait until all jobs have ended, then stop
    #[arg(long, conflicts_with = "kill_jobs")]
    drain: bool,

    /// Kill all jobs, then stop
    #[arg(long)]
    kill_jobs: bool,
}

/// Stops the server.
pub async fn stop(args: StopArgs) -> anyhow::Result<ExitCode> {
    let layout = args.dir.layout()?;
    if (args.drain || args.kill_jobs) && find(&layout).await?.is_some() {
        let target = Target::Local(layout.clone());
        let mut link = link::open_always(target, VersionNotice::OnTerminal).await?;
        end_live_jobs(&mut link, args.kill_jobs).await?;
    }
    match find(&layout).await? {
        Some(server) => {
            let pid = server.pid;
            server.stop().await?;
            let place = layout.root().display().to_string();
            print::page(&format!(
                "stopped the server of {} (pid {pid})\n",
                escape::visible(&place)
            ))?;
        }
        None => print::line(&format!("no server runs on {}", layout.root().display())),
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until no job is live; with `kill`, kills them first.
async fn end_live_jobs(link: &mut Link, kill: bool) -> anyhow::Result<()> {
    loop {
        let live = find_job::list(link, &json!({"state": LIVE})).await?;
        if live.is_empty() {
            return Ok(());
        }
        for job in live.iter().filter(|_| kill) {
            let params = json!({"job": job.id, "action": "kill", "actor": "cli"});
            unless_deleted(link.request("job.control", &params).await)?;
        }
        print::line_on_terminal(&format!("waiting for {} jobs", live.len()));
        for job in &live {
            unless_deleted(link.wait_for_end(&job.id).await)?;
        }
    }
}

/// A job that was deleted in the meantime has ended before.
fn unless_deleted<T>(done: anyhow::Result<T>) -> anyhow::Result<()> {
    match done {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref();
    matches!(refused, Some(RequestError::Refused(error)) if error.code == WireError::NOT_FOUND)
}

/// A server process, held by a pidfd.
pub struct RunningServer {
    /// Its process id in our PID namespace.
    pub pid: i32,
    /// How it was started.
    pub launched: Launched,
    process: OwnedFd,
}

/// The server of a data directory; `None` if none runs. Nothing is sent to it, so it may be of any
/// version.
pub async fn find(layout: &Layout) -> anyhow::Result<Option<RunningServer>> {
    let Some(pid) = server_pid(layout).await? else {
        return Ok(None);
    };
    let process = Pid::from_raw(pid)
        .context("the server runs in another PID namespace; stop it from there")
        .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?))?;
    let launched =
        proc::launched(layout, pid).context("the server's command line cannot be read")?;
    // The same id after the open: so the descriptor is the server's and not that of a process that
    // got its id later.
    if server_pid(layout).await? != Some(pid) {
        bail!("another server has just replaced it; try again");
    }
    Ok(Some(RunningServer {
        pid,
        launched,
        process,
    }))
}

async fn server_pid(layout: &Layout) -> anyhow::Result<Option<i32>> {
    match dial::listener_pid(layout).await {
        Ok(pid) => Ok(Some(pid.unwrap_or(0))),
        // The server is starting or stopping, or its socket was removed: the lock names it as well.
        Err(ConnectError::Absent(_)) if holder::is_locked(layout) => match holder::holder(layout) {
            Some(pid) => Ok(Some(pid)),
            None => bail!(
                "a process that is not visible here has locked {} and does not listen; try again in \
                 a moment, or look into {}",
                layout.root().display(),
                layout.log().display()
            ),
        },
        Err(ConnectError::Absent(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl RunningServer {
    /// Sends SIGTERM, and waits until the process is gone.
    pub async fn stop(self) -> anyhow::Result<()> {
        pidfd_send_signal(&self.process, Signal::TERM)
            .with_context(|| format!("the server (pid {}) cannot be signalled", self.pid))?;
        let Self { pid, process, .. } = self;
        match spawn_blocking(move || ends_within(&process, STOP_MAX_MS)).await?? {
            true => Ok(()),
            false => bail!(
                "the server (pid {pid}) still runs after {} s; `kill -9 {pid}` ends it, and its jobs go on",
                STOP_MAX_MS / 1000
            ),
        }
    }
}

/// Waits up to `max_ms` milliseconds until a process is gone; whether it is.
fn ends_within(process: &OwnedFd, max_ms: u16) -> std::io::Result<bool> {
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::from(max_ms)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
