//! What a job inherits from the shell that called `run` or `submit`: directory, umask, environment,
//! nice value and resource limits.

use std::{ffi::OsString, fs, os::unix::fs::MetadataExt, path::PathBuf};

use anyhow::Context;

use rustix::process::{Resource, Rlimit, getpriority_process, getrlimit};

use crate::{
    cli::{connect::proc, render::print},
    job::{Limits, ResourceBound},
};

/// Prefix of our own variables, which are not sent to a job.
const OWN_PREFIX: &str = "CC_EXECUTOR_";

/// What a job inherits from a shell.
#[derive(Debug, Clone, Default)]
pub struct ShellCaller {
    /// Its working directory, with `$PWD`'s symbolic links; `None` if it was removed.
    pub cwd: Option<PathBuf>,
    /// Its file mode creation mask; `None` if /proc does not tell.
    pub umask: Option<u32>,
    /// Its variables without our own and without those that are not UTF-8.
    pub env: Vec<(String, String)>,
    /// Its nice value and resource limits.
    pub limits: Limits,
}

impl ShellCaller {
    /// The shell that called this process. Variables that are not UTF-8 cannot be sent: a line on
    /// the terminal names them.
    pub fn of_this_process() -> Self {
        let (env, skipped) = sendable(std::env::vars_os());
        if !skipped.is_empty() {
            print::line_on_terminal(&format!(
                "not sent, because they are not valid UTF-8: {}",
                skipped.join(", ")
            ));
        }
        Self {
            cwd: working_directory().ok(),
            umask: proc::umask(),
            env,
            limits: limits(),
        }
    }

    /// The working directory, or an error that says what to do.
    pub fn directory(&self) -> anyhow::Result<&PathBuf> {
        self.cwd
            .as_ref()
            .context("the working directory is gone; give another one with --cwd")
    }
}

/// The nice value and the limits of this process, inherited from the shell; unlimited ones are left
/// out.
fn limits() -> Limits {
    let bound = |resource| {
        let Rlimit { current, maximum } = getrlimit(resource);
        current.map(|soft| ResourceBound::new(soft, maximum))
    };
    Limits {
        memory_bytes: bound(Resource::As),
        cpu_s: bound(Resource::Cpu),
        processes: bound(Resource::Nproc),
        open_files: bound(Resource::Nofile),
        file_bytes: bound(Resource::Fsize),
        core_bytes: core(),
        nice: getpriority_process(None).ok().filter(|nice| *nice != 0),
    }
}

/// The limit of core dumps; `None` if it is soft 0 and hard unlimited, which is a server's own.
fn core() -> Option<ResourceBound> {
    let Rlimit { current, maximum } = getrlimit(Resource::Core);
    let soft = current.unwrap_or(i64::MAX as u64);
    (soft > 0 || maximum.is_some()).then(|| ResourceBound::new(soft, maximum))
}

/// `$PWD` if it is the same directory (it keeps the symbolic links of the user's path), else the
/// path from the kernel.
pub fn working_directory() -> std::io::Result<PathBuf> {
    let real = std::env::current_dir()?;
    let same = |logical: &PathBuf| {
        let (a, b) = (fs::metadata(logical).ok()?, fs::metadata(".").ok()?);
        Some((a.dev(), a.ino()) == (b.dev(), b.ino()))
    };
    let logical = std::env::var_os("PWD").map(PathBuf::from);
    Ok(logical
        .filter(|path| path.is_absolute() && same(path) == Some(true))
        .unwrap_or(real))
}

/// The variables that can be sent, and the names of those that cannot.
fn sendable(
    vars: impl Iterator<Item = (OsString, OsString)>,
) -> (Vec<(String, String)>, Vec<String>) {
    let mut sent = Vec::new();
    let mut skipped = Vec::new();
    for (name, value) in vars {
        match (name.into_string(), value.into_string()) {
            (Ok(name), _)
                if name.starts_with(OWN_PREFIX) || name.is_empty() || name.contains('=') => {}
            (Ok(name), Ok(value)) => sent.push((name, value)),
            (Ok(name), Err(_)) => skipped.push(name),
            (Err(name), _) => skipped.push(name.to_string_lossy().into_owned()),
        }
    }
    (sent, skipped)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn our_own_and_unsendable_variables_stay_here() {
        let broken = OsString::from_vec(vec![0xff]);
        let vars: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), "/bin".into()),
            ("CC_EXECUTOR_TOKEN".into(), "hush".into()),
            ("LATIN".into(), broken.clone()),
            (broken, "x".into()),
            ("BASH_FUNC_f%%".into(), "() { :; }".into()),
        ];
        let (sent, skipped) = sendable(vars.into_iter());
        let names: Vec<_> = sent.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["PATH", "BASH_FUNC_f%%"]);
        assert_eq!(skipped, ["LATIN", "\u{fffd}"]);
    }

    #[test]
    fn the_working_directory_is_absolute_and_ours() {
        let here = working_directory().expect("a directory");
        let (a, b) = (fs::canonicalize(here), fs::canonicalize("."));
        assert_eq!(a.expect("exists"), b.expect("exists"));
    }
}
