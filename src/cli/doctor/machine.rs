//! The kernel, limits of this process, and what can hold a job's processes together.

use std::{fs, io, path::Path};

use rustix::process::{PidfdFlags, Resource, getpid, getrlimit, pidfd_open};
use serde_json::Value;

use super::Check;
use crate::sys::{cgroup_probe, descriptors};

/// Below so many open files a server runs fewer jobs side by side than its queues may have.
const OPEN_FILES_WANTED: u64 = 4096;

/// Checks this machine. What holds processes together is told by the server, if one answers.
pub fn check(info: Option<&Value>) -> Vec<Check> {
    vec![kernel(), isolation(info), open_files(), mark()]
}

/// What a shim cannot do without.
fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim_end();
    let lacks = match (pidfd_open(getpid(), PidfdFlags::empty()), children()) {
        (Err(error), _) => format!("pidfd_open(2): {error}"),
        (_, Err(error)) => format!("/proc/PID/task/TID/children: {error}"),
        (Ok(_), Ok(())) => return Check::ok("kernel", format!("Linux {release}")),
    };
    let advice = "use Linux 5.9 or newer with CONFIG_PROC_CHILDREN, and mount /proc";
    Check::failure("kernel", format!("Linux {release} lacks {lacks}"), advice)
}

fn children() -> io::Result<()> {
    let pid = std::process::id();
    let list = Path::new("/proc").join(format!("{pid}/task/{pid}/children"));
    fs::read(list).map(drop)
}

fn isolation(info: Option<&Value>) -> Check {
    let told = info.and_then(|info| {
        let level = info["isolation"].as_str()?.to_owned();
        Some((level, info["isolation_reason"].as_str().map(str::to_owned)))
    });
    let (level, reason) = told.unwrap_or_else(|| {
        let name = format!("cc-executor-doctor-{}", std::process::id());
        match cgroup_probe::probe(&name) {
            Ok(_) => ("A".to_owned(), None),
            Err(reason) => ("B".to_owned(), Some(reason)),
        }
    });
    match reason {
        None => Check::ok(
            "isolation",
            format!("level {level}: a control group for each attempt"),
        ),
        Some(reason) => Check::warning(
            "isolation",
            format!("level {level}: the process tree below a shim ({reason})"),
            "for level A run the server as root, as a systemd service with Delegate=yes, or by \
             `systemd-run --user --scope -p Delegate=yes`",
        ),
    }
}

fn open_files() -> Check {
    match descriptors::open_files_max() {
        Some(max) if max < OPEN_FILES_WANTED => Check::warning(
            "open files",
            format!("a process may have {max}"),
            format!(
                "raise the hard limit (`ulimit -Hn`) to {OPEN_FILES_WANTED} for many jobs side by side"
            ),
        ),
        Some(max) => Check::ok("open files", format!("a process may have {max}")),
        None => Check::ok("open files", "no bound"),
    }
}

/// Processes of a job whose shim is dead are found by a number in a limit of theirs.
fn mark() -> Check {
    match getrlimit(Resource::Rttime).maximum {
        None => Check::ok(
            "marks",
            "processes of a dead shim are found by their environment and by a number",
        ),
        Some(max) => Check::warning(
            "marks",
            format!(
                "the hard limit RLIMIT_RTTIME is {max}, so the number that processes of a job carry may not fit"
            ),
            "lift that limit for the server, or use isolation level A",
        ),
    }
}
