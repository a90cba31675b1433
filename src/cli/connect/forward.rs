//! Our stdin on its way to a job: one input at a time, each sent again under its own name until it
//! is taken, so that no byte is lost or written twice.
//!
//! How it is sent is its user's business.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{stdin::Stdin, wire::WireError};

/// First pause before an input that did not fit is sent again.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Longest pause before that.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Names for inputs that nobody else uses.
#[derive(Debug)]
pub struct InputNames {
    of: uuid::Uuid,
    next: u64,
}

impl InputNames {
    /// New ones.
    pub fn new() -> Self {
        Self {
            of: uuid::Uuid::now_v7(),
            next: 0,
        }
    }

    /// The parameters of a `job.input`, the job aside.
    pub fn input(&mut self, data: &[u8], eof: bool) -> Value {
        let write_id = format!("cli-{}-{}", self.of.simple(), self.next);
        self.next += 1;
        json!({"data_base64": STANDARD.encode(data), "eof": eof, "write_id": write_id})
    }
}

/// How soon something is tried again: later each time, until it has worked.
#[derive(Debug)]
pub struct Pause(Duration);

impl Pause {
    /// The shortest one.
    pub fn new() -> Self {
        Self(PAUSE_MIN)
    }

    /// The moment of the next try.
    pub fn over_at(&mut self) -> Instant {
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
    names: InputNames,
    pause: Pause,
    place: LastInput,
}

impl Forward {
    /// Forwards stdin, and its end.
    pub fn of(stdin: Stdin) -> Self {
        Self {
            stdin: Some(stdin),
            names: InputNames::new(),
            pause: Pause::new(),
            place: LastInput::Taken,
        }
    }

    /// Forwards nothing.
    pub fn nothing() -> Self {
        Self {
            stdin: None,
            names: InputNames::new(),
            pause: Pause::new(),
            place: LastInput::Over,
        }
    }

    /// The next input to be sent. Cancel-safe. Never returns while one is on its way.
    pub async fn next(&mut self) -> Value {
        let input = match (&self.place, &mut self.stdin) {
            (LastInput::Later(input, at), _) => {
                sleep_until(*at).await;
                input.clone()
            }
            (LastInput::Taken, Some(stdin)) => match stdin.next().await {
                Some(data) => self.names.input(&data, false),
                None => {
                    self.stdin = None;
                    self.names.input(b"", true)
                }
            },
            (LastInput::Taken | LastInput::Sent(_) | LastInput::Over, _) => {
                std::future::pending().await
            }
        };
        self.place = LastInput::Sent(input.clone());
        input
    }

    /// Takes the answer to the input that was sent; what a person should hear.
    pub fn answered(&mut self, answer: Result<Value, WireError>) -> Option<WireError> {
        let place = std::mem::replace(&mut self.place, LastInput::Over);
        match (answer, place) {
            (Ok(_), _) => {
                self.pause = Pause::new();
                self.place = LastInput::Taken;
                None
            }
            (Err(error), LastInput::Sent(input)) if error.may_pass() => {
                self.place = LastInput::Later(input, self.pause.over_at());
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
        forward.place = LastInput::Sent(json!({"write_id": "w"}));
        forward
    }

    #[tokio::test]
    async fn what_may_pass_is_sent_again_under_its_name() {
        for code in [WireError::LIMIT_EXCEEDED, WireError::UNAVAILABLE] {
            let mut forward = sent();
            assert_eq!(forward.answered(refused(code)), None);
            assert_eq!(forward.next().await["write_id"], "w");
            assert!(matches!(forward.place, LastInput::Sent(_)));
        }
    }

    #[test]
    fn what_does_not_pass_is_the_end_and_told_unless_it_is_expected() {
        for (code, told) in [(WireError::CONFLICT, false), (-32603, true)] {
            let mut forward = sent();
            assert_eq!(forward.answered(refused(code)).is_some(), told);
            assert!(matches!(forward.place, LastInput::Over));
        }
    }

    #[test]
    fn names_are_never_the_same() {
        let (mut a, mut b) = (InputNames::new(), InputNames::new());
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
