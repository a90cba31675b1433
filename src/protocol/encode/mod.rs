//! How output and notifications become frames: JSON and binary.

pub(super) mod chunk_binary;
pub(super) mod chunk_json;
pub(super) mod notifications;
pub(super) mod utf8_chunker;
