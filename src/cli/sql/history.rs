//! The file with the history of the prompt.

use std::path::PathBuf;

use crate::{
    cli::{
        connect::target::{self, Target},
        render::print,
    },
    data_dir::{Access, OwnDir},
    spool::Layout,
};

/// Most entries that are kept.
pub const ENTRIES_MAX: usize = 1000;
/// Longest entry that is kept, bytes.
pub const ENTRY_BYTES_MAX: usize = 16 << 10;

/// The file: in the data directory, or for a server at an address in this user's default data
/// directory. `None` if that directory does not exist or is not ours alone, or if the file's name
/// is not a file.
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
