//! Checks what a job expects of its output, before an attempt that has succeeded otherwise becomes its end.
//!
//! Checks compute in short turns, and each has a bound: a pattern can take seconds for each megabyte.

use std::{sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};

use crate::{
    job::{Expectation, JobState, Reason, UnmetExpectation},
    output::{Assertion, Assertions, Item, Log, ReadError, read::log::Cursor, search::Progress},
    store::StoreError,
    supervisor::{Finalized, Supervisor},
    sys::{clock, retry},
};

/// How much is read and searched at once, bytes.
const PIECE_BYTES: usize = 256 << 10;

/// A check that has computed for so long lets others compute.
const TURN: Duration = Duration::from_millis(10);

/// A check may compute once more as long for each output of this size, bytes.
const TIMEOUT_BYTES: u64 = 4 << 30;

/// The end of an attempt as it is to be committed: one whose output does not show what was expected has
/// failed. Output that cannot be read now is read again later. `None`: the server stops, and nothing may be
/// committed; the next one checks.
pub async fn checked(supervisor: &Supervisor, mut finalized: Finalized) -> Option<Finalized> {
    if !finalized.expects || finalized.finish.state != JobState::Succeeded {
        return Some(finalized);
    }
    let unmet = retry::until_some(|| async {
        match unmet(supervisor, &finalized).await {
            Ok(unmet) => Some(Some(unmet)),
            Err(ReadError::Store(StoreError::Stopping)) => Some(None),
            Err(error) => {
                let job = finalized.key.job;
                tracing::warn!(job, %error, "the expectations of a job cannot be checked; trying again");
                None
            }
        }
    });
    let unmet = unmet.await?;
    if !unmet.is_empty() {
        finalized.finish.state = JobState::Failed;
        finalized.finish.reason = Some(Reason::Unverified);
        finalized.finish.unmet_expectations = unmet;
    }
    Some(finalized)
}

/// The expectations that the attempt's output does not show.
async fn unmet(
    supervisor: &Supervisor,
    finalized: &Finalized,
) -> Result<Vec<UnmetExpectation>, ReadError> {
    let ctx = supervisor.context();
    let job = finalized.key.job;
    let expected = ctx.store.expectations(job).await?;
    let length = finalized
        .finish
        .end_offset
        .saturating_sub(finalized.start_offset);
    let times = 1 + length / TIMEOUT_BYTES;
    let seconds = ctx.expect_timeout_s.saturating_mul(times);
    let mut check = OutputCheck::new(expected, Duration::from_secs(seconds));
    let log = Log::new(ctx.store.clone(), ctx.layout.spool());
    let mut cursor = Cursor::new(finalized.start_offset);
    loop {
        let batch = match log.read(job, &mut cursor, PIECE_BYTES).await {
            // Damage, which does not pass: what cannot be read shows nothing.
            Err(ReadError::Missing(..)) => break,
            batch => batch?,
        };
        let mut piece = CheckedPiece::new(batch.items);
        while !piece.is_done {
            let slot = Arc::clone(&ctx.check_slots).acquire_owned().await;
            let slot = slot.map_err(|_| StoreError::Stopping)?;
            let turn = tokio::task::spawn_blocking(move || {
                check.turn(&mut piece);
                drop(slot);
                (check, piece)
            });
            (check, piece) = turn
                .await
                .map_err(|panic| ReadError::Segment(std::io::Error::other(panic)))?;
        }
        if batch.at_end {
            break;
        }
    }
    check.has_gaps |= cursor.offset < finalized.finish.end_offset;
    if !check.gave_up.is_empty() {
        tracing::warn!(
            job,
            seconds,
            "the search for what a job expects was given up (expect_timeout_s)"
        );
    }
    Ok(check.finish(seconds))
}

/// A part of an output, and what is left to do with it.
struct CheckedPiece {
    items: Vec<Item>,
    /// The patterns below this one are left; `None`: all are, and the texts and the digest as well.
    patterns_left: Option<usize>,
    /// How far the last of them has come.
    at: Progress,
    is_done: bool,
}

impl CheckedPiece {
    fn new(items: Vec<Item>) -> Self {
        Self {
            items,
            patterns_left: None,
            at: Progress::default(),
            is_done: false,
        }
    }
}

/// A check in progress.
struct OutputCheck {
    /// What can be searched for, in the order of `assertions`.
    expected: Vec<Expectation>,
    /// What this version cannot search for.
    unsearchable: Vec<Expectation>,
    assertions: Assertions,
    /// Of the attempt's output alone.
    digest: Sha256,
    has_gaps: bool,
    /// How long it may compute, and how long it has.
    time: Duration,
    spent: Duration,
    /// Indices of the patterns for which there was no time.
    gave_up: Vec<usize>,
}

impl OutputCheck {
    fn new(expected: Vec<Expectation>, time: Duration) -> Self {
        let (mut searchable, mut unsearchable) = (Vec::new(), Vec::new());
        let mut assertions = Vec::new();
        for expectation in expected {
            match Assertion::of(&expectation) {
                Ok(assertion) => {
                    assertions.push(assertion);
                    searchable.push(expectation);
                }
                Err(_) => unsearchable.push(expectation),
            }
        }
        Self {
            expected: searchable,
            unsearchable,
            assertions: Assertions::new(assertions),
            digest: Sha256::new(),
            has_gaps: false,
            time,
            spent: Duration::ZERO,
            gave_up: Vec::new(),
        }
    }

    /// Works on a piece for one turn. Patterns are given up when the time is over; texts and the digest take
    /// little.
    fn turn(&mut self, piece: &mut CheckedPiece) {
        let began = clock::thread_time();
        let mut left = match piece.patterns_left {
            Some(left) => left,
            None => {
                self.feed_texts(&piece.items);
                self.assertions.patterns()
            }
        };
        let spent = || clock::thread_time().saturating_sub(began);
        while left > 0 && spent() < TURN {
            let nth = left - 1;
            self.assertions
                .feed_pattern(nth, &piece.items, &mut piece.at);
            if piece.at.is_through() {
                (left, piece.at) = (nth, Progress::default());
            }
        }
        self.spent += spent();
        if left > 0 && self.spent > self.time {
            self.gave_up.extend(self.assertions.give_up_patterns());
            left = 0;
        }
        piece.patterns_left = Some(left);
        piece.is_done = left == 0;
    }

    fn feed_texts(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Chunk(chunk) => self.digest.update(&chunk.data),
                Item::Gap(_) => self.has_gaps = true,
            }
        }
        self.assertions.feed_texts(items);
    }

    /// Which of the expectations were not met. `seconds` is how long it might compute.
    fn finish(self, seconds: u64) -> Vec<UnmetExpectation> {
        let digest = self.digest.finalize();
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = Some(digest.as_str()).filter(|_| !self.has_gaps);
        let findings = self.assertions.finish(digest);
        let unsearchable = self.unsearchable.into_iter().map(|one| (one, None));
        let searched = self.expected.into_iter().zip(findings).enumerate();
        let unmet = searched
            .filter(|(_, (_, finding))| !finding.found)
            .map(|(index, (one, _))| (one, self.gave_up.contains(&index).then_some(seconds)));
        let all = unsearchable.chain(unmet);
        all.map(|(expectation, gave_up_after_s)| UnmetExpectation {
            expectation,
            gave_up_after_s,
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Chunk, Micros, Stream};

    fn piece(offset: u64, data: &[u8]) -> CheckedPiece {
        CheckedPiece::new(vec![Item::Chunk(Chunk {
            offset,
            stream: Stream::Stdout,
            attempt: 1,
            at: Micros(0),
            data: data.to_vec(),
        })])
    }

    fn expected() -> Vec<Expectation> {
        let regex = |pattern: &str| Expectation::Regex(pattern.into());
        let text = |text: &str| Expectation::Contains(text.into());
        vec![
            regex("^first$"),
            text("last"),
            regex("x{100}NEEDLE$"),
            text("missing"),
            regex("last$"),
        ]
    }

    /// What is unmet, and whether its search was given up, with this time to compute.
    fn unmet(time: Duration) -> (Vec<(Expectation, bool)>, usize) {
        let mut check = OutputCheck::new(expected(), time);
        let (mut turns, mut offset) = (0, 0);
        for data in [b"first\n".to_vec(), vec![b'x'; 300_000], b"\nlast".to_vec()] {
            let mut piece = piece(offset, &data);
            offset += data.len() as u64;
            while !piece.is_done {
                check.turn(&mut piece);
                turns += 1;
            }
        }
        let unmet = check.finish(7).into_iter();
        let given_up = |one: UnmetExpectation| (one.expectation, one.gave_up_after_s == Some(7));
        (unmet.map(given_up).collect(), turns)
    }

    #[test]
    fn a_pattern_that_takes_too_long_is_given_up_and_the_others_are_decided() {
        let [first, last, needle, missing, end] = expected().try_into().expect("five expectations");
        let (in_time, turns) = unmet(Duration::from_secs(3600));
        assert_eq!(in_time, [(needle.clone(), false), (missing.clone(), false)]);
        assert!(turns > 3, "others compute in between");
        let (too_late, _) = unmet(Duration::ZERO);
        let given_up = [(needle, true), (missing, false), (end, true)];
        assert_eq!(too_late, given_up, "not {first:?} and {last:?}");
    }
}
