//! The binary: dispatches its roles.
fn main() {}
