//! Remembers when each running job was last given input or resumed: a job does not count as quiet
//! before it had time to answer.
//!
//! It is kept in memory only, for shims of earlier versions: others tell it themselves, also after a restart
//! of the server.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    job::JobNumber,
    output::{Hub, Watch},
    sys::lock,
};

/// From this many jobs on, those that have ended are removed from time to time.
const TIDY_FROM: usize = 256;

/// The last inputs of all jobs that have not ended.
#[derive(Debug, Default)]
pub(super) struct LastInputs(Mutex<InputTimes>);

#[derive(Debug, Default)]
struct InputTimes {
    /// The time of the last input, and a watch that tells whether the job has ended.
    jobs: HashMap<JobNumber, (Instant, Watch)>,
    /// At this many jobs, those that have ended are removed.
    tidy_at: usize,
}

impl LastInputs {
    /// Notes that the job is given input now, or goes on after a pause.
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

    /// How long ago the job was given input or went on; `None` if that is not known.
    pub(super) fn age(&self, job: JobNumber) -> Option<Duration> {
        let inputs = self.inputs();
        inputs.jobs.get(&job).map(|(at, _)| at.elapsed())
    }

    fn inputs(&self) -> MutexGuard<'_, InputTimes> {
        lock(&self.0)
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
