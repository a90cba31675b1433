//! Checks whether recorded state changes are a life that a job can have had.

use super::{
    JobState, Reason,
    retry::RETRIED,
    state::may_follow,
    verification::{Fault, VerificationProblem},
};

/// A recorded state change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// The event's id.
    pub event: i64,
    /// Number of the attempt; `None` before the first.
    pub attempt: Option<u32>,
    /// The state before; `None` at the submission.
    pub from: Option<JobState>,
    /// The state after.
    pub to: JobState,
    /// The reason of the change, where it has one.
    pub reason: Option<Reason>,
}

/// The state changes of one job, as far as they were added.
#[derive(Debug, Default)]
pub struct Chain {
    last: Option<Recorded>,
}

impl Chain {
    /// Adds the next state change; returns what is wrong with it.
    pub fn add(&mut self, next: Recorded) -> Option<VerificationProblem> {
        let before = self.last.replace(next);
        let wrong = wrong_step(before, next).or_else(|| wrong_attempt(before, next));
        let message = wrong.or_else(|| wrong_reason(next))?;
        Some(VerificationProblem {
            attempt: next.attempt,
            event: Some(next.event),
            ..VerificationProblem::new(Fault::Events, format!("event {}: {message}", next.event))
        })
    }

    /// Compares the last state change with the job's row: its state, reason and current attempt.
    pub fn end(
        &self,
        state: JobState,
        reason: Option<Reason>,
        attempt: u32,
    ) -> Option<VerificationProblem> {
        let Some(last) = self.last else {
            let message = "no event tells of the job's submission";
            return Some(VerificationProblem::new(Fault::Events, message));
        };
        let id = last.event;
        let message = if last.to != state {
            let (to, is) = (last.to.name(), state.name());
            format!("the newest event, {id}, leads to {to}, and the job is {is}")
        } else if state.is_final() && last.reason != reason {
            let (recorded, is) = (reason_name(last.reason), reason_name(reason));
            format!("the newest event, {id}, gives the reason {recorded}, and the job {is}")
        } else if last.attempt.unwrap_or(0) != attempt {
            let recorded = last.attempt.unwrap_or(0);
            format!("the newest event, {id}, is of attempt {recorded}, and the job is at {attempt}")
        } else {
            return None;
        };
        Some(VerificationProblem {
            event: Some(id),
            ..VerificationProblem::new(Fault::Events, message)
        })
    }
}

fn reason_name(reason: Option<Reason>) -> &'static str {
    reason.map_or("none", Reason::name)
}

fn wrong_step(before: Option<Recorded>, next: Recorded) -> Option<String> {
    let (was, from) = (before.map(|before| before.to), next.from);
    let name = |state: Option<JobState>| state.map_or("nothing", JobState::name);
    if was != from {
        let (was, from) = (name(was), name(from));
        return Some(format!(
            "it leaves {from}, and the one before it led to {was}: one between them is missing"
        ));
    }
    (!may_follow(from, next.to)).then(|| {
        let (from, to) = (name(from), next.to.name());
        format!("no job goes from {from} to {to}")
    })
}

/// A claim begins the next attempt; no other event changes its number.
fn wrong_attempt(before: Option<Recorded>, next: Recorded) -> Option<String> {
    let was = before.and_then(|before| before.attempt).unwrap_or(0);
    let claimed = next.from == Some(JobState::Queued) && next.to == JobState::Running;
    let (is, due) = (next.attempt.unwrap_or(0), was + u32::from(claimed));
    (is != due).then(|| format!("it is of attempt {is}, and attempt {due} was due"))
}

/// A failure needs a reason, whether it is final or tried again; a requeue may have the reason `lost`; no
/// other change has one.
fn wrong_reason(next: Recorded) -> Option<String> {
    let ends_attempt = next.from.is_some_and(JobState::is_active);
    let fits = match next.to {
        JobState::Failed => next.reason.is_some(),
        JobState::Scheduled if ends_attempt => next.reason.is_some_and(is_retried),
        JobState::Queued => matches!(next.reason, None | Some(Reason::Lost)),
        _ => next.reason.is_none(),
    };
    let (to, reason) = (next.to.name(), reason_name(next.reason));
    (!fits).then(|| format!("nothing becomes {to} for the reason {reason}"))
}

fn is_retried(reason: Reason) -> bool {
    RETRIED.contains(&reason)
}

#[cfg(test)]
mod tests {
    use super::{JobState::*, *};

    type Row = (Option<u32>, Option<JobState>, JobState, Option<Reason>);

    const LIFE: [Row; 8] = [
        (None, None, Queued, None),
        (Some(1), Some(Queued), Running, None),
        (Some(1), Some(Running), Queued, Some(Reason::Lost)),
        (Some(2), Some(Queued), Running, None),
        (Some(2), Some(Running), Paused, None),
        (Some(2), Some(Paused), Running, None),
        (Some(2), Some(Running), Paused, None),
        (Some(2), Some(Paused), Failed, Some(Reason::ExitCode)),
    ];

    fn problems(rows: &[Row]) -> Vec<VerificationProblem> {
        let mut chain = Chain::default();
        let mut found = Vec::new();
        for (event, (attempt, from, to, reason)) in (1..).zip(rows.iter().copied()) {
            found.extend(chain.add(Recorded {
                event,
                attempt,
                from,
                to,
                reason,
            }));
        }
        found.extend(chain.end(Failed, Some(Reason::ExitCode), 2));
        found
    }

    #[test]
    fn a_life_that_a_job_can_have_has_no_problem() {
        assert_eq!(problems(&LIFE), []);
    }

    #[test]
    fn a_failure_that_is_tried_again_has_its_reason() {
        let with = |reason| {
            let mut rows = LIFE.to_vec();
            rows[2] = (Some(1), Some(Running), Scheduled, reason);
            rows.insert(3, (Some(1), Some(Scheduled), Queued, None));
            problems(&rows)
        };
        for reason in Reason::ALL {
            let found = with(Some(reason));
            assert_eq!(found.is_empty(), is_retried(reason), "{reason:?}");
        }
        assert_ne!(with(None), []);
    }

    #[test]
    fn any_event_that_is_missing_is_missed() {
        for missing in 0..LIFE.len() {
            let mut rows = LIFE.to_vec();
            rows.remove(missing);
            assert_ne!(problems(&rows), [], "without {missing}");
        }
        assert_ne!(problems(&[]), []);
    }

    #[test]
    fn any_change_of_an_event_is_noticed() {
        for at in 0..LIFE.len() {
            let (attempt, from, to, reason) = LIFE[at];
            let other = |state| match state {
                Some(Cancelled) => Some(Running),
                _ => Some(Cancelled),
            };
            let changed: [Row; 5] = [
                (attempt.map(|a| a + 1).or(Some(1)), from, to, reason),
                (attempt, other(from), to, reason),
                (attempt, from, Cancelled, reason),
                (attempt, from, to, Some(Reason::Timeout)),
                (attempt, None, Running, reason),
            ];
            for row in changed {
                let mut rows = LIFE.to_vec();
                rows[at] = row;
                assert_ne!(problems(&rows), [], "{at}: {row:?}");
            }
        }
    }

    #[test]
    fn the_end_must_be_where_the_job_is() {
        let mut chain = Chain::default();
        for (event, (attempt, from, to, reason)) in (1..).zip(LIFE) {
            let recorded = Recorded {
                event,
                attempt,
                from,
                to,
                reason,
            };
            assert_eq!(chain.add(recorded), None);
        }
        for (state, reason, attempt) in [
            (Succeeded, None, 2),
            (Failed, Some(Reason::Timeout), 2),
            (Failed, None, 2),
            (Failed, Some(Reason::ExitCode), 3),
        ] {
            assert!(chain.end(state, reason, attempt).is_some(), "{state:?}");
        }
    }
}
