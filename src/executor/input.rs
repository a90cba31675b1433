//! Input for the stdin of interactive jobs: stored before the start, later passed on to the shim.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Error, Executor};
use crate::{
    job::{Input, InputAnswer, JobNumber, JobRef, JobState},
    output::{Hub, hub::Watch},
    store::InputOutcome,
    supervisor::AttemptId,
};

/// How long an input waits for a decision about an attempt whose shim does not answer.
const DECISION_WAIT_MAX: Duration = Duration::from_secs(1);

/// The name of the bound on the bytes that wait for the process to read them.
const BYTES_LIMIT: &str = "input_bytes_max";
/// The name of the bound on the inputs that wait for the start.
const KEPT_LIMIT: &str = "inputs_kept_max";

impl Executor {
    /// Takes an input as a whole or not at all; returns how many bytes were accepted. An input
    /// whose `write_id` is known is answered as it was the first time.
    pub async fn input(&self, job: JobRef, input: Input) -> Result<u64, Error> {
        if input.data.len() > Input::BYTES_MAX {
            return Err(too_long(input.data.len()));
        }
        let bytes = input.data.len();
        let mut silent = None;
        loop {
            match self.ledger().input(job, input.clone()).await? {
                InputOutcome::NotFound => return Err(Error::no_such_job(job)),
                InputOutcome::Unfit {
                    number,
                    interactive,
                    state,
                } => return Err(unfit(number, interactive, state)),
                InputOutcome::Kept { number, answer } => return accepted(number, bytes, answer),
                InputOutcome::ToShim {
                    number,
                    attempt,
                    shim,
                } => {
                    let key = AttemptId {
                        job: number,
                        attempt,
                    };
                    let silent =
                        silent.get_or_insert_with(|| SilentShim::new(key, &self.inner.hub));
                    silent.check(key)?;
                    let passed_on = self.inner.supervisor.input(&shim, key, input.clone());
                    if let Ok(answer) = passed_on.await {
                        let accepted = accepted(number, bytes, answer)?;
                        self.inner.last_inputs.note(&self.inner.hub, number);
                        return Ok(accepted);
                    }
                    silent.wait().await;
                }
            }
        }
    }
}

/// A shim that did not answer, while its attempt may still be decided about: if it is proven never
/// to have started, it becomes void, and its job takes inputs again.
struct SilentShim {
    key: AttemptId,
    watch: Watch,
    until: Instant,
    is_over: bool,
}

impl SilentShim {
    fn new(key: AttemptId, hub: &Hub) -> Self {
        Self {
            key,
            watch: hub.watch(key.job),
            until: Instant::now() + DECISION_WAIT_MAX,
            is_over: false,
        }
    }

    /// To be called before the shim of `key` is asked. Fails if it was asked before and is still
    /// silent.
    fn check(&mut self, key: AttemptId) -> Result<(), Error> {
        self.watch.look();
        if self.is_over && key == self.key {
            return Err(Error::Unavailable(format!(
                "the shim of job {} does not answer, and may have taken the input or not: send it \
                 again with the same write_id, which is never written twice",
                key.job
            )));
        }
        self.key = key;
        Ok(())
    }

    /// To be called when the shim did not answer: waits for a decision about its attempt, up to
    /// `DECISION_WAIT_MAX` since the first one did not answer.
    async fn wait(&mut self) {
        let decision = timeout_at(self.until, self.watch.changed()).await;
        self.is_over |= !matches!(decision, Ok(Ok(())));
    }
}

/// Turns the shim's answer to an input of `bytes` bytes into the result.
fn accepted(job: JobNumber, bytes: usize, answer: InputAnswer) -> Result<u64, Error> {
    match answer {
        InputAnswer::Accepted { bytes } => Ok(bytes),
        InputAnswer::Full { waiting_bytes } => Err(full(job, bytes, waiting_bytes)),
        InputAnswer::Closed => Err(Error::Conflict(format!(
            "the stdin of job {job} is closed: an eof was sent, or its process reads no more"
        ))),
    }
}

fn full(job: JobNumber, bytes: usize, waiting_bytes: u64) -> Error {
    let (limit, most) = match waiting_bytes + bytes as u64 > Input::BYTES_MAX as u64 {
        true => (BYTES_LIMIT, format!("{} bytes", Input::BYTES_MAX)),
        false => (KEPT_LIMIT, format!("{} inputs", Input::KEPT_MAX)),
    };
    let message = format!(
        "job {job} has not read {waiting_bytes} bytes of its input yet, and at most {most} wait \
         for it; nothing of this one was taken: wait until it reads, and send it again"
    );
    Error::Limit {
        limit: limit.into(),
        message,
    }
}

fn too_long(bytes: usize) -> Error {
    Error::Limit {
        limit: BYTES_LIMIT.into(),
        message: format!(
            "the input has {bytes} bytes, {} are the most; send it in pieces",
            Input::BYTES_MAX
        ),
    }
}

fn unfit(number: JobNumber, interactive: bool, state: JobState) -> Error {
    Error::Conflict(match interactive {
        true => format!("job {number} is {}; it takes no more input", state.name()),
        false => format!(
            "job {number} takes no input; only a job that was submitted with interactive: true does"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_that_was_met_is_named() {
        for (bytes, waiting_bytes, name) in [
            (2, Input::BYTES_MAX as u64 - 1, "input_bytes_max"),
            (1, Input::BYTES_MAX as u64 - 1, "inputs_kept_max"),
        ] {
            let answer = InputAnswer::Full { waiting_bytes };
            let error = accepted(1, bytes, answer).expect_err("full");
            assert!(
                matches!(error, Error::Limit { ref limit, .. } if limit == name),
                "{error:?}"
            );
        }
    }
}
