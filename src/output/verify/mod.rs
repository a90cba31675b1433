//! Verifies a stored output: a walk over every byte, what it is checked against, and claims about it.

pub mod audit;
pub mod claims;
pub mod walk;
