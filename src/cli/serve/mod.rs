//! What a server's process needs besides the server: the lock of its data directory (`claim`), its
//! socket (`socket`), what the last server had in force (`in_force`), and a start from within a job (`outside`).

pub(super) mod claim;
pub(super) mod in_force;
pub(super) mod outside;
pub(super) mod settings;
pub(super) mod socket;
pub(super) mod starting;
