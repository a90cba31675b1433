//! Checks what a job expects of its output, before an attempt that has succeeded otherwise becomes its end.

use sha2::{Digest as _, Sha256};

use crate::{
    job::{Expectation, JobState, Reason},
    output::{Assertion, Assertions, Item, Log, ReadError, read::log::Cursor, search::Progress},
    store::StoreError,
    supervisor::{Finalized, Supervisor},
    sys::retry,
};

/// How much is read and searched at once, bytes.
const PIECE_BYTES: usize = 256 << 10;

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
) -> Result<Vec<Expectation>, ReadError> {
    let ctx = supervisor.context();
    let job = finalized.key.job;
    let expected = ctx.store.expectations(job).await?;
    // What this version cannot search for was not found.
    let mut unmet = Vec::new();
    let (mut assertions, mut checked) = (Vec::new(), Vec::new());
    for expectation in expected {
        match Assertion::of(&expectation) {
            Ok(assertion) => {
                assertions.push(assertion);
                checked.push(expectation);
            }
            Err(_) => unmet.push(expectation),
        }
    }
    let log = Log::new(ctx.store.clone(), ctx.layout.spool());
    let mut cursor = Cursor::new(finalized.start_offset);
    let mut check = OutputCheck {
        assertions: Assertions::new(assertions),
        digest: Sha256::new(),
        has_gaps: false,
    };
    loop {
        let batch = match log.read(job, &mut cursor, PIECE_BYTES).await {
            // Damage, which does not pass: what cannot be read shows nothing.
            Err(ReadError::Missing(..)) => break,
            batch => batch?,
        };
        // Hard patterns take long.
        let fed = tokio::task::spawn_blocking({
            let items = batch.items;
            move || check.feed(&items)
        });
        check = fed
            .await
            .map_err(|panic| ReadError::Segment(std::io::Error::other(panic)))?;
        if batch.at_end {
            break;
        }
    }
    check.has_gaps |= cursor.offset < finalized.finish.end_offset;
    let findings = check.finish().into_iter().zip(checked);
    unmet.extend(findings.filter(|(found, _)| !found).map(|(_, one)| one));
    Ok(unmet)
}

/// A check in progress.
struct OutputCheck {
    assertions: Assertions,
    /// Of the attempt's output alone.
    digest: Sha256,
    has_gaps: bool,
}

impl OutputCheck {
    fn feed(mut self, items: &[Item]) -> Self {
        for item in items {
            match item {
                Item::Chunk(chunk) => self.digest.update(&chunk.data),
                Item::Gap(_) => self.has_gaps = true,
            }
        }
        self.assertions.feed_texts(items);
        for nth in (0..self.assertions.patterns()).rev() {
            let mut at = Progress::default();
            while !at.is_through() {
                self.assertions.feed_pattern(nth, items, &mut at);
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
