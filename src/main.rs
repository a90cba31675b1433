//! The binary: dispatches its roles. The shim comes first, before any runtime or parser exists.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|role| role == "shim") {
        return cc_executor::shim::main(args);
    }
    ExitCode::SUCCESS
}
