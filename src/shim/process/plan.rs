//! The interface between the shim and its child: what is prepared before a fork, and what a child
//! reports when it fails. Nothing here runs in the child.

use std::{
    ffi::{CStr, CString},
    os::fd::RawFd,
    ptr,
};

/// What a child was about to do when it failed; the first byte of its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ChildStep {
    /// Begin its own session.
    Session = 1,
    /// Ask to die with the shim.
    DeathSignal = 2,
    /// Go to its working directory.
    Chdir = 3,
    /// Put its descriptors 0, 1 and 2 in place.
    Descriptors = 4,
    /// Write its start record.
    Record = 5,
    /// Execute the program.
    Exec = 6,
    /// Take its limits.
    Limits = 7,
}

impl ChildStep {
    /// The step with this code; `None` for an unknown code.
    pub fn from_code(code: u8) -> Option<Self> {
        use ChildStep::{Chdir, DeathSignal, Descriptors, Exec, Limits, Record, Session};
        let all = [
            Session,
            DeathSignal,
            Chdir,
            Descriptors,
            Record,
            Exec,
            Limits,
        ];
        all.into_iter().find(|step| *step as u8 == code)
    }
}

/// Length of a child's report: a [`ChildStep`], three zero bytes, an errno.
pub const REPORT_BYTES: usize = 8;

/// Strings as exec wants them: an array of pointers that ends in a null pointer.
pub struct CStrings {
    /// The array, alive as long as this is.
    pub(super) pointers: Vec<*const libc::c_char>,
    _owned: Vec<CString>,
}

impl CStrings {
    /// Takes the strings; the array points into them (their heap memory does not move).
    pub fn new(owned: Vec<CString>) -> Self {
        let ends = [ptr::null()];
        let pointers = owned.iter().map(|s| s.as_ptr()).chain(ends).collect();
        Self {
            pointers,
            _owned: owned,
        }
    }
}

/// What a child executes.
#[derive(Debug, Clone, Copy)]
pub enum Executable<'a> {
    /// The first of these paths that can be executed.
    Candidates(&'a [CString]),
    /// This path.
    Path(&'a CString),
    /// This open file.
    Descriptor {
        /// The file.
        fd: RawFd,
        /// Whether the program inherits it: the interpreter of a script opens it once more.
        stays_open: bool,
    },
}

/// Everything that a child needs, made before the fork.
pub struct Plan<'a> {
    /// What to execute.
    pub executable: Executable<'a>,
    /// Its arguments, with its name.
    pub argv: &'a CStrings,
    /// Its environment.
    pub env: &'a CStrings,
    /// Its working directory.
    pub cwd: &'a CStr,
    /// The same as an open directory, if it was judged.
    pub cwd_fd: Option<RawFd>,
    /// Its file mode creation mask.
    pub umask: u32,
    /// The control group in which it begins, open; `None`: that of the shim.
    pub cgroup: Option<RawFd>,
    /// Resource, soft limit, hard limit. The child lowers both to its present hard limit.
    pub limits: &'a [(u32, u64, u64)],
    /// Its nice value; `None`: that of the shim.
    pub nice: Option<i32>,
    /// Its descriptors 0, 1 and 2.
    pub stdio: [RawFd; 3],
    /// Where it reports a failure; close-on-exec, so that an end of file means success.
    pub report: RawFd,
    /// The file of its start record.
    pub segment: RawFd,
    /// Position of the start record in that file, bytes.
    pub start_at: u64,
    /// Offset of the job's output that the start record names.
    pub offset: u64,
}
