//! Decides when a running job has gone quiet: it has written nothing and got no input for some
//! time. `until` has the other conditions of a wait.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{
    Error, Executor,
    until::{FirstLook, Until, WaitState, WaitedJob, stopping},
};
use crate::{
    job::{Job, JobNumber, JobRef, JobState, Offset, OutputPolicy, WhenFull},
    output::{Cursor, Item, Watch, hub::HubClosed},
    store::LifeSigns,
    sys::clock,
};

/// The shortest time between two looks whether a job has gone quiet.
const LOOKS_MIN: Duration = Duration::from_millis(50);

impl Executor {
    /// Waits until a job runs and has been silent for `length`.
    pub(super) async fn until_quiet(
        &self,
        one: &mut WaitedJob,
        until: &Until,
        length: Duration,
        mut look: FirstLook,
    ) -> Result<WaitState, Error> {
        let mut silence = SilenceTimer::default();
        loop {
            one.watch.look();
            if !self.look_again(one).await? {
                return Ok(WaitState::Impossible);
            }
            if let WaitState::Impossible = until.state(&one.job) {
                return Ok(WaitState::Impossible);
            }
            let runs = one.job.state == JobState::Running && one.job.started_at.is_some();
            let silent_for = match runs {
                true => Some(self.silence(one, &mut silence).await?),
                false => None,
            };
            if silent_for.is_some_and(|silent_for| silent_for >= length) {
                return Ok(WaitState::Met(None));
            }
            drop(look.take());
            let left = silent_for.map(|silent_for| (length - silent_for).max(LOOKS_MIN));
            changed_or_after(&mut one.watch, left).await?;
        }
    }

    /// How long a running job has written nothing and got no input.
    async fn silence(
        &self,
        one: &WaitedJob,
        silence: &mut SilenceTimer,
    ) -> Result<Duration, Error> {
        let number = one.job.number;
        if let Some(sign_us) = self.inner.supervisor.last_sign(number).await {
            return Ok(clock::since_boottime(sign_us));
        }
        // A shim of an earlier version, or one that does not answer now.
        let (sign, age) = self.sign_of_life(one).await?;
        let silent_for = silence.silent_for(sign, age);
        let spoken_to = self.inner.last_inputs.age(number);
        Ok(spoken_to.map_or(silent_for, |age| silent_for.min(age)))
    }

    /// The last sign of life of a running job, and how long ago it came: by the monotonic clock, as
    /// far as that is known.
    async fn sign_of_life(&self, one: &WaitedJob) -> Result<(Sign, Duration), Error> {
        let _slot = self.read_slot().await?;
        let (store, log, number) = (&self.inner.store, &self.inner.log, one.job.number);
        let Some(life) = store.life_signs(number).await? else {
            return Err(Error::no_such_job(JobRef::Number(number)));
        };
        let job = self.snapshot(number).await?;
        let mut sign = Sign {
            reaches: job.output_bytes,
            attempt: life.attempt,
            resumed: life.resumed.map(|(event, _)| event),
        };
        if may_drop_output(&job) {
            sign.reaches = sign.reaches.max(one.watch.grown_to());
            // Only the shim knows of more bytes: the next look finds what it reports.
            one.watch.arm(sign.reaches).map_err(stopping)?;
            // The time of dropped bytes is not recorded.
            return Ok((sign, Duration::ZERO));
        }
        let mut cursor = Cursor::new(job.output_bytes.saturating_sub(1));
        let batch = log.read(number, &mut cursor, 1).await?;
        // The clock of an earlier attempt may be that of an earlier boot.
        let is_current = |item: &Item| matches!(item, Item::Chunk(c) if c.attempt == life.attempt);
        let written_us = batch
            .boottime_us
            .filter(|_| batch.items.last().is_some_and(is_current));
        // An attempt without a start has been silent for no time.
        let started = life.start_ticks.map_or(Duration::ZERO, clock::since_ticks);
        let age = written_us.map_or(started, clock::since_boottime);
        Ok((sign, age.min(self.resumed_before(number, &life, started))))
    }

    /// How long ago a job last went on after a pause; `started` if it never was paused.
    fn resumed_before(&self, number: JobNumber, life: &LifeSigns, started: Duration) -> Duration {
        match (life.resumed, self.inner.last_inputs.age(number)) {
            (None, _) => started,
            (Some(_), Some(age)) => age,
            // An earlier server resumed it: only the wall clock tells when.
            (Some((_, at)), None) => {
                let age_us = u64::try_from(clock::now().0 - at.0).unwrap_or(0);
                Duration::from_micros(age_us).min(started)
            }
        }
    }
}

/// Whether new output of a job is dropped as it comes, or may be: the number of its lines is not
/// known here, so a bound on lines counts as reached.
fn may_drop_output(job: &Job) -> bool {
    let OutputPolicy {
        max_bytes,
        max_lines,
        when_full,
        ..
    } = job.spec.output;
    let at_bound = max_bytes.is_some_and(|max| job.output_bytes >= max);
    when_full == WhenFull::DropNewest && (at_bound || max_lines.is_some())
}

/// Waits until the job's row has changed, or for this time. Growth of the output does not end the
/// wait: the next look finds it when the time is over.
async fn changed_or_after(watch: &mut Watch, after: Option<Duration>) -> Result<(), Error> {
    let at = after.and_then(|after| Instant::now().checked_add(after));
    tokio::select! {
        changed = row_changed(watch) => changed.map_err(stopping),
        () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => Ok(()),
    }
}

async fn row_changed(watch: &mut Watch) -> Result<(), HubClosed> {
    while !watch.look() {
        watch.changed().await?;
    }
    Ok(())
}

/// The facts about a running job of which one changes with each sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sign {
    /// The end of its output.
    reaches: Offset,
    /// The attempt that runs.
    attempt: u32,
    /// The number of the event of its last resume.
    resumed: Option<i64>,
}

/// Measures how long there was no sign of life.
#[derive(Debug, Default)]
struct SilenceTimer {
    last: Option<(Sign, Instant)>,
    looked_at: Option<Instant>,
}

impl SilenceTimer {
    /// How long the silence has lasted, if the newest sign of life is `age` old by its own record.
    fn silent_for(&mut self, sign: Sign, age: Duration) -> Duration {
        let now = Instant::now();
        let looked_at = self.looked_at.replace(now);
        if let Some((last, since)) = self.last
            && last == sign
        {
            return now - since;
        }
        // A sign that was not there at the last look came after it, whatever its record says.
        let unseen = looked_at.map_or(Duration::MAX, |looked_at| now - looked_at);
        let silent_for = age.min(unseen);
        self.last = now.checked_sub(silent_for).map(|since| (sign, since));
        silent_for
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn reaching(reaches: Offset) -> Sign {
        Sign {
            reaches,
            attempt: 1,
            resumed: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_begins_with_the_last_sign_of_life() {
        let mut silence = SilenceTimer::default();
        assert_eq!(silence.silent_for(reaching(5), 3 * SECOND), 3 * SECOND);
        tokio::time::advance(2 * SECOND).await;
        // Once it was seen, the monotonic clock of this wait counts.
        assert_eq!(silence.silent_for(reaching(5), Duration::ZERO), 5 * SECOND);
        assert_eq!(
            silence.silent_for(reaching(6), Duration::ZERO),
            Duration::ZERO
        );
        tokio::time::advance(SECOND).await;
        assert_eq!(silence.silent_for(reaching(6), Duration::ZERO), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_there_at_the_last_look_came_after_it() {
        let mut silence = SilenceTimer::default();
        let day = 86_400 * SECOND;
        assert_eq!(
            silence.silent_for(reaching(5), Duration::ZERO),
            Duration::ZERO
        );
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(silence.silent_for(reaching(6), day), 2 * SECOND);
        let resumed = Sign {
            resumed: Some(7),
            ..reaching(6)
        };
        assert_eq!(silence.silent_for(resumed, day), Duration::ZERO);
    }
}
