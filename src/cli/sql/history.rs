//! Where the queries of earlier prompts are kept.

use std::path::PathBuf;

use crate::{
    cli::{
        connect::target::{self, Target},
        render::print,
    },
    data_dir::{Access, OwnDir},
    spool::Layout,
};

/// Most statements that are kept.
pub const ENTRIES_MAX: usize = 1000;
/// Longest statement that is kept, bytes.
pub const ENTRY_BYTES_MAX: usize = 16 << 10;

/// The file: in the data directory, or for a server on another machine in that of our own user. `None`
/// where there is no such directory that is ours alone, or something else has the file's name.
pub fn path(target: &Target) -> Option<PathBuf> {
    let layout = match target {
        Target::Local(layout) => layout.clone(),
        Target::Remote { .. } => target::default_layout()?,
    };
    let dir = OwnDir::open(layout.root()).ok()??;
    match dir.open_file(Layout::SQL_HISTORY, Access::Read) {
        Ok(_) => Some(dir.path().join(Layout::SQL_HISTORY)),
        Err(error) => {
            print::line(&format!("the prompt's history is not kept: {error}"));
            None
        }
    }
}
