//! Why the log cannot go on at the moment.

use std::{io, time::Duration};

use super::space;

/// Why the log cannot go on at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// No room; trying again later may help.
    Full(String),
    /// Something is wrong with the disk; trying again later may help.
    Broken(String),
    /// The process could not be started; trying again after the pause may help.
    NotStarted(String, Duration),
    /// Two segments are unsynced; the sync thread tells when to go on.
    Unsynced,
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        if space::is_full(&error) {
            Self::Full(error.to_string())
        } else {
            Self::Broken(error.to_string())
        }
    }
}
