//! When a running job has gone quiet: nothing written, nobody has spoken to it.
//!
//! What else can be waited for is `until`'s business.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{
    Error, Executor,
    until::{FirstLook, Standing, Until, Watched, stopping},
};
use crate::{
    clock,
    job::{Job, JobState, Micros, Offset, OutputPolicy, WhenFull},
    output::{Cursor, Item, Watch, hub::Closed},
};

/// Shortest time between two looks whether a job has gone quiet.
const LOOKS_MIN: Duration = Duration::from_millis(50);

impl Executor {
    /// Waits until a job runs and has been silent for so long.
    pub(super) async fn quiet(
        &self,
        one: &mut Watched,
        until: &Until,
        length: Duration,
        mut look: FirstLook,
    ) -> Result<Standing, Error> {
        let mut silence = Silence::default();
        loop {
            one.watch.look();
            if !self.look_again(one).await? {
                return Ok(Standing::Impossible);
            }
            if let Standing::Impossible = until.standing(&one.job) {
                return Ok(Standing::Impossible);
            }
            let runs = one.job.state == JobState::Running && one.job.started_at.is_some();
            let lasts = match runs {
                true => Some(self.silence(one, &mut silence).await?),
                false => None,
            };
            if lasts.is_some_and(|lasts| lasts >= length) {
                return Ok(Standing::Met(None));
            }
            drop(look.take());
            let left = lasts.map(|lasts| (length - lasts).max(LOOKS_MIN));
            changed_or_after(&mut one.watch, left).await?;
        }
    }

    /// How long a running job has been silent, and nobody has spoken to it either.
    async fn silence(&self, one: &Watched, silence: &mut Silence) -> Result<Duration, Error> {
        let lasts = silence.lasts(self.sign_of_life(one).await?);
        let spoken_to = self.inner.last_inputs.age(one.job.number);
        Ok(spoken_to.map_or(lasts, |age| lasts.min(age)))
    }

    async fn sign_of_life(&self, one: &Watched) -> Result<Sign, Error> {
        let _place = self.place_to_read().await?;
        let (store, log, number) = (&self.inner.store, &self.inner.log, one.job.number);
        let newest = store.newest_change(number).await?;
        let changes = store.changes(number, newest.saturating_sub(1)).await?;
        let changed_at = changes.last().map(|change| change.at);
        let job = self.snapshot(number).await?;
        let mut cursor = Cursor::new(job.output_bytes.saturating_sub(1));
        let batch = log.read(number, &mut cursor, 1).await?;
        let written_at = batch.items.last().and_then(|item| match item {
            Item::Chunk(chunk) => Some(chunk.at),
            Item::Gap(_) => None,
        });
        let at = [changed_at, job.started_at, written_at];
        let mut sign = Sign {
            reaches: job.output_bytes,
            at: at.into_iter().flatten().max().unwrap_or(job.submitted_at),
            is_dated: true,
        };
        if forgets(&job) {
            sign.reaches = sign.reaches.max(one.watch.grown_to());
            sign.is_dated = false;
            // Only the shim knows of more: what it says is found by the next look.
            one.watch.ask(sign.reaches).map_err(stopping)?;
        }
        Ok(sign)
    }
}

/// Whether what a job writes is dropped as it comes.
fn forgets(job: &Job) -> bool {
    let OutputPolicy {
        max_bytes,
        when_full,
    } = job.output;
    when_full == WhenFull::DropNewest && max_bytes.is_some_and(|max| job.output_bytes >= max)
}

/// Waits until the job's row has changed, or for so long. Growth wakes nobody here: what it means
/// is asked when the time is over.
async fn changed_or_after(watch: &mut Watch, after: Option<Duration>) -> Result<(), Error> {
    let at = after.and_then(|after| Instant::now().checked_add(after));
    tokio::select! {
        changed = row_changed(watch) => changed.map_err(stopping),
        () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => Ok(()),
    }
}

async fn row_changed(watch: &mut Watch) -> Result<(), Closed> {
    while !watch.look() {
        watch.changed().await?;
    }
    Ok(())
}

/// The last sign of life of a running job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sign {
    /// How far its output reaches.
    reaches: Offset,
    /// When that, its start or its last resume happened, whichever was last.
    at: Micros,
    /// Whether nothing can have come later: nobody notes when bytes come that are dropped.
    is_dated: bool,
}

/// Measures how long there was no sign of life. The wall clock is believed once, about what was
/// before the first look; a jump of it later changes nothing.
#[derive(Debug, Default)]
struct Silence {
    last: Option<(Sign, Instant)>,
    looked_at: Option<Instant>,
}

impl Silence {
    fn lasts(&mut self, sign: Sign) -> Duration {
        let now = Instant::now();
        let looked_at = self.looked_at.replace(now);
        if let Some((last, since)) = self.last
            && last == sign
        {
            return now - since;
        }
        let told = u64::try_from(clock::now().0 - sign.at.0).unwrap_or(0);
        let told = if sign.is_dated { told } else { 0 };
        let unseen = looked_at.map_or(Duration::MAX, |looked_at| now - looked_at);
        let lasts = Duration::from_micros(told).min(unseen);
        self.last = now.checked_sub(lasts).map(|since| (sign, since));
        lasts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dated(reaches: Offset, at: Micros) -> Sign {
        let is_dated = true;
        Sign {
            reaches,
            at,
            is_dated,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_measured_by_the_steady_clock() {
        let mut silence = Silence::default();
        let earlier = Micros(clock::now().0 - 3_000_000);
        assert!(silence.lasts(dated(5, earlier)) >= Duration::from_secs(3));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(silence.lasts(dated(5, earlier)) >= Duration::from_secs(5));
        // A sign that the wall clock dates a day back came after the last look all the same.
        let jumped = Micros(clock::now().0 - 86_400_000_000);
        assert_eq!(silence.lasts(dated(6, jumped)), Duration::ZERO);
        // And one from tomorrow is not in the future.
        let tomorrow = Micros(clock::now().0 + 86_400_000_000);
        assert_eq!(silence.lasts(dated(7, tomorrow)), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(silence.lasts(dated(7, tomorrow)), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn of_what_nobody_notes_the_silence_begins_with_the_look_that_finds_it() {
        let mut silence = Silence::default();
        let at = Micros(clock::now().0 - 3_000_000);
        for reaches in [5, 6] {
            let sign = Sign {
                is_dated: false,
                ..dated(reaches, at)
            };
            assert_eq!(silence.lasts(sign), Duration::ZERO);
            tokio::time::advance(Duration::from_secs(2)).await;
            assert_eq!(silence.lasts(sign), Duration::from_secs(2));
        }
    }
}
