//! Checks what a job expects of its output, before an attempt that has succeeded otherwise becomes its end.

use sha2::{Digest as _, Sha256};

use crate::{
    job::{Expectation, JobState, Reason},
    output::{
        Assertion, Assertions, Item, Log, ReadError,
        search::Progress,
        verify::walk::{OutputWalk, PIECE_BYTES, WalkEvent},
    },
    store::StoreError,
    supervisor::{Finalized, Supervisor},
    sys::retry,
};

/// The end of an attempt as it is to be committed: one whose output does not show what was expected has
/// failed. Output that cannot be read now is read again later.
pub async fn checked(supervisor: &Supervisor, mut finalized: Finalized) -> Finalized {
    if !finalized.expects || finalized.finish.state != JobState::Succeeded {
        return finalized;
    }
    let unmet = retry::until_some(|| async {
        match unmet(supervisor, &finalized).await {
            Ok(unmet) => Some(unmet),
            // Nothing is committed any more.
            Err(ReadError::Store(StoreError::Stopping)) => Some(Vec::new()),
            Err(error) => {
                let job = finalized.key.job;
                tracing::warn!(job, %error, "the expectations of a job cannot be checked; trying again");
                None
            }
        }
    });
    let unmet = unmet.await;
    if !unmet.is_empty() {
        finalized.finish.state = JobState::Failed;
        finalized.finish.reason = Some(Reason::Unverified);
        finalized.finish.unmet_expectations = unmet;
    }
    finalized
}

/// The expectations that the attempt's output does not show.
async fn unmet(
    supervisor: &Supervisor,
    finalized: &Finalized,
) -> Result<Vec<Expectation>, ReadError> {
    let ctx = supervisor.context();
    let job = finalized.key.job;
    let expected = ctx.store.expectations(job).await?;
    let assertions: Vec<_> = expected
        .iter()
        .filter_map(|one| Assertion::of(one).ok())
        .collect();
    let log = Log::new(ctx.store.clone(), ctx.layout.spool());
    let end = finalized.finish.end_offset;
    let mut walk = OutputWalk::new(job, end, false, PIECE_BYTES).from(finalized.start_offset);
    let mut check = OutputCheck {
        assertions: Assertions::new(assertions),
        digest: Sha256::new(),
        has_gaps: false,
    };
    while !walk.is_over() {
        let found = walk.step(&log).await?;
        // Hard patterns take long.
        let fed = tokio::task::spawn_blocking(move || check.feed(found));
        check = fed
            .await
            .map_err(|panic| ReadError::Segment(std::io::Error::other(panic)))?;
    }
    let findings = check.finish();
    let findings = findings.into_iter().zip(expected);
    Ok(findings
        .filter(|(found, _)| !found)
        .map(|(_, one)| one)
        .collect())
}

/// A check in progress.
struct OutputCheck {
    assertions: Assertions,
    /// Of the attempt's output alone.
    digest: Sha256,
    has_gaps: bool,
}

impl OutputCheck {
    fn feed(mut self, found: Vec<WalkEvent>) -> Self {
        let mut items = Vec::with_capacity(found.len());
        for event in found {
            match event {
                WalkEvent::Item(item) => items.push(item),
                WalkEvent::Lost(_) => self.has_gaps = true,
                WalkEvent::SegmentEnd(_) | WalkEvent::Problem(_) => {}
            }
        }
        for item in &items {
            match item {
                Item::Chunk(chunk) => self.digest.update(&chunk.data),
                Item::Gap(_) => self.has_gaps = true,
            }
        }
        self.assertions.feed_texts(&items);
        for nth in (0..self.assertions.patterns()).rev() {
            let mut at = Progress::default();
            while !at.is_through() {
                self.assertions.feed_pattern(nth, &items, &mut at);
            }
        }
        self
    }

    /// Which of the expectations were met, in their order.
    fn finish(self) -> Vec<bool> {
        let digest = self.digest.finalize();
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = Some(digest.as_str()).filter(|_| !self.has_gaps);
        let findings = self.assertions.finish(digest);
        findings.into_iter().map(|finding| finding.found).collect()
    }
}
