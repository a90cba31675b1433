//! How a job is named: by its number (small, never reused) or by its UUIDv7. The store looks it up.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The UUIDv7 of a job (RFC 9562); unlike a number it is unique over all data directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub uuid::Uuid);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// The number of a job: positive, ascending in the order of submission, never reused.
pub type JobNumber = i64;

/// A job as a client names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobRef {
    /// By number: an integer, or a string of digits.
    Number(JobNumber),
    /// By UUID.
    Id(JobId),
}

impl JobRef {
    /// Reads a job's name from text: digits are a number, everything else must be a UUID.
    ///
    /// `None` where the text is neither (also for a number beyond `i64`).
    pub fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().ok().map(Self::Number);
        }
        uuid::Uuid::try_parse(text)
            .ok()
            .map(|id| Self::Id(JobId(id)))
    }
}

impl From<JobId> for JobRef {
    fn from(id: JobId) -> Self {
        Self::Id(id)
    }
}

impl From<JobNumber> for JobRef {
    fn from(number: JobNumber) -> Self {
        Self::Number(number)
    }
}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Id(id) => id.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_number_and_the_rest_a_uuid() {
        assert_eq!(JobRef::parse("42"), Some(JobRef::Number(42)));
        let id = uuid::Uuid::now_v7();
        assert_eq!(JobRef::parse(&id.to_string()), Some(JobRef::Id(JobId(id))));
        for bad in ["", "-1", "4.2", "99999999999999999999", "last", "0x1"] {
            assert_eq!(JobRef::parse(bad), None, "{bad}");
        }
    }
}
