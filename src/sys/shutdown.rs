//! When the process ends: the signals that request it, and a deadline that always holds.
//! `cli::verbs::serve` stops the server in between.

use std::{io, process, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Handles SIGTERM and SIGINT from now on: the first one cancels the token, the second one ends the
/// process at once (with 128 and the signal's number, as if it had not been caught).
pub fn on_signals() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let asked = CancellationToken::new();
    let token = asked.clone();
    tokio::spawn(async move {
        loop {
            let number = tokio::select! {
                _ = terminate.recv() => libc::SIGTERM,
                _ = interrupt.recv() => libc::SIGINT,
            };
            if token.is_cancelled() {
                process::exit(128 + number);
            }
            token.cancel();
        }
    });
    Ok(asked)
}

/// Exits with 0 after `limit`, whatever the process is doing then. It uses a thread of its own,
/// because the runtime itself may be what hangs; it is safe, because a kill at any instant is.
pub fn exit_after(limit: Duration) {
    let ended = std::thread::Builder::new()
        .name("deadline".to_owned())
        .spawn(move || {
            #[expect(clippy::disallowed_methods, reason = "this is the deadline itself")]
            std::thread::sleep(limit);
            process::exit(0);
        });
    if let Err(error) = ended {
        tracing::warn!(%error, "no thread for the deadline of the stop");
    }
}
