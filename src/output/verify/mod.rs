//! Verifies a stored output: `walk` reads every byte, `audit` compares the bytes with the digests and
//! lengths in the store, and `assertions` checks what the client asserts about the output.

pub mod assertions;
pub mod audit;
pub mod walk;
