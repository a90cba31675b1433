//! What the database's events say of each job: its states in order, and where each stands in the
//! order of all events. Judges nothing. Events outlive their job, so deleted jobs have a course too.

use std::collections::BTreeMap;

use crate::rows::{EventRow, Rows};

/// The events of one job.
#[derive(Debug, Clone, Default)]
pub struct Course<'r> {
    /// Each with its place among all events.
    pub events: Vec<(usize, &'r EventRow)>,
}

/// The course of every job, by its number.
pub fn courses(rows: &Rows) -> BTreeMap<u64, Course<'_>> {
    let mut courses: BTreeMap<u64, Course<'_>> = BTreeMap::new();
    for event in rows.events.iter().enumerate() {
        let course = courses.entry(event.1.job).or_default();
        course.events.push(event);
    }
    courses
}

impl Course<'_> {
    /// Where it became final, and in which state.
    pub fn end(&self) -> Option<(usize, &str)> {
        let (place, event) = self.events.last()?;
        event.is_final().then_some((*place, event.to.as_str()))
    }
}

impl EventRow {
    /// Whether the job is final from here on.
    pub fn is_final(&self) -> bool {
        ["succeeded", "failed", "cancelled"].contains(&self.to.as_str())
    }

    /// Whether an attempt is over with it.
    pub fn ends_attempt(&self) -> bool {
        let is_active = |state: &str| ["running", "paused"].contains(&state);
        self.from.as_deref().is_some_and(is_active) && !is_active(&self.to)
    }

    /// Whether an attempt begins with it.
    pub fn begins_attempt(&self) -> bool {
        self.from.as_deref() == Some("queued") && self.to == "running"
    }

    /// Whether an attempt has failed with it and is to be followed by another one.
    pub fn is_retry(&self) -> bool {
        self.ends_attempt() && self.to == "scheduled"
    }
}
