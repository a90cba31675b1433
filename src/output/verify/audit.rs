//! Judges what a walk through a stored output meets: hashes it anew, compares it with what was
//! hashed when it was written, and counts what is missing.
//!
//! The verdict about the bytes is the new digest's alone. The digests' states that the ledger holds
//! for segments and attempts only narrow down where bytes were changed.

use std::collections::VecDeque;

use crate::{
    job::{Fault, Gap, GapReason, Offset, VerificationProblem},
    output::{Digest, Item, Met},
    store::{AttemptRecord, JobRecord},
};

/// Most problems, and most gaps, that are listed; the rest is counted.
pub const LISTED_MAX: usize = 100;

/// A list that does not grow without bound.
#[derive(Debug)]
pub struct Listed<T> {
    /// The first ones.
    pub first: Vec<T>,
    /// How many more there are.
    pub more: u64,
}

/// An audit as far as it has come.
#[derive(Debug)]
pub struct Audit {
    attempts: Vec<AttemptRecord>,
    /// Ends of attempts that were not reached yet, by their places in `attempts`.
    ends: VecDeque<usize>,
    /// Over everything from the first byte.
    whole: Digest,
    /// Where what is stored of the digest is no longer that of the whole: over what follows the last
    /// place where they were compared.
    part: Option<Digest>,
    since: Since,
    /// Bytes were lost since then: there is nothing to compare with until the next place.
    blind: bool,
    /// A gap that the record tells of leaves no digest.
    has_gap: bool,
    dropped_bytes: u64,
    problems: Listed<VerificationProblem>,
    gaps: Listed<Gap>,
}

/// What was met since the last comparison.
#[derive(Debug, Default)]
struct Since {
    offset: Offset,
    rows: u64,
}

/// What an audit has found.
#[derive(Debug)]
pub struct Audited {
    /// Up to where.
    pub output_bytes: Offset,
    /// The digest hashed anew.
    pub output_sha256: Option<String>,
    /// What is wrong.
    pub problems: Listed<VerificationProblem>,
    /// What the record says is missing.
    pub gaps: Listed<Gap>,
}

impl Audit {
    /// An audit of the output that these attempts have written.
    pub fn new(attempts: Vec<AttemptRecord>) -> Self {
        let ends = attempts.iter().enumerate();
        let ends = ends.filter(|(_, attempt)| attempt.end_offset.is_some());
        Self {
            ends: ends.map(|(at, _)| at).collect(),
            attempts,
            whole: Digest::resume(0, None),
            part: None,
            since: Since::default(),
            blind: false,
            has_gap: false,
            dropped_bytes: 0,
            problems: Listed::default(),
            gaps: Listed::default(),
        }
    }

    /// Adds what was found elsewhere.
    pub fn add(&mut self, problem: VerificationProblem) {
        self.problems.push(problem);
    }

    /// Goes on with what was met, in offset order, and returns the output in it: lost bytes are gaps
    /// there. Hashes: not for a thread that others wait for.
    pub fn take(&mut self, met: Vec<Met>) -> Vec<Item> {
        let mut items = Vec::new();
        for met in met {
            match met {
                Met::Item(item) => {
                    self.pass_ends();
                    self.take_item(&item);
                    items.push(item);
                }
                Met::SegmentEnd(row) => {
                    let name = crate::spool::SegmentName {
                        job: row.number,
                        attempt: row.attempt,
                        first_offset: row.first_offset,
                    };
                    let name = Some(name.to_string());
                    self.compare(&row.hash_state, row.attempt, name);
                }
                Met::Problem(problem) => self.problems.push(problem),
                Met::Lost(to) => {
                    self.pass_ends();
                    let from = self.whole.offset();
                    let reason = GapReason::Damaged;
                    let gap = Gap { from, to, reason };
                    self.pass(gap);
                    self.blind = true;
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
                self.pass(*gap);
                if gap.reason.is_dropping() {
                    self.dropped_bytes += gap.to - gap.from;
                }
                // These were hashed before they went.
                self.blind |= gap.reason == GapReason::Retention;
                self.has_gap |= gap.reason != GapReason::Retention;
                self.gaps.push(*gap);
            }
        }
    }

    fn pass(&mut self, gap: Gap) {
        for digest in [Some(&mut self.whole), self.part.as_mut()]
            .into_iter()
            .flatten()
        {
            digest.pass(gap);
            digest.take_gaps();
        }
    }

    /// A row names an attempt; its bytes must lie in what that has written.
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
    fn pass_ends(&mut self) {
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

    /// Compares with a state of the digest that the ledger has for this place, and goes on from
    /// there.
    fn compare(&mut self, stored: &[u8], attempt: u32, segment: Option<String>) {
        let to = self.whole.offset();
        let stored = Digest::resume(to, Some(stored));
        // Behind a gap there is none, and before the first one nobody knew that it would come.
        if let Some(expected) = stored.hex() {
            let found = self.part.as_ref().unwrap_or(&self.whole).hex();
            let is_whole = self.whole.hex().as_ref() == Some(&expected);
            let differs = found.is_some_and(|found| found != expected);
            if differs && !is_whole && !self.blind {
                self.changed(to, attempt, segment);
            }
            self.part = (!is_whole).then_some(stored);
            self.blind = false;
        }
        self.since = Since {
            offset: to,
            rows: 0,
        };
    }

    fn changed(&mut self, to: Offset, attempt: u32, segment: Option<String>) {
        let Since { offset: from, rows } = self.since;
        let (what, row) = match (&segment, rows) {
            (Some(name), _) => (format!("segment {name}"), None),
            (None, 1) => (format!("the row at offset {from}"), Some(from)),
            (None, rows) => (format!("one or more of {rows} rows"), None),
        };
        let message = format!(
            "{what}: bytes {from} to {to} are not those that attempt {attempt} wrote, or the \
             digest that was kept of them is not"
        );
        self.problems.push(VerificationProblem {
            attempt: Some(attempt),
            segment,
            row,
            ..VerificationProblem::new(Fault::Changed, message).of_bytes(from, to)
        });
    }

    /// Nothing follows any more. `job` is what the ledger says about it, where it is final.
    pub fn finish(mut self, job: Option<&JobRecord>) -> Audited {
        self.pass_ends();
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
        let (end, said) = (self.whole.offset(), job.output_bytes);
        if end != said {
            let message = format!("the output ends at {end}, and the job says {said}");
            let (from, to) = (end.min(said), end.max(said));
            let problem = VerificationProblem::new(Fault::Length, message);
            self.problems.push(problem.of_bytes(from, to));
        }
        let (dropped, said) = (self.dropped_bytes, job.dropped_bytes);
        if dropped != said {
            let message =
                format!("{dropped} bytes are gaps of dropped output, and the job says {said}");
            self.problems
                .push(VerificationProblem::new(Fault::Dropped, message));
        }
        if let Some(message) = self.wrong_digest(job.output_sha256.as_deref()) {
            let problem = VerificationProblem::new(Fault::Digest, message);
            self.problems.push(problem.of_bytes(0, end));
        }
    }

    fn wrong_digest(&self, said: Option<&str>) -> Option<String> {
        match (self.whole.hex(), said) {
            (Some(found), Some(said)) if found != said => Some(format!(
                "the output's SHA-256 is {found}, and {said} when the job ended"
            )),
            (Some(_), None) if self.whole.offset() > 0 => Some(
                "the job has no SHA-256, so nobody can say whether these are its bytes".to_owned(),
            ),
            (_, Some(_)) if self.has_gap => {
                Some("the job has a SHA-256 over all bytes, and some are a gap".to_owned())
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
