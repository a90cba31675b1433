//! What the server's process needs around the server: its place, its start from within a job, what it
//! keeps, and what its parts are told.

pub(super) mod keeping;
pub(super) mod outside;
pub(super) mod place;
pub(super) mod settings;
