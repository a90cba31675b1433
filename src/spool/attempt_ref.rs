//! The attempt that a message between server and shim is about. A shim runs one attempt after the
//! other, so a late message must not be applied to the next one.

use serde::{Deserialize, Serialize};

use crate::job::JobNumber;

/// Names the attempt of a message. Versions before this field named none: their messages are about
/// the attempt that the shim has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AttemptRef {
    /// The job's number; `None` in messages of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job: Option<JobNumber>,
    /// The attempt's number, from 1; `None` in messages of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
}

impl AttemptRef {
    /// A reference to this attempt.
    pub fn attempt(job: JobNumber, attempt: u32) -> Self {
        Self {
            job: Some(job),
            attempt: Some(attempt),
        }
    }

    /// Whether it can mean this attempt: a number that is not named is not compared.
    pub fn is(&self, job: JobNumber, attempt: u32) -> bool {
        self.job.is_none_or(|own| own == job) && self.attempt.is_none_or(|own| own == attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        job::{StopCause, StopRequest},
        spool::{FromShim, ToShim},
    };

    #[test]
    fn only_what_is_named_is_compared() {
        let about = AttemptRef::attempt(7, 2);
        assert!(about.is(7, 2) && !about.is(7, 3) && !about.is(8, 2));
        assert!(AttemptRef::default().is(7, 2));
    }

    #[test]
    fn messages_of_the_version_before_are_about_the_current_attempt() {
        let request = r#""by":"x","cause":"cancel","asked_at_us":1,"grace_ms":5"#;
        for json in [
            r#"{"type":"pause"}"#.to_owned(),
            r#"{"type":"resume"}"#.to_owned(),
            r#"{"type":"arm","offset":4}"#.to_owned(),
            r#"{"type":"signal","signal":9}"#.to_owned(),
            format!(r#"{{"type":"stop",{request}}}"#),
        ] {
            let message: ToShim = serde_json::from_str(&json).expect("a message");
            assert_eq!(message.about(), Some(AttemptRef::default()), "{json}");
            // Serialised as it was: an attempt that is not named adds no field.
            assert_eq!(serde_json::to_string(&message).expect("JSON"), json);
        }
        for json in [
            r#"{"type":"paused"}"#.to_owned(),
            r#"{"type":"resumed"}"#.to_owned(),
            r#"{"type":"grew","offset":4}"#.to_owned(),
            r#"{"type":"sealed","next_offset":4}"#.to_owned(),
            r#"{"type":"waiting","waiting":true,"why":"x"}"#.to_owned(),
            format!(r#"{{"type":"stopping",{request}}}"#),
        ] {
            let message: FromShim = serde_json::from_str(&json).expect("a message");
            assert_eq!(message.about(), Some(AttemptRef::default()), "{json}");
            assert_eq!(serde_json::to_string(&message).expect("JSON"), json);
        }
    }

    /// The messages as the version before reads them.
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Before {
        Pause,
        Stop(StopRequest),
        Signal { signal: i32 },
    }

    #[test]
    fn the_version_before_reads_our_messages() {
        let request = StopRequest {
            by: "x".into(),
            cause: StopCause::Kill,
            asked_at_us: 1,
            grace_ms: 0,
        };
        let about = AttemptRef::attempt(7, 2);
        let (signal, stop) = (9, request.clone());
        for (ours, theirs) in [
            (ToShim::Pause { about }, Before::Pause),
            (ToShim::Stop { about, request }, Before::Stop(stop)),
            (ToShim::Signal { about, signal }, Before::Signal { signal }),
        ] {
            let json = serde_json::to_string(&ours).expect("JSON");
            assert_eq!(serde_json::from_str::<ToShim>(&json).expect("ours"), ours);
            assert_eq!(
                serde_json::from_str::<Before>(&json).expect("theirs"),
                theirs
            );
        }
    }
}
