//! Runs the binary as a command of a shell, with a ceiling.
//! Knows nothing of the verbs.

use std::{
    ffi::OsStr,
    io::Read,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::Instant,
};

use super::{BINARY, CEILING, processes::MARK, until};

/// One call of the command.
pub struct Cli {
    command: Command,
    stdin: Stdio,
}

/// How a call ended.
#[derive(Debug)]
pub struct Finished {
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it said.
    pub stderr: Vec<u8>,
    /// Its exit status.
    pub status: ExitStatus,
}

/// A call that goes on beside the test.
pub struct Running {
    /// The process.
    pub child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

impl Cli {
    /// A call of `VERB --data-dir DIR`; more words follow by [`Cli::args`].
    pub fn new(data_dir: &Path, verb: &str) -> Self {
        Self::of(BINARY, data_dir, verb)
    }

    /// The same with a copy of the binary that lies elsewhere.
    pub fn of(program: impl AsRef<OsStr>, data_dir: &Path, verb: &str) -> Self {
        let mut command = Command::new(program);
        command.arg(verb).arg("--data-dir").arg(data_dir);
        command.env(MARK, data_dir);
        command.env_remove("NO_COLOR");
        Self {
            command,
            stdin: Stdio::null(),
        }
    }

    /// A call of `VERB` alone; the directory only marks the process as the test's.
    pub fn bare(verb: &str, data_dir: &Path) -> Self {
        let mut command = Command::new(BINARY);
        command.arg(verb).env(MARK, data_dir).env_remove("NO_COLOR");
        Self {
            command,
            stdin: Stdio::null(),
        }
    }

    /// Adds words.
    pub fn args<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.command.args(words);
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the working directory.
    pub fn cwd(mut self, path: impl Into<PathBuf>) -> Self {
        self.command.current_dir(path.into());
        self
    }

    /// Gives it this as its stdin instead of nothing. A piped one is the [`Running::child`]'s.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Starts it and leaves it running.
    #[track_caller]
    pub fn spawn(mut self) -> Running {
        self.command
            .stdin(self.stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("piped");
        let stderr = child.stderr.take().expect("piped");
        Running {
            child,
            stdout: collect_stdout(stdout),
            stderr: collect_stderr(stderr),
        }
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Finished {
        self.spawn().finish()
    }
}

impl Running {
    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let began = Instant::now();
        let child = &mut self.child;
        let status = until("a command to end", || {
            let status = child.try_wait().expect("our child");
            if status.is_none() && began.elapsed() * 10 > CEILING * 9 {
                let _ = child.kill();
            }
            status
        });
        Finished {
            stdout: self.stdout.join().expect("reading stdout"),
            stderr: self.stderr.join().expect("reading stderr"),
            status,
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).expect("our child");
    }
}

impl Finished {
    /// The exit code; a death by signal is a failure of the test.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("ended by signal {:?}: {self:?}", self.status.signal()))
    }

    /// stdout as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stderr as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// stdout as JSON, of a call that must have succeeded.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.code(), 0, "{}", self.err());
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.out()))
    }
}

fn collect_stdout(mut pipe: ChildStdout) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || read_all(&mut pipe))
}

fn collect_stderr(mut pipe: ChildStderr) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || read_all(&mut pipe))
}

fn read_all(pipe: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).expect("a pipe");
    bytes
}
