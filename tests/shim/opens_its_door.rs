//! The shim's socket under a job that connects to it in a loop: a server that comes is heard at once.

use std::time::{Duration, Instant};

use crate::harness::{Shim, cancel, shell, until};

/// How long a server that comes may have to wait.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// Processes that connect as fast as they can, and keep what they have open for a while.
fn flood(shim: &Shim, processes: usize) -> String {
    let shims = shim.layout.shims();
    format!(
        "cd {dir}; for i in $(seq {processes}); do python3 -c '\n\
         import socket\n\
         kept = []\n\
         print(\"up\", flush=True)\n\
         while True:\n\
         \x20   s = socket.socket(socket.AF_UNIX)\n\
         \x20   try: s.connect(\"{name}\")\n\
         \x20   except OSError: continue\n\
         \x20   kept.append(s)\n\
         \x20   del kept[:-64]\n\
         ' & done; wait",
        dir = shims.display(),
        name = shim.socket().file_name().expect("a name").to_string_lossy(),
    )
}

#[test]
fn a_job_that_connects_in_a_loop_keeps_no_server_out() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(shell(&flood(&shim, 4)));
    server.started();
    until("all of them connect", || {
        let stored = shim.output(cc_executor::job::Stream::Stdout);
        stored.len() == "up\n".len() * 4
    });
    for epoch in 2..12 {
        let begun = Instant::now();
        let (next, _) = shim.hello(epoch);
        let took = begun.elapsed();
        assert!(took < HEARD_WITHIN, "epoch {epoch}: {took:?}");
        server = next;
    }
    server.send(&cancel(0));
    server.exited();
}
