//! The formats between shim and server: segment files with framed records, their reader and writer,
//! and the messages on a shim's control socket.
//!
//! Shim and server both depend on this module and not on each other. It makes no decisions: `job`
//! and `supervisor` interpret records and messages.

mod attempt_ref;
pub mod beginning;
pub mod dropped_range;
pub mod key;
pub mod layout;
pub mod mark;
pub mod message;
pub mod reader;
pub mod record;
pub mod safe_file;
pub mod segment;
pub mod unsynced;
pub mod writer;

pub use attempt_ref::AttemptRef;
pub use beginning::{Beginning, read_beginning};
pub use dropped_range::DroppedRange;
pub use key::ShimKey;
pub use layout::Layout;
pub use message::{
    AnyWelcome, CgroupSpec, FromShim, Greeting, LaunchRequest, PinnedRun, RunSpec, ShimState,
    ToShim,
};
pub use reader::{Position, SegmentReader};
pub use record::{Record, RecordHeader, RecordKind};
pub use segment::SegmentName;
pub use writer::SegmentWriter;
