//! Judges what a walk through a stored output finds: hashes it again, compares the digest with that
//! of the time of writing, and counts what is missing.
//!
//! Only the new digest of the whole output decides whether the bytes are the same. The digest states
//! that the store holds for segments and attempts only narrow down where bytes were changed.

use std::collections::VecDeque;

use crate::{
    job::{Fault, Gap, GapReason, Offset, VerificationProblem},
    output::{Digest, Item, WalkEvent},
    store::{AttemptRecord, JobRecord},
};

/// Most problems, and most gaps, that are listed; the rest are only counted.
pub const LISTED_MAX: usize = 100;

/// A list of up to [`LISTED_MAX`] entries.
#[derive(Debug)]
pub struct Listed<T> {
    /// The first [`LISTED_MAX`] entries.
    pub first: Vec<T>,
    /// How many more there were.
    pub more: u64,
}

/// An audit in progress.
#[derive(Debug)]
pub struct Audit {
    attempts: Vec<AttemptRecord>,
    /// Attempts whose ends were not reached yet, as indexes into `attempts`.
    ends: VecDeque<usize>,
    /// Over everything from the first byte.
    whole: Digest,
    /// Set once a stored digest state differs from `whole`: goes on from the stored state at the last
    /// comparison, so that only later changes count at the next one.
    part: Option<Digest>,
    since: SinceCompared,
    /// Bytes were lost since the last comparison, so the next one proves nothing.
    cannot_compare: bool,
    /// The stored output has a gap after which there was no digest when it was written.
    has_gap: bool,
    /// Retention has removed output, which may have had dropped bytes in between.
    is_pruned: bool,
    dropped_bytes: u64,
    problems: Listed<VerificationProblem>,
    gaps: Listed<Gap>,
}

/// What was found since the last comparison.
#[derive(Debug, Default)]
struct SinceCompared {
    offset: Offset,
    rows: u64,
}

/// What an audit has found.
#[derive(Debug)]
pub struct Audited {
    /// The end of the output that was read.
    pub output_bytes: Offset,
    /// SHA-256 of what was read, in lower-case hex; `None` if any bytes are missing.
    pub output_sha256: Option<String>,
    /// What is wrong.
    pub problems: Listed<VerificationProblem>,
    /// Bytes that the stored output itself says are missing.
    pub gaps: Listed<Gap>,
}

impl Audit {
    /// An audit of the output of a job with these attempts, in their order.
    pub fn new(attempts: Vec<AttemptRecord>) -> Self {
        let ends = attempts.iter().enumerate();
        let ends = ends.filter(|(_, attempt)| attempt.end_offset.is_some());
        Self {
            ends: ends.map(|(at, _)| at).collect(),
            attempts,
            whole: Digest::resume(0, None),
            part: None,
            since: SinceCompared::default(),
            cannot_compare: false,
            has_gap: false,
            is_pruned: false,
            dropped_bytes: 0,
            problems: Listed::default(),
            gaps: Listed::default(),
        }
    }

    /// Adds a problem that was found outside the output.
    pub fn add(&mut self, problem: VerificationProblem) {
        self.problems.push(problem);
    }

    /// Goes on with the next events of the walk, in offset order, and returns the output in them:
    /// lost bytes are gaps there. It hashes all bytes, so run it on a blocking thread.
    pub fn take(&mut self, events: Vec<WalkEvent>) -> Vec<Item> {
        let mut items = Vec::new();
        for event in events {
            match event {
                WalkEvent::Item(item) => {
                    self.compare_at_ends();
                    self.take_item(&item);
                    items.push(item);
                }
                WalkEvent::SegmentEnd(row) => {
                    let name = crate::spool::SegmentName {
                        job: row.number,
                        attempt: row.attempt,
                        first_offset: row.first_offset,
                    };
                    let name = Some(name.to_string());
                    self.compare(&row.hash_state, row.attempt, name);
                }
                WalkEvent::Problem(problem) => self.problems.push(problem),
                WalkEvent::Lost(to) => {
                    self.compare_at_ends();
                    let from = self.whole.offset();
                    let reason = GapReason::Damaged;
                    let gap = Gap { from, to, reason };
                    self.skip(gap);
                    self.cannot_compare = true;
                    items.push(Item::Gap(gap));
                }
            }
        }
        items
    }

    fn take_item(&mut self, item: &Item) {
        match item {
            Item::Chunk(chunk) => {
                self.whole.update(item);
                if let Some(part) = &mut self.part {
                    part.update(item);
                }
                self.since.rows += 1;
                self.check_attempt(chunk.attempt, chunk.offset);
            }
            Item::Gap(gap) => {
                self.skip(*gap);
                if gap.reason.is_dropping() {
                    self.dropped_bytes += gap.to - gap.from;
                }
                // Bytes that retention removed were hashed before, so the stored digests cover them.
                self.cannot_compare |= gap.reason == GapReason::Retention;
                self.has_gap |= gap.reason != GapReason::Retention;
                self.is_pruned |= gap.reason == GapReason::Retention;
                self.gaps.push(*gap);
            }
        }
    }

    fn skip(&mut self, gap: Gap) {
        for digest in [Some(&mut self.whole), self.part.as_mut()]
            .into_iter()
            .flatten()
        {
            digest.skip(gap);
            digest.take_gaps();
        }
    }

    /// The bytes of a row must be within the output of the attempt that the row names.
    fn check_attempt(&mut self, attempt: u32, offset: Offset) {
        let known = self.attempts.iter().find(|known| known.attempt == attempt);
        let fits = known.is_some_and(|known| {
            known.start_offset <= offset && known.end_offset.is_none_or(|end| offset < end)
        });
        if !fits {
            let message = format!("attempt {attempt} has not written the byte at offset {offset}");
            self.problems.push(VerificationProblem {
                attempt: Some(attempt),
                ..VerificationProblem::new(Fault::Attempts, message).of_bytes(offset, offset)
            });
        }
    }

    /// Compares at the ends of attempts that were reached.
    fn compare_at_ends(&mut self) {
        while let Some(at) = self.ends.front().copied() {
            let ended = &self.attempts[at];
            if ended.end_offset.is_none_or(|end| end > self.whole.offset()) {
                return;
            }
            self.ends.pop_front();
            let exactly = ended.end_offset == Some(self.whole.offset());
            let (attempt, state) = (ended.attempt, ended.hash_state.clone());
            if let (true, Some(state)) = (exactly, state) {
                self.compare(&state, attempt, None);
            }
        }
    }

    /// Compares with the digest state that the store holds for this offset, and goes on from it.
    fn compare(&mut self, stored: &[u8], attempt: u32, segment: Option<String>) {
        let to = self.whole.offset();
        let stored = Digest::resume(to, Some(stored));
        // A state that was stored after a gap has no digest.
        if let Some(expected) = stored.hex() {
            let found = self.part.as_ref().unwrap_or(&self.whole).hex();
            let is_whole = self.whole.hex().as_ref() == Some(&expected);
            let differs = found.is_some_and(|found| found != expected);
            if differs && !is_whole && !self.cannot_compare {
                self.changed(to, attempt, segment);
            }
            self.part = (!is_whole).then_some(stored);
            self.cannot_compare = false;
        }
        self.since = SinceCompared {
            offset: to,
            rows: 0,
        };
    }

    fn changed(&mut self, to: Offset, attempt: u32, segment: Option<String>) {
        let SinceCompared { offset: from, rows } = self.since;
        let (what, row) = match (&segment, rows) {
            (Some(name), _) => (format!("segment {name}"), None),
            (None, 1) => (format!("the row at offset {from}"), Some(from)),
            (None, rows) => (format!("one or more of {rows} rows"), None),
        };
        let message = format!(
            "{what}: bytes {from} to {to} differ from their stored digest: the bytes that attempt \
             {attempt} wrote or the digest were changed"
        );
        self.problems.push(VerificationProblem {
            attempt: Some(attempt),
            segment,
            row,
            ..VerificationProblem::new(Fault::Changed, message).of_bytes(from, to)
        });
    }

    /// Ends the audit. `job` is the job's row if the job is final: length and digest are compared
    /// with it.
    pub fn finish(mut self, job: Option<&JobRecord>) -> Audited {
        self.compare_at_ends();
        if let Some(job) = job {
            self.check_end(job);
        }
        Audited {
            output_bytes: self.whole.offset(),
            output_sha256: self.whole.hex(),
            problems: self.problems,
            gaps: self.gaps,
        }
    }

    fn check_end(&mut self, job: &JobRecord) {
        let (end, recorded) = (self.whole.offset(), job.output_bytes);
        if end != recorded {
            let message = format!("the output ends at {end}; the job's row says {recorded}");
            let (from, to) = (end.min(recorded), end.max(recorded));
            let problem = VerificationProblem::new(Fault::Length, message);
            self.problems.push(problem.of_bytes(from, to));
        }
        let (dropped, recorded) = (self.dropped_bytes, job.dropped_bytes);
        if dropped > recorded || (dropped < recorded && !self.is_pruned) {
            let message = format!(
                "{dropped} bytes are gaps of dropped output; the job's row says {recorded}"
            );
            self.problems
                .push(VerificationProblem::new(Fault::Dropped, message));
        }
        if let Some(message) = self.wrong_digest(job.output_sha256.as_deref()) {
            let problem = VerificationProblem::new(Fault::Digest, message);
            self.problems.push(problem.of_bytes(0, end));
        }
    }

    fn wrong_digest(&self, recorded: Option<&str>) -> Option<String> {
        match (self.whole.hex(), recorded) {
            (Some(found), Some(recorded)) if found != recorded => Some(format!(
                "the output's SHA-256 is {found}; it was {recorded} when the job ended"
            )),
            (Some(_), None) if self.whole.offset() > 0 => {
                Some("the job has no SHA-256, so its bytes cannot be checked as a whole".to_owned())
            }
            (_, Some(_)) if self.has_gap => {
                Some("the job has a SHA-256 over all bytes, but the output has a gap".to_owned())
            }
            _ => None,
        }
    }
}

impl<T> Listed<T> {
    fn push(&mut self, one: T) {
        match self.first.len() < LISTED_MAX {
            true => self.first.push(one),
            false => self.more += 1,
        }
    }
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self {
            first: Vec::new(),
            more: 0,
        }
    }
}
