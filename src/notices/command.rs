//! A notice as a command: the server runs it, with the notice on its stdin and the facts in its
//! environment. It has taken the notice when it exits with 0.
//!
//! The command is in a process group of its own, which is ended with it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, unix::AsyncFd},
    process::{Child, ChildStdin, Command},
};

use super::types::DeliveryFailure;
use crate::{
    clean,
    job::{Delivery, signal},
    launch::program,
    shim::exec_pinned,
    spool::PinnedRun,
    supervisor::{base_environment, home},
    sys::descriptors,
};

/// The first argument of the role that executes a command.
pub const COMMAND_ROLE: &str = "notice-command";
/// What a shell exits with for a program that it cannot execute.
const NOT_EXECUTED: u8 = 127;

/// How much of the end of a command's output is kept, bytes.
const OUTPUT_BYTES_MAX: usize = 1024;
/// How many characters of it are shown.
const SHOWN_CHARS_MAX: usize = 200;
/// How long after a command's end its output is waited for: a process that has left its group may
/// hold the pipes.
const OUTPUT_WITHIN: Duration = Duration::from_millis(200);

/// The variables of commands: the clean base environment of jobs, and what a notice says.
#[derive(Debug)]
pub struct CommandEnvironment {
    data_dir: PathBuf,
}

impl CommandEnvironment {
    /// Those of a server on this data directory.
    pub fn new(data_dir: PathBuf) -> Self {
        Self { data_dir }
    }

    /// Those for this notice. What it does not say is an empty text.
    pub fn of(&self, delivery: &Delivery) -> BTreeMap<String, String> {
        let mut env = BTreeMap::from(base_environment());
        // A path that is no text cannot be one.
        if let Some(data_dir) = self.data_dir.to_str() {
            env.insert("CC_EXECUTOR_DATA_DIR".to_owned(), data_dir.to_owned());
        }
        let body: Value = serde_json::from_str(&delivery.body).unwrap_or_default();
        let job = &body["data"]["job"];
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            // execve(2) takes no NUL.
            Value::String(text) => text.replace('\0', ""),
            other => other.to_string(),
        };
        env.insert("CC_EXECUTOR_EVENT_ID".to_owned(), delivery.id.clone());
        for (name, value) in [
            ("EVENT_TYPE", &body["type"]),
            ("JOB", &job["number"]),
            ("JOB_UUID", &job["id"]),
            ("STATE", &job["state"]),
            ("REASON", &job["reason"]),
            ("EXIT_CODE", &job["exit_code"]),
            ("NAME", &job["name"]),
        ] {
            env.insert(format!("CC_EXECUTOR_{name}"), text(value));
        }
        env
    }
}

/// Runs a command with `body` as its stdin; returns when it has exited with 0. Dropping the future
/// ends its process group.
///
/// # Errors
///
/// It cannot be started, or ended otherwise.
pub async fn run(
    argv: &[String],
    env: &BTreeMap<String, String>,
    body: &str,
) -> Result<(), DeliveryFailure> {
    run_judged(argv, None, env, body).await
}

/// The same; with `pinned` the file that was judged is executed, in the directory that was judged.
pub async fn run_judged(
    argv: &[String],
    pinned: Option<&PinnedRun>,
    env: &BTreeMap<String, String>,
    body: &str,
) -> Result<(), DeliveryFailure> {
    let pinned = serde_json::to_string(&pinned);
    let pinned = pinned.map_err(|error| DeliveryFailure::new(error.to_string()))?;
    let mut command = Command::new(program());
    command.arg(COMMAND_ROLE).arg(pinned).args(argv);
    run_command(command, env, body).await
}

/// The role between the server and a command: the server ignores signals and has descriptors that a
/// command must not inherit. Its arguments are what the policy has judged, as JSON, and those of the command.
pub fn main(mut argv: impl Iterator<Item = OsString>) -> ExitCode {
    clean::for_other_program();
    let pinned = argv.next().unwrap_or_default();
    let program = argv.next().unwrap_or_default();
    let error = match serde_json::from_slice::<Option<PinnedRun>>(pinned.as_encoded_bytes()) {
        Ok(Some(pinned)) => exec_pinned(&pinned, &program, argv),
        Ok(None) => {
            let error = std::process::Command::new(&program).args(argv).exec();
            error.to_string()
        }
        Err(error) => error.to_string(),
    };
    // The end of the output is shown with the exit code.
    let _ = writeln!(
        io::stderr(),
        "{} cannot be executed: {error}",
        program.display()
    );
    ExitCode::from(NOT_EXECUTED)
}

async fn run_command(
    mut command: Command,
    env: &BTreeMap<String, String>,
    body: &str,
) -> Result<(), DeliveryFailure> {
    let failed = |error: io::Error| DeliveryFailure::new(format!("not started: {error}"));
    let child = command
        .env_clear()
        .envs(env)
        .current_dir(home())
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Err(error) = descriptors::restore_limit(child.id()) {
        tracing::debug!(%error, "a command has the server's limit of open files");
    }
    let mut group = Group::of(child).map_err(failed)?;
    let (stdout, stderr, stdin) = (
        group.child.stdout.take(),
        group.child.stderr.take(),
        group.child.stdin.take(),
    );
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = {
        let pipes = async {
            tokio::join!(
                feed(stdin, body),
                keep_end(stdout, &mut out),
                keep_end(stderr, &mut err)
            )
        };
        tokio::pin!(pipes);
        let status = tokio::select! {
            status = group.end() => {
                // At once where they have been read to their end.
                let _ = tokio::time::timeout(OUTPUT_WITHIN, pipes).await;
                status
            }
            _ = &mut pipes => group.end().await,
        };
        status.map_err(|error| DeliveryFailure::new(format!("its end is unknown: {error}")))?
    };
    match status.success() {
        true => Ok(()),
        false => Err(DeliveryFailure::new(describe(status, &err, &out))),
    }
}

fn describe(status: ExitStatus, err: &[u8], out: &[u8]) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("it exited with {code}"),
        (None, Some(number)) => format!("it was ended by {}", signal::name(number)),
        (None, None) => "it ended".to_owned(),
    };
    let text = String::from_utf8_lossy(if err.is_empty() { out } else { err });
    let text = text.trim();
    let skipped = text.chars().count().saturating_sub(SHOWN_CHARS_MAX);
    match text.is_empty() {
        true => how,
        false => format!("{how}: {}", text.chars().skip(skipped).collect::<String>()),
    }
}

/// A command and its process group, which is killed when this is dropped.
struct Group {
    child: Child,
    leader: Pid,
    exited: AsyncFd<std::os::fd::OwnedFd>,
    /// Then the group's id may be another group's.
    is_reaped: bool,
}

impl Group {
    fn of(child: Child) -> io::Result<Self> {
        let leader = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let leader = leader.ok_or_else(|| io::Error::other("it has no process id"))?;
        let exited = pidfd_open(leader, PidfdFlags::empty())?;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe for the sake of other types; an OwnedFd stays open"
        )]
        let exited = AsyncFd::new(exited)?;
        Ok(Self {
            child,
            leader,
            exited,
            is_reaped: false,
        })
    }

    /// Waits for the end of the command and kills what is left of its group. The group's id stays
    /// ours until the command is reaped, so it is killed before.
    async fn end(&mut self) -> io::Result<ExitStatus> {
        let _exited = self.exited.readable().await?;
        self.kill();
        let status = self.child.wait().await;
        self.is_reaped = true;
        status
    }

    fn kill(&self) {
        // An error means that no process is left.
        let _ = kill_process_group(self.leader, Signal::KILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.kill();
        }
    }
}

/// Writes the whole text and closes the pipe. A command need not read it.
async fn feed(stdin: Option<ChildStdin>, body: &str) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(body.as_bytes()).await;
    }
}

/// Reads a pipe to its end and keeps the last bytes.
async fn keep_end(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else {
        return;
    };
    let mut buffer = [0; 4096];
    while let Ok(length) = pipe.read(&mut buffer).await
        && length > 0
    {
        kept.extend_from_slice(&buffer[..length]);
        let surplus = kept.len().saturating_sub(OUTPUT_BYTES_MAX);
        kept.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(line: &str, body: &str) -> Result<(), String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]);
        let env = BTreeMap::from(base_environment());
        let run = run_command(command, &env, body).await;
        run.map_err(|failure| failure.error)
    }

    #[tokio::test]
    async fn a_command_takes_a_notice_by_exiting_with_0() {
        assert_eq!(shell("test \"$(cat)\" = body", "body").await, Ok(()));
        // It need not read, however much there is.
        assert_eq!(shell("exit 0", &"x".repeat(1 << 20)).await, Ok(()));
        let long = "yes x | head -c 1000000 >&2; echo; echo why >&2; exit 3";
        let error = shell(long, "").await.expect_err("it failed");
        assert!(error.starts_with("it exited with 3: "), "{error}");
        assert!(error.ends_with("why") && error.len() < 300, "{error}");
        let killed = shell("kill -9 $$", "").await;
        assert_eq!(killed, Err("it was ended by SIGKILL".to_owned()));
        let missing = Command::new("/no/such/program");
        let missing = run_command(missing, &BTreeMap::new(), "").await;
        let missing = missing.expect_err("no program").error;
        assert!(missing.starts_with("not started: "), "{missing}");
    }

    #[tokio::test]
    async fn what_a_command_leaves_in_its_group_ends_with_it() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("pid");
        let line = format!("sleep 1000 & echo $! > {}; exit 0", file.display());
        assert_eq!(shell(&line, "").await, Ok(()));
        let pid = std::fs::read_to_string(&file).expect("its pid");
        let stat = format!("/proc/{}/stat", pid.trim());
        // It has been killed; the kernel takes a moment, and it is a zombie at most then.
        let gone = async {
            loop {
                let stat = std::fs::read_to_string(&stat).unwrap_or_default();
                if stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ") {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let gone = tokio::time::timeout(Duration::from_secs(60), gone).await;
        assert!(gone.is_ok(), "it lives");
    }

    #[test]
    fn variables_say_what_the_notice_says() {
        let delivery = |body: Value| Delivery {
            id: "evt_1".to_owned(),
            target: crate::job::NotifyTarget::Argv(vec!["x".to_owned()]),
            secret: None,
            body: body.to_string(),
        };
        let environment = CommandEnvironment::new("/data".into());
        let job = serde_json::json!({"number": 7, "id": "u", "state": "failed", "reason": "exit_code",
            "exit_code": 3, "name": "n\0ame"});
        let env = environment.of(&delivery(
            serde_json::json!({"type": "job.failed", "data": {"job": job}}),
        ));
        for (name, value) in [
            ("EVENT_ID", "evt_1"),
            ("EVENT_TYPE", "job.failed"),
            ("JOB", "7"),
            ("JOB_UUID", "u"),
            ("STATE", "failed"),
            ("REASON", "exit_code"),
            ("EXIT_CODE", "3"),
            ("NAME", "name"),
            ("DATA_DIR", "/data"),
        ] {
            assert_eq!(env[&format!("CC_EXECUTOR_{name}")], value, "{name}");
        }
        assert!(env.contains_key("PATH") && env.contains_key("HOME"));
        let test = environment.of(&delivery(serde_json::json!({"type": "test"})));
        assert_eq!(test["CC_EXECUTOR_STATE"], "");
    }
}
