//! What a server's process needs besides the server: the lock of its data directory (`claim`), its
//! socket (`socket`), and a start from within a job (`outside`).

pub(super) mod claim;
pub(super) mod outside;
pub(super) mod settings;
pub(super) mod socket;
pub(super) mod starting;
