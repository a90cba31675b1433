//! Judges a job by the policy: at the entry, and again when it is claimed, with what the file system says
//! then. What was judged is pinned for the shim.

use std::path::Path;

use super::{base_environment, home};
use crate::{
    job::{
        JobSpec, NotifyEntry, NotifyTarget, PolicyDecision, PolicyRecord, Requester, SpawnError,
    },
    policy::{Judged, JudgedUrl, NotJudged, PolicyGuard, PolicyView, Subject, Verdict},
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

/// A job as it is judged, with every command that the server would run to tell of it.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedJob {
    job: Judged,
    receivers: JudgedReceivers,
}

impl JudgedJob {
    /// This job, for this requester.
    pub fn of(job: &JobSpec, requester: &Requester) -> Self {
        Self {
            job: Judged::of(job, requester, &base_environment(), home()),
            receivers: JudgedReceivers::commands(job, requester),
        }
    }

    /// The decision about it.
    pub fn judge(&self, policy: &PolicyView) -> Result<Taken, PolicyRefusal> {
        let judgement = policy.judge(&self.job);
        refuse(&judgement.verdict, &judgement.digest)?;
        self.receivers.judge(policy)?;
        Ok(Taken {
            record: PolicyRecord {
                decision: Some(PolicyDecision {
                    rule: judgement.verdict.rule.clone(),
                    digest: judgement.digest,
                }),
                requester: self.job.requester.clone(),
            },
            pinned: pinned(&judgement.verdict, &judgement.subject),
        })
    }
}

/// Receivers of notices, with their places.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedReceivers(Vec<(usize, JudgedReceiver)>);

impl JudgedReceivers {
    /// Those about jobs in this queue, apart from a job.
    pub fn of(receivers: &[NotifyEntry], queue: &str, requester: &Requester) -> Self {
        let all = receivers.iter();
        let all = all.map(|entry| JudgedReceiver::of(&entry.target, queue, requester));
        Self(all.enumerate().collect())
    }

    /// The commands among those of a job: its URLs are judged with the job itself.
    fn commands(job: &JobSpec, requester: &Requester) -> Self {
        let Self(mut all) = Self::of(&job.notify, &job.queue, requester);
        all.retain(|(_, one)| matches!(one, JudgedReceiver::Command(_)));
        Self(all)
    }

    /// Whether all of them may be told; of each command what may be run.
    pub fn judge(&self, policy: &PolicyView) -> Result<Vec<Option<PinnedRun>>, PolicyRefusal> {
        let judged = self.0.iter().map(|(index, receiver)| {
            receiver.judge(policy).map_err(|refusal| PolicyRefusal {
                message: format!("notify[{index}]: {}", refusal.message),
                ..refusal
            })
        });
        judged.collect()
    }
}

/// A receiver of notices as it is judged.
#[derive(Debug, Clone, PartialEq)]
pub enum JudgedReceiver {
    /// A command, which is a job of its own.
    Command(Box<Judged>),
    /// A URL.
    Url(JudgedUrl),
}

impl JudgedReceiver {
    /// That of notices about a job in this queue, for this requester.
    pub fn of(target: &NotifyTarget, queue: &str, requester: &Requester) -> Self {
        match target {
            NotifyTarget::Argv(argv) => {
                let command = Judged::notice(argv, queue, requester, home());
                Self::Command(Box::new(command))
            }
            NotifyTarget::Url(url) => Self::Url(JudgedUrl {
                url: url.clone(),
                queue: queue.to_owned(),
                requester: requester.clone(),
            }),
        }
    }

    /// Whether it may be told; of a command what may be run.
    pub fn judge(&self, policy: &PolicyView) -> Result<Option<PinnedRun>, PolicyRefusal> {
        match self {
            Self::Command(command) => {
                let judgement = policy.judge(command);
                refuse(&judgement.verdict, &judgement.digest)?;
                Ok(Some(pinned(&judgement.verdict, &judgement.subject)))
            }
            Self::Url(url) => {
                let (verdict, digest) = policy.judge_url(url);
                refuse(&verdict, &digest).map(|()| None)
            }
        }
    }
}

/// Judges a claimed job by the policy, and pins what it may run.
pub(super) async fn apply(spec: &mut RunSpec, guard: &PolicyGuard, claim: &ClaimedJob) {
    let record = claim.policy.as_ref();
    let requester = record.map_or_else(Requester::default_one, |one| one.requester.clone());
    let job = JudgedJob::of(&claim.job, &requester);
    let number = claim.number;
    let refusal = match guard.judged(move |policy| job.judge(policy)).await {
        Ok(Ok(taken)) => {
            spec.pinned = Some(taken.pinned);
            return;
        }
        Ok(Err(refusal)) => {
            let PolicyRefusal {
                rule,
                digest,
                message,
            } = &refusal;
            tracing::warn!(
                job = number,
                rule,
                digest,
                "the policy refuses a job that was taken before: {message}"
            );
            as_spawn_error(&refusal)
        }
        Err(error) => {
            tracing::warn!(job = number, %error, "a job is not started");
            not_judged(&error)
        }
    };
    // For a shim that does not know the refusal.
    spec.argv = vec!["/bin/false".to_owned()];
    spec.refusal = Some(refusal);
}

/// The end of an attempt that could not be judged.
fn not_judged(error: &NotJudged) -> SpawnError {
    SpawnError {
        errno: libc::ETIMEDOUT,
        name: "ETIMEDOUT".to_owned(),
        what: format!("start, because {error}"),
    }
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

fn refuse(verdict: &Verdict, digest: &str) -> Result<(), PolicyRefusal> {
    match verdict.refusal() {
        None => Ok(()),
        Some(message) => Err(PolicyRefusal {
            rule: verdict.rule.clone(),
            digest: digest.to_owned(),
            message,
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
