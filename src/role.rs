//! Picks the binary's role by its first argument. Internal roles come first, before the command line is
//! parsed; everything else is a verb of the command line.

use std::process::ExitCode;

use crate::{
    cli::{self, McpRoutes},
    init, launch, notices, query, shim,
    sys::cgroup_probe,
};

/// The binary's `main`; `mcp` makes the route of MCP in the role of a server.
pub fn main(mcp: McpRoutes) -> ExitCode {
    let role = std::env::args_os().nth(1);
    let rest = std::env::args_os().skip(2);
    match role.as_deref().and_then(|role| role.to_str()) {
        Some("shim") => shim::main(rest),
        Some(cgroup_probe::PROBE_ROLE) => cgroup_probe::be_probed(rest),
        Some(query::ROLE) => query::main(),
        Some(notices::COMMAND_ROLE) => notices::main(rest),
        Some(cli::LAUNCH_ROLE) => cli::launch(rest),
        Some(launch::OUTSIDE_ROLE) => launch::main(rest),
        // This must run before any file is opened and before there is another thread.
        Some("serve") => match cli::prepare_to_serve() {
            Err(code) => code,
            Ok(()) if init::is_first() => init::main(std::env::args_os().skip(1)),
            Ok(()) => cli::main(mcp),
        },
        _ => cli::main(mcp),
    }
}
