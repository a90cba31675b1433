//! What the integration tests share: the real binary as a server or a command, raw clients for its
//! public doors, and an oracle for bytes. Nothing of the product is linked here.

// Each test binary uses another part of it.
#![allow(dead_code, unused_imports)]

mod binary;
mod cli;
mod client;
mod clock;
mod disk;
mod failing;
mod frozen;
mod horde;
mod http;
mod oracle;
mod processes;
mod proxy;
mod receiver;
mod server;
mod terminal;
mod transcript;

use std::{
    thread,
    time::{Duration, Instant},
};

pub use binary::BinaryFrame;
pub use cli::{Cli, Finished, Running};
pub use client::{Client, Frame, connect_refused};
pub use clock::{DAY_S, WallClock};
pub use disk::{Disk, FileSystem};
pub use failing::Failing;
pub use frozen::Frozen;
pub use horde::{Horde, Target, text_frame};
pub use http::{Response, request};
pub use oracle::{assert_bytes, content, emit, mix, sha256};
pub use processes::{
    MARK, children, cpu_ticks, describe, is_alive, memory, parent, state, with_mark, with_word,
};
pub use proxy::{Fate, Proxy};
pub use receiver::{Received, Receiver};
pub use server::Server;
pub use terminal::Terminal;
pub use transcript::Transcript;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_cc-executor");

/// How long anything may take before a test gives up. Generous: it only bounds failures.
pub const CEILING: Duration = Duration::from_secs(60);

/// How often a condition is looked at that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until there is a value; fails after the ceiling.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < CEILING, "gave up waiting for {what}");
        #[expect(
            clippy::disallowed_methods,
            reason = "between two looks at what nobody announces"
        )]
        thread::sleep(LOOK_EVERY);
    }
}

/// Looks until the condition holds; fails after the ceiling.
#[track_caller]
pub fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}
