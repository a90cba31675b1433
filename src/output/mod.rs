//! Everything that reads a job's stored output: `read` finds bytes by offset, `tail` replays and
//! follows with one loop, `search` matches patterns as bytes come, `line_search` finds lines, `digest`
//! hashes, `verify` checks what is stored, `files` syncs, copies and unlinks segments. The shim writes output; see `shim/log`.

pub mod digest;
pub mod files;
pub mod hub;
pub mod line_search;
pub mod read;
pub mod search;
pub mod tail;
pub mod verify;

pub use digest::Digest;
pub use digest::hasher::Hasher;
pub use files::unlinker::{UnlinkHold, Unlinker};
pub use hub::{ArmRequest, Hub, Watch};
pub use read::collect::{Collected, collect};
pub use read::find::OpenEnd;
pub use read::item::{Item, ReadBatch, ReadError};
pub use read::log::{Cursor, Log};
pub use search::Search;
pub use search::pattern::{Pattern, PatternError};
pub use tail::{Observed, OutputTail, StartAt, TailError, TailEvent, TailOptions};
pub use verify::assertions::{Assertion, Assertions};
pub use verify::audit::Audit;
pub use verify::walk::{OutputWalk, WalkEvent};

#[cfg(test)]
mod tail_tests;
#[cfg(test)]
mod testing;
