//! The exit codes of the verbs, and the code of `run` and `wait` for a job's end. Pure; `describe`
//! has the sentences.

use nix::errno::Errno;

use super::job::ShownJob;
use crate::job::signal;

/// Success.
pub const SUCCESS: u8 = 0;
/// A verb other than `run` failed.
pub const FAILURE: u8 = 1;
/// `search` failed; as of grep, 1 is that nothing was found.
pub const SEARCH_FAILED: u8 = 2;
/// The job reached its timeout or stall timeout, or `wait` its own.
pub const TIMED_OUT: u8 = 124;
/// `run` itself failed, or it is unknown how the job ended.
pub const RUN_FAILED: u8 = 125;
/// The command was found, but could not be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;
/// Added to the number of the signal that ended the job.
pub const SIGNAL: u8 = 128;
/// The job was cancelled, or `run` was left: as if by SIGINT.
pub const CANCELLED: u8 = SIGNAL + 2;
/// `run` detached because the terminal hung up: as if by SIGHUP.
pub const HUNG_UP: u8 = SIGNAL + 1;
/// The reader of the output has left: as if by SIGPIPE.
pub const BROKEN_PIPE: u8 = SIGNAL + 13;

/// The exit code for a final job; [`RUN_FAILED`] for one that is not final.
pub fn of(job: &ShownJob) -> u8 {
    match (job.state.as_str(), job.reason.as_deref()) {
        ("succeeded", _) => SUCCESS,
        ("cancelled", _) => CANCELLED,
        ("failed", Some("exit_code")) => of_code(job.exit_code),
        ("failed", Some("signal")) => of_signal(job.signal.as_deref()),
        ("failed", Some("timeout" | "stalled")) => TIMED_OUT,
        ("failed", Some("spawn")) => of_spawn(job.spawn_error.as_ref().map(|e| e.errno)),
        _ => RUN_FAILED,
    }
}

fn of_code(code: Option<i32>) -> u8 {
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(RUN_FAILED)
}

fn of_signal(name: Option<&str>) -> u8 {
    name.and_then(signal::number)
        .and_then(|number| u8::try_from(number).ok())
        .map_or(RUN_FAILED, |number| SIGNAL + number)
}

fn of_spawn(errno: Option<i32>) -> u8 {
    match errno.map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENOTDIR) => NOT_FOUND,
        Some(_) => NOT_EXECUTABLE,
        None => RUN_FAILED,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::render::job::sample;

    fn failed(reason: &str, key: &str, value: Value) -> u8 {
        of(&sample(
            json!({"state": "failed", "reason": reason, key: value}),
        ))
    }

    #[test]
    fn a_job_ends_as_its_process_did() {
        assert_eq!(
            of(&sample(json!({"state": "succeeded", "exit_code": 0}))),
            0
        );
        assert_eq!(failed("exit_code", "exit_code", json!(3)), 3);
        assert_eq!(failed("exit_code", "exit_code", json!(255)), 255);
        assert_eq!(failed("signal", "signal", json!("SIGKILL")), 137);
        assert_eq!(failed("signal", "signal", json!("SIG34")), 162);
        assert_eq!(
            of(&sample(json!({"state": "cancelled", "exit_code": 0}))),
            130
        );
    }

    #[test]
    fn limits_and_spawn_errors_have_their_own_codes() {
        assert_eq!(failed("timeout", "signal", json!("SIGTERM")), 124);
        assert_eq!(failed("stalled", "signal", json!("SIGKILL")), 124);
        let spawn = |errno: i32| json!({"errno": errno, "name": "E", "what": "exec x"});
        for (errno, code) in [(2, 127), (20, 127), (13, 126), (8, 126), (7, 126)] {
            assert_eq!(
                failed("spawn", "spawn_error", spawn(errno)),
                code,
                "{errno}"
            );
        }
    }

    #[test]
    fn what_nobody_knows_is_ours() {
        for reason in [
            "lost",
            "output_limit",
            "dependency",
            "unverified",
            "brand_new",
        ] {
            assert_eq!(
                failed(reason, "exit_code", json!(0)),
                RUN_FAILED,
                "{reason}"
            );
        }
        assert_eq!(failed("spawn", "spawn_error", json!(null)), RUN_FAILED);
        assert_eq!(failed("exit_code", "exit_code", json!(null)), RUN_FAILED);
        assert_eq!(of(&sample(json!({"state": "running"}))), RUN_FAILED);
    }
}
