//! Starts a server outside of the job that it is asked for in. A shim is the parent of every orphan
//! of its job, so no process below it can leave; the shim itself starts the server, as a sibling.
//!
//! What the server is told, and how it is waited for, is its user's business.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::OpenOptionsExt,
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::spool::{
    FromShim, LaunchRequest, Layout, ToShim,
    message::{self, MessageBuffer},
};
use crate::sys::long_path;

/// First word of the command line of the process between a shim and a server.
pub const OUTSIDE_ROLE: &str = "launch-outside";
/// How long a shim may take to start a process.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How many parents are looked at.
const DEPTH_MAX: usize = 10_000;

/// Our own program file, by its name: so `ps` shows more than `exe`, and where it was replaced under
/// us the server is what it is replaced by. Ours may be too old by now for the data directory.
pub fn program() -> PathBuf {
    std::env::current_exe()
        .map(|path| named(&path))
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// The name without what the kernel adds to that of a file that is not there any more.
fn named(path: &Path) -> PathBuf {
    let name = path.as_os_str().as_bytes();
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    PathBuf::from(OsStr::from_bytes(name))
}

/// The shim that this process is below.
#[derive(Debug, Clone)]
pub struct Shim {
    /// Its process id.
    pub pid: i32,
    layout: Layout,
    id: String,
}

/// The shim below which this process runs as a part of a job, if any; of several the outermost.
pub fn shim_above() -> Option<Shim> {
    let mut found = None;
    let mut at = parent(std::process::id() as i32);
    for _ in 0..DEPTH_MAX {
        let Some(pid) = at.filter(|pid| *pid > 0) else {
            break;
        };
        found = Shim::of(pid).or(found);
        at = parent(pid);
    }
    found
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}

impl Shim {
    /// The process, if it is a shim: it says so in its name and in its command line.
    fn of(pid: i32) -> Option<Self> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<_> = line.split(|byte| *byte == 0).collect();
        match words.as_slice() {
            [_, b"shim", b"--data-dir", dir, b"--id", id, ..] if name.trim_end() == "cc-shim" => {
                Some(Self {
                    pid,
                    layout: Layout::new(PathBuf::from(OsStr::from_bytes(dir))),
                    id: String::from_utf8(id.to_vec()).ok()?,
                })
            }
            _ => None,
        }
    }

    /// Whether it would start a process for us.
    pub fn check(&self) -> Result<(), LaunchError> {
        self.ask(&LaunchRequest::default()).map(drop)
    }

    /// Has it start our program with these words, this whole environment and working directory as its
    /// sibling. What the program writes to stderr goes to `stderr`, an open descriptor of ours.
    pub fn start(
        &self,
        args: &[OsString],
        env: &[(OsString, OsString)],
        cwd: &Path,
        stderr: &impl AsRawFd,
    ) -> Result<Outside, LaunchError> {
        let (mut reader, writer) = io::pipe().map_err(|error| self.refused(&error))?;
        let own = |fd: i32| format!("/proc/{}/fd/{fd}", std::process::id()).into_bytes();
        let mut words = vec![
            OUTSIDE_ROLE.as_bytes().to_vec(),
            own(writer.as_raw_fd()),
            own(stderr.as_raw_fd()),
        ];
        words.extend(args.iter().map(|word| word.as_bytes().to_vec()));
        let variable = |(name, value): &(OsString, OsString)| {
            [name.as_bytes(), b"=", value.as_bytes()].concat()
        };
        self.ask(&LaunchRequest {
            program: program().into_os_string().into_vec(),
            args: words,
            env: env.iter().map(variable).collect(),
            cwd: cwd.as_os_str().as_bytes().to_vec(),
        })?;
        // It has our pipe open as soon as it writes there; until then ours keeps the pipe.
        let pid = first_line(&mut reader).map_err(|error| self.refused(&error))?;
        drop(writer);
        let pid = pid.trim().parse().map_err(|error| self.refused(&error))?;
        let process = Pid::from_raw(pid)
            .ok_or(io::ErrorKind::InvalidData.into())
            .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?))
            .map_err(|error: io::Error| self.refused(&error))?;
        Ok(Outside {
            pid,
            process,
            stdout: reader,
        })
    }

    fn ask(&self, launch: &LaunchRequest) -> Result<i32, LaunchError> {
        match self.answer(launch) {
            Ok(FromShim::Launched { pid, error: None }) => Ok(pid),
            Ok(FromShim::Launched {
                error: Some(why), ..
            }) => Err(self.refused(&why)),
            Ok(_) => Err(self.refused(&"it answers something else")),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self
                    .refused(&"it belongs to another user, or is of a version that cannot do it"))
            }
            Err(error) => Err(self.refused(&error)),
        }
    }

    fn answer(&self, launch: &LaunchRequest) -> io::Result<FromShim> {
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(self.layout.shims())?;
        // Through a descriptor, so that the path may be of any length.
        let name = Layout::shim_socket_name(&self.id);
        let mut stream = UnixStream::connect(long_path::within(&directory, name))?;
        // Our variables are for nobody else, and a server that another user starts is not ours. A
        // process of any user can look like a shim from outside.
        let peer = getsockopt(&stream, PeerCredentials)?;
        if peer.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("it belongs to user {}", peer.uid()),
            ));
        }
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        stream.write_all(&message::encode(&ToShim::Launch(Box::new(launch.clone()))))?;
        let mut buffer = MessageBuffer::default();
        let mut bytes = [0; 4096];
        loop {
            if let Some(json) = buffer.next_message().map_err(io::Error::other)? {
                return serde_json::from_slice(json).map_err(io::Error::other);
            }
            match stream.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => buffer.extend(&bytes[..n]),
            }
        }
    }

    fn refused(&self, why: &dyn std::fmt::Display) -> LaunchError {
        LaunchError {
            shim: self.pid,
            why: why.to_string(),
        }
    }
}

/// Why no server can be started from here.
#[derive(Debug, thiserror::Error)]
#[error(
    "no server can be started from within this job, because it would end with the job: the job's \
     shim (process {shim}) does not start one outside ({why}); start it from a shell outside of the job"
)]
pub struct LaunchError {
    shim: i32,
    why: String,
}

/// A program that a shim has started for us.
#[derive(Debug)]
pub struct Outside {
    /// Its process id.
    pub pid: i32,
    /// The process.
    pub process: OwnedFd,
    /// What it writes to its stdout; ends when it does.
    pub stdout: io::PipeReader,
}

impl Outside {
    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        is_readable(self.process.as_fd(), PollTimeout::ZERO).unwrap_or(true)
    }
}

/// One line, and not a byte more: what follows is for others.
fn first_line(pipe: &mut io::PipeReader) -> io::Result<String> {
    let mut line = Vec::new();
    let within = ANSWER_WITHIN.as_millis() as u16;
    while line.last() != Some(&b'\n') {
        if !is_readable(pipe.as_fd(), PollTimeout::from(within))? {
            return Err(io::Error::other("what it started does not answer"));
        }
        let mut byte = [0];
        pipe.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    String::from_utf8(line).map_err(io::Error::other)
}

fn is_readable(fd: BorrowedFd<'_>, within: PollTimeout) -> io::Result<bool> {
    loop {
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        match poll(&mut fds, within) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The process that a shim starts: `STDOUT STDERR ARGS…`, the first two being files to write to. It
/// starts our program with `ARGS` and leaves, so that the server is nobody's child. The program has to
/// write its process id in a line first.
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(stdout), Some(stderr)) = (args.next(), args.next()) else {
        return ExitCode::FAILURE;
    };
    let started = open(&stdout).and_then(|stdout| {
        let errors = open(&stderr).map_or_else(|_| Stdio::null(), Stdio::from);
        Command::new(program())
            .args(args)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(errors)
            .spawn()
    });
    match started {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "cc-executor: no server could be started outside of a job: {error}"
            );
            ExitCode::FAILURE
        }
    }
}

fn open(path: &OsStr) -> io::Result<File> {
    OpenOptions::new().append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_replaced_is_called_by_its_name() {
        for (told, name) in [("/bin/it (deleted)", "/bin/it"), ("/bin/it", "/bin/it")] {
            assert_eq!(named(Path::new(told)), Path::new(name));
        }
    }

    #[test]
    fn parents_are_found() {
        assert_eq!(
            parent(std::process::id() as i32),
            Some(nix::unistd::getppid().as_raw())
        );
        assert!(Shim::of(std::process::id() as i32).is_none());
    }
}
