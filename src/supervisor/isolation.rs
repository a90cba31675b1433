//! How the processes of an attempt are held together. Level A: each attempt has a control group of its own, so that it is
//! frozen and killed as one, and found again although its shim is dead. Level B: the process tree below its shim, marks
//! in its environment and in a resource limit. docs/design/isolation.md says what each level cannot do.
//!
//! Which level is possible is found out once, at the start of a server, by doing with a process what is done with jobs.

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::{prctl::set_pdeathsig, signal::Signal};

use crate::{
    job::JobNumber,
    spool::CgroupSpec,
    store::OpenAttempt,
    sys::{
        cgroup::{self, Cgroup},
        threads::blocking,
    },
};

/// The binary's role as the process of the probe: it waits until it is killed.
pub const PROBE_ROLE: &str = "isolation-probe";

/// How long one step of the probe may take.
const STEP_WITHIN: Duration = Duration::from_secs(2);

/// The interval between two looks at a group that changes.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How long the processes of a group that was killed may take to end. One in an uninterruptible wait takes longer; what
/// follows then finds it again.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A level that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedLevel {
    /// The highest that is possible.
    Highest,
    /// Level A, or no start.
    A,
    /// Level B, although A may be possible.
    B,
}

/// The level in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Isolation {
    /// The group above those of the attempts; `None`: level B.
    groups: Option<PathBuf>,
    /// Whether no attempt starts without its group.
    is_required: bool,
    /// Why it is not level A, for people.
    reason: Option<String>,
}

impl Isolation {
    /// Finds out which level is possible for a data directory's `instance`. Blocking, a few milliseconds.
    ///
    /// # Errors
    ///
    /// Level A is wanted and is not possible: why.
    pub fn find(wanted: WantedLevel, instance: &str) -> Result<Self, String> {
        let level_b = |reason: String| Self {
            groups: None,
            is_required: false,
            reason: Some(reason),
        };
        if wanted == WantedLevel::B {
            return Ok(level_b("the setting isolation says B".to_owned()));
        }
        match probe(instance) {
            Ok(groups) => Ok(Self {
                groups: Some(groups),
                is_required: wanted == WantedLevel::A,
                reason: None,
            }),
            Err(reason) if wanted == WantedLevel::A => Err(reason),
            Err(reason) => Ok(level_b(reason)),
        }
    }

    /// `A` or `B`.
    pub fn level(&self) -> &'static str {
        match self.groups {
            Some(_) => "A",
            None => "B",
        }
    }

    /// Why it is not level A; `None` where it is.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The group of an attempt; `None` at level B.
    pub fn group_of(&self, job: JobNumber, attempt: u32) -> Option<CgroupSpec> {
        let path = self.groups.as_ref()?.join(group_name(job, attempt));
        Some(CgroupSpec {
            // A path of the system's that is not UTF-8 was refused by the probe.
            path: path.to_str()?.to_owned(),
            required: self.is_required,
        })
    }

    /// Ends all processes of the group of an attempt whose shim is dead. Returns when they are gone, or after some
    /// seconds: what is left is searched for as without a group.
    pub async fn end(&self, path: PathBuf) {
        let killed = blocking(move || {
            let Some(group) = Cgroup::open(&path)? else {
                return Ok(true);
            };
            let begun = Instant::now();
            // What root moves into it meanwhile is killed, too.
            while group.events()?.populated && begun.elapsed() < ENDS_WITHIN {
                group.kill()?;
                sleep(LOOK_EVERY);
            }
            let is_empty = !group.events()?.populated;
            if is_empty {
                group.remove()?;
            }
            Ok(is_empty)
        });
        match killed.await {
            Ok(true) => {}
            Ok(false) => tracing::warn!(
                "processes of a lost attempt have not ended {ENDS_WITHIN:?} after SIGKILL"
            ),
            Err(error) => {
                tracing::warn!(%error, "the control group of a lost attempt could not be ended")
            }
        }
    }

    /// Removes groups that have no process and belong to no open attempt: those of survivors that have ended since,
    /// and of a probe whose server was killed.
    pub fn tidy(&self, open: &[OpenAttempt]) {
        let Some(groups) = &self.groups else { return };
        let is_open = |attempt| open.iter().any(|it| (it.number, it.attempt) == attempt);
        for entry in fs::read_dir(groups).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let attempt = name.to_str().and_then(parse_group_name);
            if !attempt.is_some_and(is_open) {
                // One with processes cannot be removed.
                let _ = fs::remove_dir(entry.path());
            }
        }
        let _ = fs::remove_dir(groups);
    }
}

/// The name of the group of an attempt.
fn group_name(job: JobNumber, attempt: u32) -> String {
    format!("{job}.{attempt}")
}

fn parse_group_name(name: &str) -> Option<(JobNumber, u32)> {
    let (job, attempt) = name.split_once('.')?;
    Some((job.parse().ok()?, attempt.parse().ok()?))
}

/// Does with a process what is done with jobs; the group above those of the attempts, or why there can be none.
fn probe(instance: &str) -> Result<PathBuf, String> {
    let own = cgroup::own_dir().map_err(|error| format!("reading /proc: {error}"))?;
    let own =
        own.ok_or("no hierarchy of control groups of version 2 is mounted that has this process")?;
    let groups = own.join(format!("cc-executor-{instance}"));
    if groups.to_str().is_none() {
        return Err("the path of the control groups is not UTF-8".to_owned());
    }
    let path = groups.join(format!("probe-{}", std::process::id()));
    let step = |what: &str| {
        let what = format!("{what} {}", path.display());
        move |error: io::Error| format!("{what}: {error}")
    };
    let group = Cgroup::create(&path).map_err(step("creating the control group"))?;
    let probed = probe_in(&group);
    // Its process is gone, or was never in it.
    let removed = group.remove();
    probed.map_err(step("trying the control group"))?;
    removed.map_err(step("removing the control group"))?;
    Ok(groups)
}

/// Puts a process into the group, freezes and kills it there.
fn probe_in(group: &Cgroup) -> io::Result<()> {
    let mut process = Command::new("/proc/self/exe")
        .arg0("cc-executor")
        .arg(PROBE_ROLE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let probed = probe_with(group, &mut process);
    // Where the group's kill has failed.
    let _ = process.kill();
    process.wait()?;
    probed
}

fn probe_with(group: &Cgroup, process: &mut Child) -> io::Result<()> {
    group.take(process.id())?;
    group.freeze(true)?;
    until("its process is not frozen", || Ok(group.events()?.frozen))?;
    group.kill()?;
    until("its process is not killed", || {
        Ok(process.try_wait()?.is_some())
    })?;
    until("it is not empty", || Ok(!group.events()?.populated))
}

/// Waits for a step of the probe.
fn until(what: &str, mut is_done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let begun = Instant::now();
    while !is_done()? {
        if begun.elapsed() > STEP_WITHIN {
            return Err(io::Error::other(format!("{what} after {STEP_WITHIN:?}")));
        }
        sleep(LOOK_EVERY);
    }
    Ok(())
}

/// The process of a probe; it does not outlive the server.
pub fn be_probed() -> ! {
    let _ = set_pdeathsig(Signal::SIGKILL);
    loop {
        nix::unistd::pause();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_group_tells_the_attempt() {
        assert_eq!(parse_group_name(&group_name(42, 3)), Some((42, 3)));
        for other in ["probe-7", "42", "42.x", ".", "42.3.1"] {
            assert_eq!(parse_group_name(other), None, "{other}");
        }
    }

    #[test]
    fn level_b_can_be_asked_for() {
        let isolation = Isolation::find(WantedLevel::B, "x").expect("always possible");
        assert_eq!((isolation.level(), isolation.group_of(1, 1)), ("B", None));
        assert!(isolation.reason().is_some());
    }
}
