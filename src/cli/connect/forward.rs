//! Makes inputs for a job from our stdin: one at a time, each repeated under its own `write_id`
//! until the server accepts it, so that no byte is lost or written twice. The caller sends them.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{stdin::Stdin, wire::WireError};

/// First wait before an input is sent again that the server did not accept for now.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Longest wait before that.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Makes inputs with a unique `write_id` each.
#[derive(Debug)]
pub struct WriteIds {
    session: uuid::Uuid,
    next: u64,
}

impl WriteIds {
    /// With a new UUID, so that no other process makes the same ids.
    pub fn new() -> Self {
        Self {
            session: uuid::Uuid::now_v7(),
            next: 0,
        }
    }

    /// The parameters of a `job.input` without the job.
    pub fn input(&mut self, data: &[u8], eof: bool) -> Value {
        let write_id = format!("cli-{}-{}", self.session.simple(), self.next);
        self.next += 1;
        json!({"data_base64": STANDARD.encode(data), "eof": eof, "write_id": write_id})
    }
}

/// The wait before the next try; it doubles with each try.
#[derive(Debug)]
pub struct ResendDelay(Duration);

impl ResendDelay {
    /// Begins with the shortest wait.
    pub fn new() -> Self {
        Self(PAUSE_MIN)
    }

    /// The time of the next try.
    pub fn next_try(&mut self) -> Instant {
        let at = Instant::now() + self.0;
        self.0 = PAUSE_MAX.min(self.0 * 2);
        at
    }
}

/// What became of the last input.
#[derive(Debug)]
enum LastInput {
    /// Accepted; there may be more.
    Taken,
    /// Sent, without a reply.
    Sent(Value),
    /// To be sent again at this time.
    Later(Value, Instant),
    /// There is nothing more to forward.
    Over,
}

/// Our stdin as a series of inputs.
#[derive(Debug)]
pub struct Forward {
    stdin: Option<Stdin>,
    write_ids: WriteIds,
    backoff: ResendDelay,
    last: LastInput,
}

impl Forward {
    /// Forwards stdin, and its end.
    pub fn of(stdin: Stdin) -> Self {
        Self {
            stdin: Some(stdin),
            write_ids: WriteIds::new(),
            backoff: ResendDelay::new(),
            last: LastInput::Taken,
        }
    }

    /// Forwards nothing.
    pub fn nothing() -> Self {
        Self {
            stdin: None,
            write_ids: WriteIds::new(),
            backoff: ResendDelay::new(),
            last: LastInput::Over,
        }
    }

    /// The next input to send. Cancel-safe. Does not return before the reply to the last one.
    pub async fn next(&mut self) -> Value {
        let input = match (&self.last, &mut self.stdin) {
            (LastInput::Later(input, at), _) => {
                sleep_until(*at).await;
                input.clone()
            }
            (LastInput::Taken, Some(stdin)) => match stdin.next().await {
                Some(data) => self.write_ids.input(&data, false),
                None => {
                    self.stdin = None;
                    self.write_ids.input(b"", true)
                }
            },
            (LastInput::Taken | LastInput::Sent(_) | LastInput::Over, _) => {
                std::future::pending().await
            }
        };
        self.last = LastInput::Sent(input.clone());
        input
    }

    /// Handles the reply to the input that was sent; returns an error that is worth printing.
    pub fn on_reply(&mut self, answer: Result<Value, WireError>) -> Option<WireError> {
        let last = std::mem::replace(&mut self.last, LastInput::Over);
        match (answer, last) {
            (Ok(_), _) => {
                self.backoff = ResendDelay::new();
                self.last = LastInput::Taken;
                None
            }
            (Err(error), LastInput::Sent(input)) if error.is_temporary() => {
                self.last = LastInput::Later(input, self.backoff.next_try());
                None
            }
            // The job's stdin is closed, or the job has ended: the rest is not needed.
            (Err(error), _) if error.code == WireError::CONFLICT => None,
            (Err(error), _) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: i64) -> Result<Value, WireError> {
        Err(WireError {
            code,
            message: "no".into(),
            data: Value::Null,
        })
    }

    fn sent() -> Forward {
        let mut forward = Forward::nothing();
        forward.last = LastInput::Sent(json!({"write_id": "w"}));
        forward
    }

    #[tokio::test]
    async fn what_may_pass_is_sent_again_under_its_name() {
        for code in [WireError::LIMIT_EXCEEDED, WireError::UNAVAILABLE] {
            let mut forward = sent();
            assert_eq!(forward.on_reply(refused(code)), None);
            assert_eq!(forward.next().await["write_id"], "w");
            assert!(matches!(forward.last, LastInput::Sent(_)));
        }
    }

    #[test]
    fn what_does_not_pass_is_the_end_and_told_unless_it_is_expected() {
        for (code, reported) in [(WireError::CONFLICT, false), (-32603, true)] {
            let mut forward = sent();
            assert_eq!(forward.on_reply(refused(code)).is_some(), reported);
            assert!(matches!(forward.last, LastInput::Over));
        }
    }

    #[test]
    fn names_are_never_the_same() {
        let (mut a, mut b) = (WriteIds::new(), WriteIds::new());
        let ids: std::collections::BTreeSet<_> = [
            a.input(b"x", false),
            a.input(b"x", false),
            b.input(b"x", true),
        ]
        .iter()
        .map(|input| input["write_id"].to_string())
        .collect();
        assert_eq!(ids.len(), 3);
    }
}
