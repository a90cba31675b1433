//! Judges a job by the policy: at the entry, and again when it is claimed, with what the file system says
//! then. What was judged is pinned for the shim.

use std::path::Path;

use super::{base_environment, home};
use crate::{
    job::{
        JobSpec, NotifyEntry, NotifyTarget, PolicyDecision, PolicyRecord, Requester, SpawnError,
    },
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
    refuse(&judgement)?;
    judge_receivers(guard, &job.notify, &job.queue, requester)?;
    Ok(Taken {
        record: PolicyRecord {
            decision: Some(PolicyDecision {
                rule: judgement.verdict.rule.clone(),
                digest: judgement.digest,
            }),
            requester: requester.clone(),
        },
        pinned: pinned(&judgement.verdict, &judgement.subject),
    })
}

/// Judges the commands among the receivers of notices about jobs in this queue.
pub fn judge_receivers(
    guard: &PolicyGuard,
    receivers: &[NotifyEntry],
    queue: &str,
    requester: &Requester,
) -> Result<(), PolicyRefusal> {
    for (index, entry) in receivers.iter().enumerate() {
        if let NotifyTarget::Argv(argv) = &entry.target {
            let judged = judge_receiver(guard, argv, queue, requester);
            judged.map_err(|refusal| PolicyRefusal {
                message: format!("notify[{index}]: {}", refusal.message),
                ..refusal
            })?;
        }
    }
    Ok(())
}

/// Judges the command of one receiver.
pub fn judge_receiver(
    guard: &PolicyGuard,
    argv: &[String],
    queue: &str,
    requester: &Requester,
) -> Result<(), PolicyRefusal> {
    let command = Judged::notice(argv, queue, requester, home());
    refuse(&guard.judge(&command))
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
    let requester = record.map_or_else(Requester::default_one, |one| one.requester.clone());
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

fn refuse(judgement: &Judgement<'_>) -> Result<(), PolicyRefusal> {
    match judgement.refusal() {
        None => Ok(()),
        Some(why) => Err(PolicyRefusal {
            rule: judgement.verdict.rule.clone(),
            digest: judgement.digest.clone(),
            message: why,
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
