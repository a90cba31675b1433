//! The processes of an attempt: how they are started, found and signalled, and their pipes. All
//! unsafe code of the shim is in this room.

pub(super) mod fork;
pub(super) mod look;
pub(super) mod pipes;
pub(super) mod plan;
pub(super) mod reach;
pub(super) mod spawn;
pub(super) mod tree;
pub(super) mod usage;
