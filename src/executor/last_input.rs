//! When each running job was last given input or resumed: whoever has just spoken to a job does not
//! call it quiet before it had time to answer.
//!
//! Kept in memory only; what was said before a restart of the server counts no more.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    job::JobNumber,
    output::{Hub, Watch},
};

/// From how many jobs on those that have ended are looked for.
const TIDY_FROM: usize = 256;

/// The last inputs of all jobs that have not ended.
#[derive(Debug, Default)]
pub(super) struct LastInputs(Mutex<InputTimes>);

#[derive(Debug, Default)]
struct InputTimes {
    /// With something that tells whether the job has ended, at no cost for it.
    jobs: HashMap<JobNumber, (Instant, Watch)>,
    /// At so many jobs those that have ended are forgotten.
    tidy_at: usize,
}

impl LastInputs {
    /// The job is given input now, or goes on after a pause.
    pub(super) fn note(&self, hub: &Hub, job: JobNumber) {
        let now = Instant::now();
        let mut inputs = self.inputs();
        if let Some((at, _)) = inputs.jobs.get_mut(&job) {
            *at = now;
            return;
        }
        if inputs.jobs.len() >= inputs.tidy_at.max(TIDY_FROM) {
            inputs.jobs.retain(|_, (_, watch)| !watch.has_ended());
            inputs.tidy_at = inputs.jobs.len() * 2;
        }
        inputs.jobs.insert(job, (now, hub.watch(job)));
    }

    /// How long ago the job was given input or went on.
    pub(super) fn age(&self, job: JobNumber) -> Option<Duration> {
        let inputs = self.inputs();
        inputs.jobs.get(&job).map(|(at, _)| at.elapsed())
    }

    fn inputs(&self) -> MutexGuard<'_, InputTimes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn jobs_that_have_ended_are_forgotten() {
        let (arms, _) = mpsc::unbounded_channel();
        let hub = Hub::new(arms);
        let inputs = LastInputs::default();
        for job in 1..=3 * TIDY_FROM as JobNumber {
            inputs.note(&hub, job);
            inputs.note(&hub, job);
            hub.ended(job);
        }
        assert!(inputs.inputs().jobs.len() <= TIDY_FROM);
        assert!(inputs.age(3 * TIDY_FROM as JobNumber).is_some());
        assert_eq!(inputs.age(1), None);
    }
}
