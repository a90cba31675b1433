//! A sentence on a job's state or end. Pure; `exit_code` has the exit codes.

use chrono::Local;
use nix::errno::Errno;
use serde_json::Value;

use super::{duration, job::ShownJob, job::ShownSpawnError};
use crate::escape::visible;

/// How many processes that could not be signalled a sentence names.
const REFUSED_SHOWN: usize = 4;

/// The job's state or end: `failed: it exited with code 3`, `was cancelled by cli`, …
pub fn of(job: &ShownJob) -> String {
    format!("{}{}", how(job), refusal(job))
}

fn how(job: &ShownJob) -> String {
    match (job.state.as_str(), job.reason.as_deref()) {
        ("succeeded", _) => "succeeded: it exited with code 0".to_owned(),
        ("cancelled", _) => cancelled(job),
        ("failed", Some(reason)) => format!("failed: {}", failure(job, reason)),
        ("failed", None) => "failed".to_owned(),
        ("queued" | "scheduled" | "blocked", _) => waiting(job),
        (state, _) => format!("is {}{}", visible(state), stopping(job)),
    }
}

/// The processes that a stop could not signal; empty if there are none.
fn refusal(job: &ShownJob) -> String {
    let refused = job.stop.iter().flat_map(|stop| &stop.refused);
    let names: Vec<_> = refused
        .map(|process| format!("{} ({})", process.pid, visible(&process.comm)))
        .collect();
    match names.split_at(names.len().min(REFUSED_SHOWN)) {
        ([], _) => String::new(),
        (shown, rest) => {
            let shown = shown.join(", ");
            let more = match rest.len() {
                0 => String::new(),
                count => format!(" and {count} more"),
            };
            format!(
                "; the kernel did not allow signals (EPERM) to another user's processes: {shown}{more}"
            )
        }
    }
}

/// What a job that has not started waits for.
pub fn waiting(job: &ShownJob) -> String {
    match (job.state.as_str(), job.waits_until) {
        ("scheduled", Some(at)) => {
            let local = at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S");
            format!("waits until {local}")
        }
        ("blocked", _) => {
            let after: Vec<_> = job.after.iter().map(|after| visible(&after.job)).collect();
            format!("waits for {}", after.join(", "))
        }
        _ => format!("waits for a free slot in the queue {}", visible(&job.queue)),
    }
}

fn stopping(job: &ShownJob) -> String {
    match &job.stop {
        Some(stop) => format!(", and being stopped ({})", visible(&stop.cause)),
        None => String::new(),
    }
}

fn cancelled(job: &ShownJob) -> String {
    let Some(stop) = job.stop.as_ref() else {
        return "was cancelled".to_owned();
    };
    let by = match stop.by.as_str() {
        "" => String::new(),
        by => format!(" by {}", visible(by)),
    };
    let how = match (stop.cause.as_str(), stop.killed, job.started_at) {
        ("kill", _, Some(_)) => ", at once",
        (_, true, Some(_)) => ", after its grace, with SIGKILL",
        (_, _, None) => " before it started",
        _ => "",
    };
    format!("was cancelled{by}{how}")
}

fn failure(job: &ShownJob, reason: &str) -> String {
    match reason {
        "exit_code" => match job.exit_code {
            Some(code) => format!("it exited with code {code}"),
            None => "it exited with an unknown code".to_owned(),
        },
        "signal" => format!(
            "it was ended by {}",
            visible(job.signal.as_deref().unwrap_or("an unknown signal"))
        ),
        "timeout" => format!("it ran into its timeout{}", of_length(job.timeout_s)),
        "stalled" => format!(
            "it wrote nothing for too long{}",
            of_length(job.stall_timeout_s)
        ),
        "spawn" => match &job.spawn_error {
            Some(error) => format!("it could not be started: {}", spawn(error)),
            None => "it could not be started".to_owned(),
        },
        "output_limit" => {
            "it was ended because it wrote more than its max_bytes or max_lines".to_owned()
        }
        "unverified" => {
            let unmet: Vec<_> = job.unmet_expectations.iter().map(expected).collect();
            format!("its output does not show {}", unmet.join(", "))
        }
        "dependency" => match &job.failed_dependency {
            Some(on) => format!(
                "job {}, which it waited for, {}",
                on.number,
                match on.state.as_str() {
                    "cancelled" => "was cancelled",
                    _ => "failed",
                }
            ),
            None => "a job that it waited for did not succeed".to_owned(),
        },
        "lost" => "it is lost: how its process ended is unknown".to_owned(),
        other => visible(other),
    }
}

/// What was expected: `"0 failed"`, `/^ok/`, or a digest.
fn expected(expectation: &Value) -> String {
    let text = |key: &str| expectation[key].as_str().map(visible);
    let expected = match (text("contains"), text("regex")) {
        (Some(text), _) => format!("{text:?}"),
        (None, Some(pattern)) => format!("/{pattern}/"),
        (None, None) => "the expected digest".to_owned(),
    };
    match expectation["gave_up_after_s"].as_u64() {
        None => expected,
        Some(seconds) => format!("{expected} (its search was given up after {seconds} s)"),
    }
}

fn of_length(seconds: Option<f64>) -> String {
    seconds.map_or_else(String::new, |s| format!(" of {}", duration::short(s)))
}

/// A spawn error with its errno and what to do: `make: ENOENT (No such file or directory): …`.
pub fn spawn(error: &ShownSpawnError) -> String {
    let (verb, object) = error.what.split_once(' ').unwrap_or(("", &error.what));
    let errno = Errno::from_raw(error.errno);
    let hint = match (verb, errno) {
        ("exec" | "", Errno::ENOENT) => {
            ": is it installed, on the job's PATH, and is the interpreter of its first line there?"
        }
        ("exec" | "", Errno::EACCES) => ": make it executable (chmod +x), or name an interpreter",
        ("exec" | "", Errno::ENOEXEC) => ": name its interpreter, or begin it with #!",
        ("exec" | "", Errno::E2BIG) => ": pass fewer arguments or less environment",
        ("chdir", _) => ": choose another working directory with --cwd",
        _ => "",
    };
    let what = if verb == "exec" { object } else { &error.what };
    format!(
        "{}: {} ({}){hint}",
        visible(what),
        visible(&error.name),
        errno.desc()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::render::job::sample;

    #[test]
    fn ends_read_as_sentences() {
        for (keys, text) in [
            (
                json!({"state": "failed", "reason": "exit_code", "exit_code": 3}),
                "failed: it exited with code 3",
            ),
            (
                json!({"state": "failed", "reason": "signal", "signal": "SIGKILL"}),
                "failed: it was ended by SIGKILL",
            ),
            (
                json!({"state": "failed", "reason": "timeout", "timeout_s": 90.0}),
                "failed: it ran into its timeout of 1m30s",
            ),
            (
                json!({"state": "cancelled", "stop": {"by": "cli", "cause": "cancel"}}),
                "was cancelled by cli before it started",
            ),
            (
                json!({"state": "queued"}),
                "waits for a free slot in the queue default",
            ),
            (json!({"state": "running"}), "is running"),
            (
                json!({"state": "running", "stop": {"cause": "cancel",
                    "refused": [{"pid": 7, "comm": "su\u{1b}do"}]}}),
                "is running, and being stopped (cancel); the kernel did not allow signals \
                 (EPERM) to another user's processes: 7 (su\\x1bdo)",
            ),
        ] {
            assert_eq!(of(&sample(keys)), text);
        }
    }

    #[test]
    fn a_spawn_error_names_program_errno_and_remedy() {
        let error = |errno, name: &str, what: &str| ShownSpawnError {
            errno,
            name: name.into(),
            what: what.into(),
        };
        let missing = spawn(&error(2, "ENOENT", "exec no-such-program"));
        assert!(missing.starts_with("no-such-program: ENOENT (No such file or directory): "));
        let gone = spawn(&error(2, "ENOENT", "chdir /gone"));
        assert!(
            gone.starts_with("chdir /gone: ENOENT") && gone.contains("--cwd"),
            "{gone}"
        );
        let evil = spawn(&error(13, "EACCES", "exec \x1b[2J"));
        assert!(!evil.contains('\x1b'), "{evil}");
    }
}
