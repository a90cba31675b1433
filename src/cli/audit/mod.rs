//! Audit trails of the verb `audit`: exporting them from a server, and verifying them without one.

mod data_dir;
pub mod export;
pub mod verify;
