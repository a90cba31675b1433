//! What /proc tells about this process and about a server of the same user. Everything here is
//! optional: if /proc does not tell, the result is `None`, false or empty.

use std::{
    ffi::OsString,
    fs,
    io::Read,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    data_dir::{Access, OwnDir},
    spool::Layout,
    sys::proc,
};

/// Longest start file that is read, bytes; an environment has at most 2 MiB.
const START_BYTES_MAX: u64 = 16 << 20;

/// This process's file mode creation mask. umask(2) could only read it by changing it.
pub fn umask() -> Option<u32> {
    let text = proc::own_status().ok()?;
    u32::from_str_radix(proc::status_field(&text, "Umask")?, 8).ok()
}

/// Whether this process was started with `signal` ignored (`nohup`, a background job of a script).
pub fn ignores(signal: i32) -> bool {
    proc::own_status()
        .ok()
        .and_then(|text| u64::from_str_radix(proc::status_field(&text, "SigIgn")?, 16).ok())
        .is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// How a process was started.
#[derive(Debug, Clone)]
pub struct Launched {
    /// Its command line, the program's name first.
    pub argv: Vec<OsString>,
    /// Its environment at its start.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub cwd: PathBuf,
}

/// What a server records of its start. The server's process is not dumpable, so only root could
/// read this in /proc.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServerStart {
    /// Its process id.
    pub pid: i32,
    /// Its variables.
    env: Vec<(RecordedText, RecordedText)>,
    /// Its working directory; the root if it was removed before.
    cwd: RecordedText,
}

/// Text of the operating system in JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum RecordedText {
    Text(String),
    /// What is not UTF-8.
    Bytes {
        base64: String,
    },
}

impl RecordedText {
    fn of(text: OsString) -> Self {
        match text.into_string() {
            Ok(text) => Self::Text(text),
            Err(bytes) => Self::Bytes {
                base64: STANDARD.encode(bytes.as_bytes()),
            },
        }
    }

    fn read(self) -> Option<OsString> {
        match self {
            Self::Text(text) => Some(text.into()),
            Self::Bytes { base64 } => STANDARD.decode(base64).ok().map(OsString::from_vec),
        }
    }
}

impl ServerStart {
    /// The start of this process.
    pub fn of_this_process() -> Self {
        let recorded = |(name, value)| (RecordedText::of(name), RecordedText::of(value));
        let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Self {
            pid: std::process::id() as i32,
            env: std::env::vars_os().map(recorded).collect(),
            cwd: RecordedText::of(cwd.into_os_string()),
        }
    }

    fn read(layout: &Layout, pid: i32) -> Option<Self> {
        let dir = OwnDir::open(layout.root()).ok()??;
        let file = dir.open_file(Layout::START, Access::Read).ok()??;
        let mut text = Vec::new();
        file.take(START_BYTES_MAX).read_to_end(&mut text).ok()?;
        let start: Self = serde_json::from_slice(&text).ok()?;
        (start.pid == pid).then_some(start)
    }
}

/// The command line of the process `pid`.
pub fn argv(pid: i32) -> std::io::Result<Vec<OsString>> {
    Ok(words(&proc::command_line(pid)?))
}

/// How the server `pid` of a data directory was started. If that is unknown, or it is another
/// user's process, the result has our environment and `/`.
pub fn launched(layout: &Layout, pid: i32) -> std::io::Result<Launched> {
    let argv = match is_of_our_user(pid) {
        true => argv(pid)?,
        false => Vec::new(),
    };
    let ours = (std::env::vars_os().collect(), PathBuf::from("/"));
    let (env, cwd) = match ServerStart::read(layout, pid) {
        _ if !is_of_our_user(pid) => ours,
        Some(start) => {
            let variable =
                |(name, value): (RecordedText, RecordedText)| Some((name.read()?, value.read()?));
            let env = start.env.into_iter().filter_map(variable).collect();
            let cwd = start.cwd.read().map_or(ours.1, PathBuf::from);
            (env, cwd)
        }
        None => from_proc(pid).unwrap_or(ours),
    };
    Ok(Launched { argv, env, cwd })
}

/// Environment and directory from /proc, which a server of an earlier version leaves readable.
fn from_proc(pid: i32) -> Option<(Vec<(OsString, OsString)>, PathBuf)> {
    let env = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    Some((words(&env).into_iter().filter_map(variable).collect(), cwd))
}

/// Whether all four user ids of a process are ours. Of a set-user-ID program another user may have
/// chosen the words and variables.
pub fn is_of_our_user(pid: i32) -> bool {
    let status = proc::status(pid).unwrap_or_default();
    let us = nix::unistd::geteuid().to_string();
    // Real, effective, saved and file system user id (proc_pid_status(5)).
    let uids = proc::status_field(&status, "Uid").unwrap_or_default();
    !uids.is_empty() && uids.split_ascii_whitespace().all(|uid| uid == us)
}

/// Whether the process `pid` is the server of a container whose PID 1 is its parent: that one was
/// started with the same words, `argv`, and ends when the server exits.
pub fn is_container_main(pid: i32, argv: &[OsString]) -> bool {
    let status = proc::status(pid).unwrap_or_default();
    let parent = proc::status_field(&status, "PPid").and_then(|parent| parent.parse().ok());
    let parent = parent.and_then(|parent| self::argv(parent).ok());
    parent.is_some_and(|parent| parent == argv)
}

/// The strings of a file in which each one ends in a NUL.
fn words(bytes: &[u8]) -> Vec<OsString> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes
        .split(|byte| *byte == 0)
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

fn variable(word: OsString) -> Option<(OsString, OsString)> {
    let bytes = word.into_vec();
    let at = bytes.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (bytes[..at].to_vec(), bytes[at + 1..].to_vec());
    (!name.is_empty()).then(|| (OsString::from_vec(name), OsString::from_vec(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_empty_ones_and_drop_the_last_nul() {
        assert_eq!(words(b"a\0\0b\0"), ["a", "", "b"]);
        assert_eq!(words(b""), Vec::<OsString>::new());
    }

    #[test]
    fn what_is_not_utf_8_is_recorded_too() {
        for bytes in [&b"plain"[..], b"\xff/x", b""] {
            let text = OsString::from_vec(bytes.to_vec());
            let recorded = serde_json::to_string(&RecordedText::of(text.clone())).expect("JSON");
            let read: RecordedText = serde_json::from_str(&recorded).expect("read");
            assert_eq!(read.read(), Some(text));
        }
        let recorded = serde_json::to_string(&RecordedText::of("a".into())).expect("JSON");
        assert_eq!(recorded, "\"a\"", "as earlier versions wrote it");
    }

    #[test]
    fn this_process_has_a_mask_and_a_command_line() {
        assert!(umask().expect("a Linux kernel") <= 0o777);
        let nowhere = Layout::new("/no/such/place");
        let own = launched(&nowhere, std::process::id() as i32).expect("our own process");
        assert_eq!(own.argv[0], std::env::args_os().next().expect("a name"));
        assert!(own.cwd.is_absolute());
    }
}
