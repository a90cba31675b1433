//! How the processes of an attempt are held together. Level A: each attempt has a control group of its own, so that it is
//! frozen and killed as one, and found again although its shim is dead. Level B: the process tree below its shim, marks
//! in its environment and in a resource limit. docs/design/isolation.md says what each level cannot do.
//!
//! Which level is possible is found out once, at the start of a server, by doing with a process what is done with jobs.

use std::{
    fs,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    job::JobNumber,
    spool::CgroupSpec,
    store::OpenAttempt,
    sys::{cgroup::Cgroup, cgroup_probe, threads::blocking},
};

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
        match cgroup_probe::probe(&format!("cc-executor-{instance}")) {
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
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the processes of a dead shim tell nobody of their end"
                )]
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
