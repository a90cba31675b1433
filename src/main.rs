//! The binary: `role` picks what it does by its first argument.

use std::process::ExitCode;

use cc_executor::{cli::McpRoutes, role};

fn main() -> ExitCode {
    role::main(McpRoutes::default())
}
