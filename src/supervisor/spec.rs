//! Turns a claim into what the shim needs to run it: the arguments, the whole environment, the
//! limits.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nix::{
    errno::Errno,
    unistd::{Uid, User},
};

use crate::{
    job::{OutputPolicy, Seconds, WhenFull},
    policy::BASE_PATH,
    spool::RunSpec,
    store::ClaimedJob,
};

/// Limits that every run gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLimits {
    /// Segments are sealed at this size, bytes.
    pub segment_bytes: u64,
    /// Output up to this size becomes rows, bytes.
    pub inline_bytes_max: u64,
    /// Bound of all segments together, bytes; `None`: no bound.
    pub spool_bytes_max: Option<u64>,
    /// What stays free on the file system, bytes.
    pub free_bytes_min: u64,
}

/// The mark by which a process of a job is found again. The job may use it, too.
pub const JOB_ID_VARIABLE: &str = "CC_EXECUTOR_JOB_ID";

/// The other half of the mark: a restored backup has the same jobs, but not their processes.
pub const INSTANCE_VARIABLE: &str = "CC_EXECUTOR_INSTANCE";

/// Tells a job its data directory, so that what it submits itself goes to the same server.
const DATA_DIR_VARIABLE: &str = "CC_EXECUTOR_DATA_DIR";

/// What a shim needs to run this claim for the `instance` of this data directory (absolute).
/// Earlier attempts have stored `lines_before` lines.
pub fn run_spec(
    claim: &ClaimedJob,
    lines_before: u64,
    bounds: &RunLimits,
    instance: &str,
    data_dir: &Path,
) -> RunSpec {
    let job = &claim.job;
    RunSpec {
        job: claim.number,
        job_id: claim.id,
        attempt: claim.attempt,
        start_offset: claim.start_offset,
        argv: job.command.to_argv(),
        cwd: job.cwd.clone().unwrap_or_else(|| home().to_owned()),
        env: environment(claim, instance, data_dir),
        secret_env: Vec::new(),
        redact: job.output.redact,
        umask: job.umask.0,
        limits: job.limits,
        stdin: job.stdin.clone(),
        interactive: job.interactive,
        inputs: claim.inputs.clone(),
        timeout_ms: job.timeout_s.map(Seconds::to_ms),
        stall_timeout_ms: job.stall_timeout_s.map(Seconds::to_ms),
        grace_ms: job.grace_s.to_ms(),
        leftover: job.leftover,
        output_bytes_max: output_bytes_max(claim),
        output_lines_max: output_lines_max(&job.output, lines_before),
        when_full: job.output.when_full,
        segment_bytes: segment_bytes(&job.output, bounds),
        inline_bytes_max: bounds.inline_bytes_max,
        spool_bytes_max: bounds.spool_bytes_max,
        free_bytes_min: bounds.free_bytes_min,
        stop: None,
        paused: claim.paused,
        cgroup: None,
        pinned: None,
        refusal: None,
    }
}

/// The offset at which the output of this attempt must end. What earlier attempts have stored
/// counts, gaps do not. If the oldest output is dropped, the bound holds for each attempt by
/// itself.
fn output_bytes_max(claim: &ClaimedJob) -> Option<u64> {
    let OutputPolicy {
        max_bytes,
        when_full,
        ..
    } = claim.job.output;
    match when_full {
        WhenFull::DropOldest => max_bytes,
        WhenFull::Fail | WhenFull::DropNewest => {
            max_bytes.map(|max| max.saturating_add(claim.missing_bytes))
        }
    }
}

/// How many lines this attempt may store. If the oldest output is dropped, the bound holds for each
/// attempt by itself, as it does for bytes.
fn output_lines_max(output: &OutputPolicy, lines_before: u64) -> Option<u64> {
    let max = output.max_lines?;
    Some(match output.when_full {
        WhenFull::DropOldest => max,
        WhenFull::Fail | WhenFull::DropNewest => max.saturating_sub(lines_before),
    })
}

/// The output of a job whose oldest output is dropped is cut into at least this many segments.
/// Whole segments are dropped, so what stays is never much less than the bound.
const RETENTION_SEGMENTS: u64 = 8;

fn segment_bytes(output: &OutputPolicy, bounds: &RunLimits) -> u64 {
    match (output.when_full, output.max_bytes) {
        (WhenFull::DropOldest, Some(max)) => bounds.segment_bytes.min(max / RETENTION_SEGMENTS),
        _ => bounds.segment_bytes,
    }
}

/// The clean base environment and the data directory, then the job's own variables, then our marks.
fn environment(claim: &ClaimedJob, instance: &str, data_dir: &Path) -> Vec<(String, String)> {
    let mut env: std::collections::BTreeMap<String, String> = base_environment().into();
    // Variables are text. If the path is not UTF-8, the job has to know it by other means.
    if let Some(data_dir) = data_dir.to_str() {
        env.insert(DATA_DIR_VARIABLE.into(), data_dir.to_owned());
    }
    let own = claim.job.env.iter();
    env.extend(own.filter_map(|(name, value)| Some((name.clone(), value.text()?.to_owned()))));
    // The secret takes the place of ours.
    env.retain(|name, _| {
        claim
            .job
            .env
            .get(name)
            .is_none_or(|own| own.secret().is_none())
    });
    env.insert(JOB_ID_VARIABLE.into(), claim.id.to_string());
    env.insert(INSTANCE_VARIABLE.into(), instance.to_owned());
    env.insert("CC_EXECUTOR_JOB".into(), claim.number.to_string());
    env.insert("CC_EXECUTOR_ATTEMPT".into(), claim.attempt.to_string());
    env.into_iter().collect()
}

/// The clean base environment: the server's user, and a PATH.
pub fn base_environment() -> [(String, String); 5] {
    let user = user();
    [
        ("HOME".to_owned(), user.home.clone()),
        ("LOGNAME".to_owned(), user.name.clone()),
        ("PATH".to_owned(), BASE_PATH.to_owned()),
        ("SHELL".to_owned(), user.shell.clone()),
        ("USER".to_owned(), user.name.clone()),
    ]
}

/// The home directory of the server's user. A job that names no directory runs there.
pub fn home() -> &'static str {
    &user().home
}

/// What passwd(5) says of the server's user, read once.
#[derive(Debug)]
struct UserAccount {
    name: String,
    home: String,
    shell: String,
}

static USER: OnceLock<UserAccount> = OnceLock::new();

/// Looks the server's user up before any job needs it: later there may be no descriptor for that.
/// The answer is used as long as the server runs.
///
/// # Errors
///
/// The lookup failed. A user without an entry is no error.
pub fn look_up_user() -> std::io::Result<()> {
    let user = match User::from_uid(Uid::effective()) {
        Ok(user) => user,
        // What getpwuid_r(3) may return for a user without an entry.
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => None,
        Err(errno) => return Err(errno.into()),
    };
    USER.get_or_init(|| UserAccount::of(user));
    Ok(())
}

fn user() -> &'static UserAccount {
    USER.get_or_init(|| UserAccount::of(None))
}

impl UserAccount {
    fn of(user: Option<User>) -> Self {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        user.map_or_else(
            || Self {
                name: Uid::effective().to_string(),
                home: "/".to_owned(),
                shell: "/bin/sh".to_owned(),
            },
            |user| Self {
                name: user.name,
                // passwd(5) may have none, or a relative one.
                home: match user.dir.is_absolute() {
                    true => text(user.dir),
                    false => "/".to_owned(),
                },
                shell: text(user.shell),
            },
        )
    }
}
