//! Judges a job by the policy: at the entry, and again when it is claimed, with what the file system says
//! then. What was judged is pinned for the shim.

use std::path::Path;

use super::{base_environment, home};
use crate::{
    job::{Command, JobSpec, NotifyEntry, NotifyTarget, PolicyRecord, Requester, SpawnError},
    policy::{Judged, Judgement, PolicyGuard, Subject, Verdict},
    spool::{PinnedRun, RunSpec},
    store::ClaimedJob,
};

/// Why the policy does not take a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRefusal {
    /// The rule that decided, or `default`.
    pub rule: String,
    /// The digest of the policy.
    pub digest: String,
    /// Why, a sentence for people.
    pub message: String,
}

/// A job that the policy takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The decision.
    pub record: PolicyRecord,
    /// What the shim may run.
    pub pinned: PinnedRun,
}

/// Judges a job, and every command that the server would run to tell of it.
pub fn judge_job(
    guard: &PolicyGuard,
    job: &JobSpec,
    requester: &Requester,
) -> Result<Taken, PolicyRefusal> {
    let judged = Judged::of(job, requester, &base_environment(), home());
    let judgement = guard.judge(&judged);
    refuse(&judgement, "")?;
    judge_notify(guard, &judged, &job.notify)?;
    Ok(Taken {
        record: PolicyRecord {
            rule: judgement.verdict.rule.clone(),
            digest: judgement.digest,
            requester: requester.clone(),
        },
        pinned: pinned(&judgement.verdict, &judgement.subject),
    })
}

/// Judges commands that the server would run at once, as if a job of this queue had asked for them.
pub fn judge_receivers(
    guard: &PolicyGuard,
    receivers: &[NotifyEntry],
    queue: &str,
    requester: &Requester,
) -> Result<(), PolicyRefusal> {
    let job = JobSpec {
        queue: queue.to_owned(),
        ..JobSpec::new(Command::Argv(Vec::new()))
    };
    let judged = Judged::of(&job, requester, &base_environment(), home());
    judge_notify(guard, &judged, receivers)
}

/// Judges a claimed job by the policy, and pins what it may run.
pub(super) fn apply(spec: &mut RunSpec, guard: &PolicyGuard, claim: &ClaimedJob) {
    match judge_claim(guard, claim) {
        Ok(taken) => spec.pinned = Some(taken.pinned),
        Err(refusal) => {
            tracing::warn!(
                job = claim.number,
                rule = refusal.rule,
                digest = refusal.digest,
                "the policy refuses a job that was taken before: {}",
                refusal.message
            );
            // For a shim that does not know the refusal.
            spec.argv = vec!["/bin/false".to_owned()];
            spec.refusal = Some(as_spawn_error(&refusal));
        }
    }
}

fn judge_claim(guard: &PolicyGuard, claim: &ClaimedJob) -> Result<Taken, PolicyRefusal> {
    let record = claim.policy.as_ref();
    // Until there was a policy, only the admin could submit.
    let requester = record.map_or_else(|| Requester::admin(None), |one| one.requester.clone());
    judge_job(guard, &claim.job, &requester)
}

/// The end of an attempt that is refused before it starts.
fn as_spawn_error(refusal: &PolicyRefusal) -> SpawnError {
    SpawnError {
        errno: libc::EPERM,
        name: "EPERM".to_owned(),
        what: format!(
            "start, because {} (rule {:?}, policy {})",
            refusal.message, refusal.rule, refusal.digest
        ),
    }
}

fn judge_notify(
    guard: &PolicyGuard,
    job: &Judged,
    notify: &[NotifyEntry],
) -> Result<(), PolicyRefusal> {
    for (index, entry) in notify.iter().enumerate() {
        if let NotifyTarget::Argv(argv) = &entry.target {
            let command = job.with_command(argv.clone(), home());
            refuse(&guard.judge(&command), &format!("notify[{index}]: "))?;
        }
    }
    Ok(())
}

fn refuse(judgement: &Judgement<'_>, place: &str) -> Result<(), PolicyRefusal> {
    match judgement.refusal() {
        None => Ok(()),
        Some(why) => Err(PolicyRefusal {
            rule: judgement.verdict.rule.clone(),
            digest: judgement.digest.clone(),
            message: format!("{place}{why}"),
        }),
    }
}

fn pinned(verdict: &Verdict, subject: &Subject<'_>) -> PinnedRun {
    // A path that is no text is not found by the shim either, so nothing runs.
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let cwd = subject.real_cwd.as_deref();
    PinnedRun {
        program: subject.program.real.as_deref().map(text),
        sha256: verdict.sha256.clone(),
        by_path: verdict.by_path,
        cwd: cwd.map_or_else(|| subject.job.cwd.clone(), text),
    }
}
