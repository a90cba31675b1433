//! Opens the program and the directory that a policy has judged, before the fork: a link that was put into
//! one of the paths since then is not followed.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::PathBuf,
    process::Command,
};

use nix::{errno::Errno, unistd::fchdir};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2},
    io::{FdFlags, fcntl_setfd},
};

use super::plan::Executable;
use crate::{spool::PinnedRun, sys::file_digest};

/// What a script begins with.
const SCRIPT: &[u8] = b"#!";

/// The open program and directory.
#[derive(Debug)]
pub struct PinnedFiles {
    program: OwnedFd,
    cwd: OwnedFd,
    is_script: bool,
    /// Set if it is executed by its path.
    path: Option<CString>,
}

/// What could not be opened, and why.
#[derive(Debug)]
pub struct NotPinned {
    /// The error.
    pub errno: Errno,
    /// What was tried.
    pub what: String,
}

impl PinnedFiles {
    /// Opens them, and checks the digest if there is one. `word` is the program as the job names it.
    pub fn open(pinned: &PinnedRun, word: &str) -> Result<Self, NotPinned> {
        let failed = |errno: Errno, what: String| NotPinned { errno, what };
        let cwd = open(&pinned.cwd, OFlags::DIRECTORY)
            .map_err(|errno| failed(errno, format!("chdir {}", pinned.cwd)))?;
        let path = pinned.program.as_deref();
        let path = path.ok_or_else(|| failed(Errno::ENOENT, format!("exec {word}")))?;
        let exec = |errno| failed(errno, format!("exec {path}"));
        let program = open(path, OFlags::empty()).map_err(exec)?;
        let kind = fstat(&program).map_err(|error| exec(of_rustix(error)))?;
        if FileType::from_raw_mode(kind.st_mode) != FileType::RegularFile {
            return Err(exec(Errno::EACCES));
        }
        let readable = File::open(format!("/proc/self/fd/{}", program.as_raw_fd()));
        if let Some(expected) = &pinned.sha256 {
            let readable = readable.as_ref().map_err(|error| exec(of_io(error)))?;
            let found = file_digest::sha256_hex(readable).map_err(|error| exec(of_io(&error)))?;
            if found != *expected {
                let what =
                    format!("exec {path}, whose SHA-256 is {found} and not that of the policy");
                return Err(failed(Errno::EPERM, what));
            }
        }
        // A script that cannot be read cannot be run either.
        let is_script = readable.is_ok_and(|file| begins_as_script(&file));
        let path = (pinned.by_path && is_script).then(|| CString::new(path));
        Ok(Self {
            program,
            cwd,
            is_script,
            path: path.transpose().map_err(|_| exec(Errno::EINVAL))?,
        })
    }

    /// The directory.
    pub fn cwd(&self) -> RawFd {
        self.cwd.as_raw_fd()
    }

    /// What the child executes.
    pub fn executable(&self) -> Executable<'_> {
        match &self.path {
            Some(path) => Executable::Path(path),
            None => Executable::Descriptor {
                fd: self.program.as_raw_fd(),
                stays_open: self.is_script,
            },
        }
    }
}

/// Becomes the program that was judged, in its directory; `word` is its name and `args` are the words after it.
/// Returns only where that is not possible.
pub fn exec(pinned: &PinnedRun, word: &OsStr, args: impl Iterator<Item = OsString>) -> String {
    let files = match PinnedFiles::open(pinned, &word.to_string_lossy()) {
        Ok(files) => files,
        Err(NotPinned { errno, what }) => return format!("{what}: {}", errno.desc()),
    };
    let program = match files.executable() {
        Executable::Path(path) => PathBuf::from(OsStr::from_bytes(path.to_bytes())),
        // Only of a program that was not judged.
        Executable::Candidates(_) => return "exec a program that was not judged".to_owned(),
        // The link leads to the open file, whatever its path leads to now.
        Executable::Descriptor { fd, stays_open } => {
            if stays_open && let Err(errno) = fcntl_setfd(&files.program, FdFlags::empty()) {
                return format!("keep the script open: {errno}");
            }
            PathBuf::from(format!("/proc/self/fd/{fd}"))
        }
    };
    if let Err(errno) = fchdir(&files.cwd) {
        return format!("chdir {}: {errno}", pinned.cwd);
    }
    let error = Command::new(program).arg0(word).args(args).exec();
    format!("exec {}: {error}", word.to_string_lossy())
}

/// Opens a path that has no links, for its name alone.
fn open(path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(CWD, path, flags, Mode::empty(), resolve).map_err(of_rustix)
}

fn begins_as_script(mut file: &File) -> bool {
    let mut begin = [0; SCRIPT.len()];
    // From the beginning: its digest may have been read.
    std::io::Seek::rewind(&mut file).is_ok()
        && file.read_exact(&mut begin).is_ok()
        && begin == SCRIPT
}

fn of_rustix(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

fn of_io(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
