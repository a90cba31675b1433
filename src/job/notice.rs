//! A notice: one state change of a job, for one receiver. What its receiver gets, and how it is
//! listed.

use serde::Serialize;

use super::{
    id::{JobId, JobNumber},
    notify::{NotifyTarget, WebhookSecret},
    state::JobState,
    time::Micros,
    view::Job,
    words::words,
};

/// How far a notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeState {
    /// It is delivered as soon as it is due, and again until its receiver has taken it.
    Waiting,
    /// Its receiver has taken it.
    Delivered,
    /// Its receiver has not taken it within the bounds of attempts and time.
    GivenUp,
}

words!(NoticeState: Waiting = "waiting", Delivered = "delivered", GivenUp = "given_up");

/// A notice as users see it. Serialises as the protocol's `Notice` object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Notice {
    /// Ascending in the order of the state changes; never reused.
    pub number: i64,
    /// The id that its receiver gets, the same with each attempt.
    pub id: String,
    /// Number of the job, which may be deleted.
    pub job: JobNumber,
    /// The state that the job entered.
    pub on: JobState,
    /// When it did, by the wall clock.
    pub at: Micros,
    /// Index of the receiver in the job's `notify`, from 0.
    pub entry: u32,
    /// The command; `None` for a URL.
    pub argv: Option<Vec<String>>,
    /// The URL; `None` for a command.
    pub url: Option<String>,
    /// Whether its requests are signed.
    pub has_secret: bool,
    /// How far it is.
    pub state: NoticeState,
    /// How many attempts have ended.
    pub attempts: u32,
    /// When the next attempt is due; `None` where there is none.
    pub due_at: Option<Micros>,
    /// When the last attempt ended.
    pub tried_at: Option<Micros>,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

impl Notice {
    /// The notice for a client that may not see what its receiver has answered: of an answer the status, and of
    /// a command how it ended.
    pub fn without_answer(mut self) -> Self {
        let answers = ["HTTP ", "it exited ", "it was ended ", "it ended"];
        if let Some(error) = &mut self.error
            && answers.iter().any(|begin| error.starts_with(begin))
            && let Some(end) = error.find(": ")
        {
            error.truncate(end);
        }
        self
    }
}

/// The id of a notice: unique over all data directories, and the same with each attempt. Signatures
/// are over texts that a full stop divides, so it has none.
pub fn notice_id(job: JobId, event: i64, entry: u32) -> String {
    format!("evt_{job}_{event}_{entry}")
}

/// What a receiver gets: the content of a request, and the stdin of a command. It is made once, with
/// the state change, so each attempt sends the same bytes.
///
/// # Errors
///
/// None that a job can cause.
pub fn body(id: &str, event: i64, at: Micros, job: &Job) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Body<'a> {
        r#type: String,
        timestamp: Micros,
        data: EventData<'a>,
    }
    #[derive(Serialize)]
    struct EventData<'a> {
        id: &'a str,
        event: i64,
        job: &'a Job,
    }
    serde_json::to_string(&Body {
        r#type: format!("job.{}", job.state.name()),
        timestamp: at,
        data: EventData { id, event, job },
    })
}

/// A notice as it is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The id that its receiver gets.
    pub id: String,
    /// Its receiver.
    pub target: NotifyTarget,
    /// What its requests are signed with.
    pub secret: Option<WebhookSecret>,
    /// What its receiver gets.
    pub body: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_answer_the_status_is_left() {
        let left = |error: &str| {
            let notice = Notice {
                number: 1,
                id: String::new(),
                job: 1,
                on: JobState::Failed,
                at: Micros(0),
                entry: 0,
                argv: None,
                url: None,
                has_secret: false,
                state: NoticeState::Waiting,
                attempts: 1,
                due_at: None,
                tried_at: None,
                error: Some(error.to_owned()),
            };
            notice.without_answer().error.expect("an error")
        };
        for (error, expected) in [
            (
                "HTTP 500 Internal Server Error: a: b",
                "HTTP 500 Internal Server Error",
            ),
            (
                "HTTP 302 Found; redirects are not followed: x",
                "HTTP 302 Found; redirects are not followed",
            ),
            ("HTTP 404 Not Found", "HTTP 404 Not Found"),
            ("it exited with 3: a secret", "it exited with 3"),
            ("it was ended by SIGKILL: x", "it was ended by SIGKILL"),
            ("no connection: refused", "no connection: refused"),
        ] {
            assert_eq!(left(error), expected);
        }
    }
}
