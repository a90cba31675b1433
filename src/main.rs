//! The binary: picks its role. The roles without a runtime come first; everything else is a verb of
//! the command line.

use std::process::ExitCode;

use cc_executor::cli;

fn main() -> ExitCode {
    let role = std::env::args_os().nth(1);
    match role.as_deref().and_then(|role| role.to_str()) {
        Some(cli::LAUNCH_ROLE) => cli::launch(std::env::args_os().skip(2)),
        _ => cli::main(),
    }
}
