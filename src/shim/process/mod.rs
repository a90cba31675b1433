//! The processes of an attempt: how they are started, found and signalled, and their pipes. All
//! unsafe code of the shim is in `fork`.

pub(super) mod fork;
pub(super) mod inspect;
pub(super) mod pinned;
pub(super) mod pipes;
pub(super) mod plan;
pub(super) mod signal_tree;
pub(super) mod spawn;
pub(super) mod tree;
pub(super) mod usage;
