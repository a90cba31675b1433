//! Our stdin on its way to a job: one input at a time, each sent again under its own name until it
//! is taken, so that no byte is lost or written twice.
//!
//! How it is sent is its user's business.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{stdin::Stdin, wire::WireError};

/// First backoff before an input that did not fit is sent again.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Longest backoff before that.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Names for inputs that nobody else uses.
#[derive(Debug)]
pub struct WriteIds {
    session: uuid::Uuid,
    next: u64,
}

impl WriteIds {
    /// New ones.
    pub fn new() -> Self {
        Self {
            session: uuid::Uuid::now_v7(),
            next: 0,
        }
    }

    /// The parameters of a `job.input`, the job aside.
    pub fn input(&mut self, data: &[u8], eof: bool) -> Value {
        let write_id = format!("cli-{}-{}", self.session.simple(), self.next);
        self.next += 1;
        json!({"data_base64": STANDARD.encode(data), "eof": eof, "write_id": write_id})
    }
}

/// How soon something is tried again: later each time, until it has worked.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Backoff {
    /// The shortest one.
    pub fn new() -> Self {
        Self(PAUSE_MIN)
    }

    /// The moment of the next try.
    pub fn next_try(&mut self) -> Instant {
        let at = Instant::now() + self.0;
        self.0 = PAUSE_MAX.min(self.0 * 2);
        at
    }
}

/// Where the input is that was made last.
#[derive(Debug)]
enum LastInput {
    /// Taken; there may be more.
    Taken,
    /// On its way.
    Sent(Value),
    /// To be sent again then.
    Later(Value, Instant),
    /// There is nothing more to forward.
    Over,
}

/// Our stdin on its way.
#[derive(Debug)]
pub struct Forward {
    stdin: Option<Stdin>,
    write_ids: WriteIds,
    backoff: Backoff,
    last: LastInput,
}

impl Forward {
    /// Forwards stdin, and its end.
    pub fn of(stdin: Stdin) -> Self {
        Self {
            stdin: Some(stdin),
            write_ids: WriteIds::new(),
            backoff: Backoff::new(),
            last: LastInput::Taken,
        }
    }

    /// Forwards nothing.
    pub fn nothing() -> Self {
        Self {
            stdin: None,
            write_ids: WriteIds::new(),
            backoff: Backoff::new(),
            last: LastInput::Over,
        }
    }

    /// The next input to be sent. Cancel-safe. Never returns while one is on its way.
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

    /// Takes the answer to the input that was sent; what a person should hear.
    pub fn on_reply(&mut self, answer: Result<Value, WireError>) -> Option<WireError> {
        let last = std::mem::replace(&mut self.last, LastInput::Over);
        match (answer, last) {
            (Ok(_), _) => {
                self.backoff = Backoff::new();
                self.last = LastInput::Taken;
                None
            }
            (Err(error), LastInput::Sent(input)) if error.is_temporary() => {
                self.last = LastInput::Later(input, self.backoff.next_try());
                None
            }
            // Its stdin is closed, or it has ended: nobody wants the rest.
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
        for (code, told) in [(WireError::CONFLICT, false), (-32603, true)] {
            let mut forward = sent();
            assert_eq!(forward.on_reply(refused(code)).is_some(), told);
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
