//! What the server's process needs around the server: its place, its start from within a job, and what
//! it keeps.

pub(super) mod claim;
pub(super) mod outside;
pub(super) mod socket;
