//! Starts a server from within a job, but outside of it. A shim is the parent of every orphan of its
//! job, so no process below it can leave; the shim itself starts the server, as a sibling of its own.
//!
//! The callers in `cli` choose the server's arguments and wait until it serves.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, OpenOptions},
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
use crate::sys::{
    long_path,
    proc::{self, Stat},
};

/// First word of the command line of the process between a shim and a server.
pub const OUTSIDE_ROLE: &str = "launch-outside";
/// How long to wait for a shim's reply, and then for the line of the process that it started.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Most parents that are checked on the way up to process 1.
const DEPTH_MAX: usize = 10_000;

/// The path of our own program file. By its name, `ps` shows more than `exe`, and if the file was
/// replaced while we run, the server is the new version: ours may be too old for the data directory.
pub fn program() -> PathBuf {
    std::env::current_exe()
        .map(|path| named(&path))
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// The path without the ` (deleted)` that the kernel appends for a file that was replaced or removed.
fn named(path: &Path) -> PathBuf {
    let name = path.as_os_str().as_bytes();
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    PathBuf::from(OsStr::from_bytes(name))
}

/// A shim above this process.
#[derive(Debug, Clone)]
pub struct Shim {
    /// Its process id.
    pub pid: i32,
    layout: Layout,
    id: String,
}

/// The shim of the job in which this process runs, if any; with jobs inside jobs, the outermost.
pub fn shim_above() -> Option<Shim> {
    let mut found = None;
    let mut next = parent(std::process::id() as i32);
    for _ in 0..DEPTH_MAX {
        let Some(pid) = next.filter(|pid| *pid > 0) else {
            break;
        };
        found = Shim::of(pid).or(found);
        next = parent(pid);
    }
    found
}

fn parent(pid: i32) -> Option<i32> {
    Some(Stat::read(pid).ok()?.parent)
}

impl Shim {
    /// The process, if its name and command line are those of a shim.
    fn of(pid: i32) -> Option<Self> {
        let name = proc::name(pid).ok()?;
        let line = proc::command_line(pid).ok()?;
        let words: Vec<_> = line.split(|byte| *byte == 0).collect();
        match words.as_slice() {
            [_, b"shim", b"--data-dir", dir, b"--id", id, ..] if name == "cc-shim" => Some(Self {
                pid,
                layout: Layout::new(PathBuf::from(OsStr::from_bytes(dir))),
                id: String::from_utf8(id.to_vec()).ok()?,
            }),
            _ => None,
        }
    }

    /// Checks that the shim would start a process for us, with a request that starts none.
    pub fn check(&self) -> Result<(), LaunchError> {
        self.request(&LaunchRequest::default()).map(drop)
    }

    /// Makes the shim start our program as its sibling, with these arguments, exactly this environment,
    /// and this working directory. The program's stderr is the file of `stderr`.
    pub fn start(
        &self,
        args: &[OsString],
        env: &[(OsString, OsString)],
        cwd: &Path,
        stderr: &impl AsRawFd,
    ) -> Result<Outside, LaunchError> {
        let (mut reader, writer) = io::pipe().map_err(|error| self.refused(&error))?;
        let path_of = |fd: i32| format!("/proc/{}/fd/{fd}", std::process::id()).into_bytes();
        let mut words = vec![
            OUTSIDE_ROLE.as_bytes().to_vec(),
            path_of(writer.as_raw_fd()),
            path_of(stderr.as_raw_fd()),
        ];
        words.extend(args.iter().map(|word| word.as_bytes().to_vec()));
        let variable = |(name, value): &(OsString, OsString)| {
            [name.as_bytes(), b"=", value.as_bytes()].concat()
        };
        self.request(&LaunchRequest {
            program: program().into_os_string().into_vec(),
            args: words,
            env: env.iter().map(variable).collect(),
            cwd: cwd.as_os_str().as_bytes().to_vec(),
        })?;
        // Keep our writing end until the program has written: it opens the pipe by our descriptor.
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

    fn request(&self, launch: &LaunchRequest) -> Result<i32, LaunchError> {
        match self.exchange(launch) {
            Ok(FromShim::Launched { pid, error: None }) => Ok(pid),
            Ok(FromShim::Launched {
                error: Some(why), ..
            }) => Err(self.refused(&why)),
            Ok(_) => Err(self.refused(&"its reply is of another kind")),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self
                    .refused(&"it belongs to another user, or is of a version that cannot do it"))
            }
            Err(error) => Err(self.refused(&error)),
        }
    }

    fn exchange(&self, launch: &LaunchRequest) -> io::Result<FromShim> {
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(self.layout.shims())?;
        // Through a descriptor: the path of a socket has up to 107 bytes (unix(7)).
        let name = Layout::shim_socket_name(&self.id);
        let mut stream = UnixStream::connect(long_path::within(&directory, name))?;
        // A process of any user can have the name and command line of a shim. Another user must not get
        // our environment, and a server that another user starts would not be ours.
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

/// Why no server can be started from within this job.
#[derive(Debug, thiserror::Error)]
#[error(
    "no server can be started from within this job, because it would end with the job, and the job's \
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
    /// Its pidfd, readable once it has ended (pidfd_open(2)).
    pub process: OwnedFd,
    /// What it writes to stdout after the line with its process id.
    pub stdout: io::PipeReader,
}

impl Outside {
    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        is_readable(self.process.as_fd(), PollTimeout::ZERO).unwrap_or(true)
    }
}

/// Reads one line, byte by byte: what follows is for the caller.
fn first_line(pipe: &mut io::PipeReader) -> io::Result<String> {
    let mut line = Vec::new();
    let within = ANSWER_WITHIN.as_millis() as u16;
    while line.last() != Some(&b'\n') {
        if !is_readable(pipe.as_fd(), PollTimeout::from(within))? {
            return Err(io::Error::other(
                "the process that it started does not answer",
            ));
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

/// The process that a shim starts, with the arguments `STDOUT STDERR ARGS…`; the first two are files
/// to write to. It starts our program with `ARGS` and exits, so that the server is not a child of the
/// shim's parent. The program must first write a line with its process id.
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
        for (shown, name) in [("/bin/it (deleted)", "/bin/it"), ("/bin/it", "/bin/it")] {
            assert_eq!(named(Path::new(shown)), Path::new(name));
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
