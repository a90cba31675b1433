//! Input for the stdin of interactive jobs: kept before the start, else passed on to the shim.

use super::{Error, Executor};
use crate::{
    job::{Input, InputAnswer, JobNumber, JobRef, JobState},
    store::{Include, InputMet},
    supervisor::Key,
};

/// Name of the bound of the bytes that wait for a process to read them.
const WAITING_LIMIT: &str = "input_bytes_max";

impl Executor {
    /// Takes an input whole, or says why not; how many bytes were accepted. One whose `write_id` is
    /// known is answered as it was the first time.
    pub async fn input(&self, job: JobRef, input: Input) -> Result<u64, Error> {
        if input.data.len() > Input::BYTES_MAX {
            return Err(too_long(input.data.len()));
        }
        match self.inner.store.input(job, input.clone()).await? {
            InputMet::NotFound => Err(Error::no_such_job(job)),
            InputMet::Unfit {
                number,
                interactive,
                state,
            } => Err(unfit(number, interactive, state)),
            InputMet::Kept { number, answer } => accepted(number, answer),
            InputMet::ToShim {
                number,
                attempt,
                shim,
            } => {
                let key = Key {
                    job: number,
                    attempt,
                };
                self.inner.last_inputs.note(&self.inner.hub, number);
                self.pass_on(&shim, key, input).await
            }
        }
    }

    async fn pass_on(&self, shim: &str, key: Key, input: Input) -> Result<u64, Error> {
        if let Ok(answer) = self.inner.supervisor.input(shim, key, input).await {
            return accepted(key.job, answer);
        }
        let number = JobRef::Number(key.job);
        let job = self.inner.store.job(number, Include::default()).await?;
        match job {
            Some(job) if job.state.is_final() => Err(unfit(job.number, true, job.state)),
            _ => Err(Error::Unavailable(format!(
                "the shim of job {} does not answer, and may have taken the input or not: send it \
                 again with the same write_id, which is never written twice",
                key.job
            ))),
        }
    }
}

fn accepted(job: JobNumber, answer: InputAnswer) -> Result<u64, Error> {
    match answer {
        InputAnswer::Accepted { bytes } => Ok(bytes),
        InputAnswer::Full { waiting_bytes } => Err(Error::Limit {
            limit: WAITING_LIMIT,
            message: format!(
                "job {job} has not read {waiting_bytes} bytes of its input yet, and at most {} \
                 bytes in {} inputs wait for it; nothing of this one was taken: wait until it \
                 reads, and send it again",
                Input::BYTES_MAX,
                Input::KEPT_MAX
            ),
        }),
        InputAnswer::Closed => Err(Error::Conflict(format!(
            "the stdin of job {job} is closed: an eof was sent, or its process reads no more"
        ))),
    }
}

fn too_long(bytes: usize) -> Error {
    Error::Limit {
        limit: WAITING_LIMIT,
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
