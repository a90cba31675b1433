//! The note of a server whose start takes long: what it does, for command lines that wait for it.
//!
//! It is there only during such a start; one that was killed leaves it.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::Layout;
use crate::data_dir::{Access, DataDirError, OwnDir};

/// The longest note that is read, bytes.
const NOTE_BYTES_MAX: u64 = 4096;

/// What a server that starts is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartNote {
    /// Its process. The note is old if another process holds the data directory.
    pub pid: u32,
    /// A phrase for people.
    pub doing: String,
}

impl StartNote {
    /// Replaces the note.
    ///
    /// # Errors
    ///
    /// The file cannot be created or written.
    pub fn write(&self, dir: &OwnDir) -> Result<(), DataDirError> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        let draft = format!("{}.draft", Layout::STARTING);
        dir.replace_file(Layout::STARTING, &draft, &bytes)
    }

    /// The note, if there is one.
    pub fn read(dir: &OwnDir) -> Option<Self> {
        let file = dir.open_file(Layout::STARTING, Access::Read).ok()??;
        let mut bytes = Vec::new();
        file.take(NOTE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Removes the note, if there is one.
    pub fn remove(dir: &OwnDir) -> io::Result<()> {
        dir.remove(Layout::STARTING)
    }
}
