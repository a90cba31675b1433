//! The handle's methods for schedules.

use super::{
    Store, StoreError,
    firing::{Fired, Firing, ScheduleSet},
    sqlite::schedules,
    write::{Write, WriteResult},
};
use crate::job::{JobNumber, Micros, Schedule};

impl Store {
    /// Creates a schedule or replaces its definition; counts and runs of an existing one stay, and so
    /// does its next time with `keeps_next`.
    pub async fn set_schedule(
        &self,
        schedule: Schedule,
        keeps_next: bool,
    ) -> Result<ScheduleSet, StoreError> {
        let write = Write::SetSchedule(Box::new(schedule), keeps_next);
        self.write(write, |result| match result {
            WriteResult::ScheduleSet(set) => Some(set),
            _ => None,
        })
        .await
    }

    /// Deletes a schedule; whether there was one. Its jobs stay.
    pub async fn delete_schedule(&self, name: String) -> Result<bool, StoreError> {
        self.write(Write::DeleteSchedule(name), |result| match result {
            WriteResult::ScheduleDeleted(deleted) => Some(deleted),
            _ => None,
        })
        .await
    }

    /// Submits what a firing has decided, as far as the run before lets it.
    pub async fn fire(&self, firing: Firing) -> Result<Fired, StoreError> {
        self.write(Write::Fire(Box::new(firing)), |result| match result {
            WriteResult::Fired(fired) => Some(*fired),
            _ => None,
        })
        .await
    }

    /// All schedules, by name.
    pub async fn schedules(&self) -> Result<Vec<Schedule>, StoreError> {
        Ok(schedules::all(&self.inner.readers).await?)
    }

    /// The schedule of this name.
    pub async fn schedule(&self, name: &str) -> Result<Option<Schedule>, StoreError> {
        Ok(schedules::one(&self.inner.readers, name).await?)
    }

    /// Up to `limit` schedules that have something to fire at `now`: a time that has come, or a
    /// waiting run whose predecessor is final. A paused schedule has nothing.
    pub async fn due_schedules(
        &self,
        now: Micros,
        limit: u32,
    ) -> Result<Vec<Schedule>, StoreError> {
        Ok(schedules::due(&self.inner.readers, now, limit).await?)
    }

    /// The earliest time of all schedules that are not paused.
    pub async fn next_schedule_at(&self) -> Result<Option<Micros>, StoreError> {
        Ok(schedules::next_at(&self.inner.readers).await?)
    }

    /// Schedules whose newest run is later than `moment`: the clock was set back.
    pub async fn schedules_ahead_of(&self, moment: Micros) -> Result<Vec<Schedule>, StoreError> {
        Ok(schedules::ahead_of(&self.inner.readers, moment).await?)
    }

    /// The jobs that waiting runs wait for, those of paused schedules aside.
    pub async fn awaited_runs(&self) -> Result<Vec<JobNumber>, StoreError> {
        Ok(schedules::awaited(&self.inner.readers).await?)
    }
}
