//! The shim: one small process per running attempt, which outlives the server. It holds the job's
//! process tree, stores its output, stops it when asked, and reports how it ended.
//!
//! It uses no database, no network and no async runtime: one thread that polls, and a helper thread
//! that syncs. `event_loop` is the loop. The life of an attempt is in `attempt`, in this order:
//! `pending`, `start`, `flow`, `stop`, `ending` and `closing`; `phase` says where it is, and `emit`
//! what the server is told of it. `redaction` masks secrets in the output, `log` stores it, `process` starts and signals processes,
//! `server` is the control socket.

mod attempt;
mod context;
mod current;
mod event_loop;
mod log;
mod poll;
mod process;
mod redaction;
mod server;
mod setup;
mod timestamps;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

pub use process::pinned::exec as exec_pinned;

/// Runs the shim: `--data-dir ABSOLUTE_DIR --id ID`, without the program's name and the role.
/// Returns when the shim leaves. It fails, with the reason on stderr, only if it could not begin.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let begun = Arguments::parse(args)
        .and_then(|args| setup::set_up(&args.data_dir, &args.id).map_err(|e| e.to_string()));
    match begun {
        Ok(event_loop) => {
            event_loop.run();
            ExitCode::SUCCESS
        }
        Err(why) => {
            let why = crate::escape::visible(&why);
            eprintln!("cc-executor shim: failed to {why}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    data_dir: PathBuf,
    id: String,
}

impl Arguments {
    fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let (mut data_dir, mut id) = (None, None);
        let mut args = args.into_iter();
        while let Some(name) = args.next() {
            match name.to_str() {
                Some("--data-dir") => data_dir = args.next().map(PathBuf::from),
                Some("--id") => id = args.next().and_then(|id| id.into_string().ok()),
                _ => return Err(format!("understand the argument {name:?}")),
            }
        }
        let data_dir = data_dir.filter(|dir| dir.is_absolute());
        Ok(Self {
            data_dir: data_dir.ok_or("find an absolute path in --data-dir")?,
            id: id
                .filter(|id| is_id(id))
                .ok_or("find a plain name in --id")?,
        })
    }
}

/// Whether `id` is a single file name of 1 to 64 plain characters, so that it fits into a socket's
/// path.
fn is_id(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=64).contains(&id.len()) && id.bytes().all(plain)
}

/// One of our own types as JSON bytes.
fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    // No map with non-string keys, no failing serializer.
    #[allow(clippy::expect_used)]
    serde_json::to_vec(value).expect("our own types serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked() {
        let parse = |args: &[&str]| Arguments::parse(args.iter().map(OsString::from));
        assert!(parse(&["--data-dir", "/d", "--id", "a-1"]).is_ok());
        for bad in [
            &["--data-dir", "d", "--id", "a"][..],
            &["--data-dir", "/d"],
            &["--data-dir", "/d", "--id", "../a"],
            &["--data-dir", "/d", "--id", ""],
            &["--what"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
