//! The notifications, as JSON. `ws::tails` and `ws` decide when each is sent.

use serde::Serialize;

use super::chunk_json::ChunkView;
use crate::{
    job::{Chunk, Gap, Job, JobId, JobState, Micros, Offset, Reason},
    protocol::jsonrpc::{envelope::to_json, error::Refusal},
};

#[derive(Serialize)]
struct Notification<'a, P: Serialize> {
    jsonrpc: &'static str,
    method: &'a str,
    params: P,
}

/// Any notification, as JSON.
pub fn notification<P: Serialize>(method: &str, params: P) -> String {
    to_json(&Notification {
        jsonrpc: "2.0",
        method,
        params,
    })
}

/// The subscription and the job that a notification is about.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct TailScope {
    /// The number of the subscription in its session.
    pub subscription: u32,
    /// The job's UUID.
    pub job: JobId,
}

impl TailScope {
    /// `job.output`: a chunk of output.
    pub fn output(self, chunk: &Chunk) -> String {
        #[derive(Serialize)]
        struct Params<'a> {
            #[serde(flatten)]
            scope: TailScope,
            #[serde(flatten)]
            chunk: ChunkView<'a>,
        }
        notification(
            "job.output",
            Params {
                scope: self,
                chunk: ChunkView::of(chunk),
            },
        )
    }

    /// `job.gap`: output that is missing.
    pub fn gap(self, gap: Gap) -> String {
        #[derive(Serialize)]
        struct Params {
            #[serde(flatten)]
            scope: TailScope,
            #[serde(flatten)]
            gap: Gap,
        }
        notification("job.gap", Params { scope: self, gap })
    }

    /// `job.state`: the job changed its state.
    pub fn state(self, state: JobState, reason: Option<Reason>, at: Micros) -> String {
        #[derive(Serialize)]
        struct Params {
            #[serde(flatten)]
            scope: TailScope,
            state: JobState,
            #[serde(skip_serializing_if = "Option::is_none")]
            reason: Option<Reason>,
            at: Micros,
        }
        notification(
            "job.state",
            Params {
                scope: self,
                state,
                reason,
                at,
            },
        )
    }

    /// `job.caught_up`: everything up to `next_offset` has been sent.
    pub fn caught_up(self, next_offset: Offset) -> String {
        #[derive(Serialize)]
        struct Params {
            #[serde(flatten)]
            scope: TailScope,
            next_offset: Offset,
        }
        notification(
            "job.caught_up",
            Params {
                scope: self,
                next_offset,
            },
        )
    }

    /// `job.error`: the tail has ended, because the output cannot be read at `next_offset`.
    pub fn error(self, next_offset: Offset, error: &Refusal) -> String {
        #[derive(Serialize)]
        struct Params<'a> {
            #[serde(flatten)]
            scope: TailScope,
            next_offset: Offset,
            error: &'a Refusal,
        }
        notification(
            "job.error",
            Params {
                scope: self,
                next_offset,
                error,
            },
        )
    }

    /// `job.end`: the job is final, and nothing of it follows.
    pub fn end(self, job: &Job) -> String {
        #[derive(Serialize)]
        struct Params<'a> {
            subscription: u32,
            job: &'a Job,
        }
        notification(
            "job.end",
            Params {
                subscription: self.subscription,
                job,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        job::{GapReason, Stream},
        protocol::ErrorKind,
    };

    const SCOPE: TailScope = TailScope {
        subscription: 3,
        job: JobId(uuid::Uuid::nil()),
    };

    fn params(text: &str, method: &str) -> Value {
        let mut value: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(
            (&value["jsonrpc"], &value["method"]),
            (&json!("2.0"), &json!(method))
        );
        let mut params = value["params"].take();
        assert_eq!(params["subscription"], 3);
        assert_eq!(params["job"], "00000000-0000-0000-0000-000000000000");
        for key in ["subscription", "job"] {
            params.as_object_mut().expect("an object").remove(key);
        }
        params
    }

    #[test]
    fn notifications_have_the_promised_keys() {
        let at = "1970-01-01T00:00:00.000001Z";
        let chunk = Chunk {
            offset: 7,
            stream: Stream::Stdout,
            attempt: 1,
            at: Micros(1),
            data: b"hi".to_vec(),
        };
        let output = params(&SCOPE.output(&chunk), "job.output");
        let expected = json!({"offset": 7, "next_offset": 9, "stream": "stdout", "attempt": 1,
            "at": at, "data": "hi"});
        assert_eq!(output, expected);
        let gap = Gap {
            from: 1,
            to: 2,
            reason: GapReason::PowerLoss,
        };
        let expected = json!({"from": 1, "to": 2, "reason": "power_loss"});
        assert_eq!(params(&SCOPE.gap(gap), "job.gap"), expected);
        let state = SCOPE.state(JobState::Paused, None, Micros(1));
        assert_eq!(
            params(&state, "job.state"),
            json!({"state": "paused", "at": at})
        );
        let refusal = Refusal::new(ErrorKind::Internal, "why");
        let expected = json!({"next_offset": 9, "error": {"code": -32603, "message": "why",
            "data": {"kind": "internal"}}});
        assert_eq!(params(&SCOPE.error(9, &refusal), "job.error"), expected);
        let caught_up = params(&SCOPE.caught_up(9), "job.caught_up");
        assert_eq!(caught_up, json!({"next_offset": 9}));
    }
}
