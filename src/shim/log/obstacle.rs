//! Why the log cannot go on at the moment.

use std::{io, time::Duration};

use super::space;

/// Why the log cannot go on at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// No disk space, and why; trying again later may help.
    Full(String),
    /// An error of the disk, or a sync thread that is gone; trying again later may help.
    Broken(String),
    /// The process could not be started, and why; trying again after this pause may help.
    NotStarted(String, Duration),
    /// Two segments are unsynced; the attempt goes on when the sync thread has a result.
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
