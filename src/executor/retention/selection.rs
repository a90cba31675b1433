//! Decides page by page which jobs go. Nothing is removed here, so a dry run and a run choose alike.

use crate::{
    job::{
        JobNumber, JobState, Micros, RetentionBounds, RetentionCandidate, RetentionCount,
        RetentionFilter, RetentionScope,
    },
    store::{EndedCursor, RemovableFilter, Store, StoreError},
};

/// Which jobs a client wants to remove.
#[derive(Debug, Clone, PartialEq)]
pub struct PruneOptions {
    /// What goes of them.
    pub scope: RetentionScope,
    /// Which jobs.
    pub filter: RetentionFilter,
    /// Submitted at or after.
    pub since: Option<Micros>,
    /// How many of them stay.
    pub bounds: RetentionBounds,
    /// Whether nothing is removed.
    pub dry_run: bool,
}

/// A selection in progress.
#[derive(Debug)]
pub struct Selection {
    filter: RemovableFilter,
    /// Decides about what the filter finds.
    count: RetentionCount,
    place: SelectionPlace,
    is_over: bool,
}

/// How far it has come.
#[derive(Debug, Clone)]
enum SelectionPlace {
    /// Jobs with lower numbers follow; `None`: all jobs.
    NewestFirst(Option<JobNumber>),
    /// Jobs that ended later follow.
    OldestFirst(EndedCursor),
}

impl Selection {
    /// What `options` choose of the jobs as they are at `now`.
    ///
    /// Where a job's age alone decides, the jobs that ended first come first, from the index of
    /// their ends: what is younger is not even looked at. Where the newest are counted, or a name or
    /// a label finds few jobs, the newest come first.
    pub fn new(options: &PruneOptions, now: Micros) -> Self {
        let (filter, bounds) = (&options.filter, options.bounds);
        let cutoff = bounds.cutoff(now).filter(|_| bounds.is_age_alone());
        let is_narrow = filter.name.is_some() || !filter.labels.is_empty();
        let count = match cutoff {
            // The filter decides.
            Some(_) => RetentionCount::new(RetentionBounds::default(), now),
            None => RetentionCount::new(bounds, now),
        };
        let states = match filter.states.is_empty() {
            true => JobState::ALL.into_iter().filter(|s| s.is_final()).collect(),
            false => filter.states.clone(),
        };
        Self {
            filter: RemovableFilter {
                scope: options.scope,
                states,
                queue: filter.queue.clone(),
                labels: filter.labels.clone(),
                name: filter.name.clone(),
                since: options.since,
                ended_before: cutoff,
            },
            count,
            place: match cutoff.is_some() && !is_narrow {
                true => SelectionPlace::OldestFirst(EndedCursor::default()),
                false => SelectionPlace::NewestFirst(None),
            },
            is_over: false,
        }
    }

    /// Leaves jobs out that ended up to there: an earlier selection of the same kind has chosen them
    /// all. Only where those come first that ended first.
    pub fn skip_to(&mut self, reached: &EndedCursor) {
        if let SelectionPlace::OldestFirst(after) = &mut self.place {
            *after = reached.clone();
        }
    }

    /// How far it has come, if those come first that ended first.
    pub fn reached(&self) -> Option<&EndedCursor> {
        match &self.place {
            SelectionPlace::OldestFirst(after) => Some(after),
            SelectionPlace::NewestFirst(_) => None,
        }
    }

    /// The next jobs that go, which may be none; `None` at the end.
    pub async fn next(
        &mut self,
        store: &Store,
    ) -> Result<Option<Vec<RetentionCandidate>>, StoreError> {
        if self.is_over {
            return Ok(None);
        }
        let mut jobs = match &mut self.place {
            SelectionPlace::NewestFirst(below) => {
                let page = store.removable_newest_first(&self.filter, *below).await?;
                *below = page.reached;
                self.is_over = page.is_last;
                page.jobs
            }
            SelectionPlace::OldestFirst(after) => {
                let page = store.removable_oldest_first(&self.filter, after).await?;
                *after = page.reached.unwrap_or_else(|| after.clone());
                self.is_over = page.is_last;
                page.jobs
            }
        };
        jobs.retain(|job| self.count.goes(job));
        Ok(Some(jobs))
    }
}
