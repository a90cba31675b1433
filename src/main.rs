//! The binary: picks its role. The roles without a runtime come first, before any parser exists;
//! everything else is a verb of the command line.

use std::process::ExitCode;

use cc_executor::{cli, init, query, shim};

fn main() -> ExitCode {
    let role = std::env::args_os().nth(1);
    let rest = std::env::args_os().skip(2);
    match role.as_deref().and_then(|role| role.to_str()) {
        Some("shim") => shim::main(rest),
        Some(query::ROLE) => query::main(),
        Some(cli::LAUNCH_ROLE) => cli::launch(rest),
        Some("serve") if init::is_first() => init::main(std::env::args_os().skip(1)),
        _ => cli::main(),
    }
}
