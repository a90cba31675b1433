//! Where the queries of earlier prompts are kept.

use std::path::PathBuf;

use crate::cli::target::{self, Target};

/// Most statements that are kept.
pub const ENTRIES_MAX: usize = 1000;
/// Longest statement that is kept, bytes.
pub const ENTRY_BYTES_MAX: usize = 16 << 10;

/// The file: in the data directory, or for a server on another machine in that of our own user. `None`
/// where there is no such directory.
pub fn path(target: &Target) -> Option<PathBuf> {
    let layout = match target {
        Target::Local(layout) => layout.clone(),
        Target::Remote { .. } => target::default_layout()?,
    };
    layout.root().is_dir().then(|| layout.sql_history())
}
