//! When the process shall end: the signals that ask for it, and the deadline that holds whatever
//! happens.
//!
//! What has to be put in order before is the composition root's business.

use std::{io, process, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Waits for SIGTERM and SIGINT from now on: the first one sets the token, the second one ends the
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

/// Ends the process successfully after `limit`, whatever it is doing then. A thread of its own,
/// because what keeps us may be the runtime itself; safe, because a kill at any instant is.
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
