//! Finds the processes of this data directory's shims by their command lines: the second proof of
//! life, for a shim whose lock file was removed. `probe` looks at the lock first.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{sync::Mutex, time::Instant};

use super::looked::Looked;
use crate::sys::{proc, threads::blocking};

/// The result of one look at `/proc`: the ids of the shims that live, or why it failed.
type ShimScan = Result<BTreeSet<String>, String>;

/// Looks for shims. Calls at the same time share one look. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ShimSearch(Arc<SearchInner>);

#[derive(Debug)]
struct SearchInner {
    data_dir: PathBuf,
    last: Mutex<Option<(Instant, Arc<ShimScan>)>>,
}

impl ShimSearch {
    /// A search for the shims of a data directory, by its absolute path.
    pub fn new(data_dir: PathBuf) -> Self {
        Self(Arc::new(SearchInner {
            data_dir,
            last: Mutex::default(),
        }))
    }

    /// Whether a process of this shim lives.
    pub async fn look(&self, shim: &str) -> Looked {
        match &*self.found().await {
            Ok(ids) if ids.contains(shim) => Looked::There(()),
            Ok(_) => Looked::Gone,
            Err(why) => Looked::Unknown(why.clone()),
        }
    }

    /// The result of a look that began after this call.
    async fn found(&self) -> Arc<ShimScan> {
        let asked = Instant::now();
        let mut last = self.0.last.lock().await;
        if let Some((begun, found)) = &*last
            && *begun >= asked
        {
            return Arc::clone(found);
        }
        let begun = Instant::now();
        let data_dir = self.0.data_dir.clone();
        let found = blocking(move || shims_of(&data_dir)).await;
        let found = Arc::new(found.map_err(|error| format!("/proc cannot be read: {error}")));
        *last = Some((begun, Arc::clone(&found)));
        found
    }
}

/// The ids of all shims of a data directory that live. Blocking.
fn shims_of(data_dir: &Path) -> io::Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for pid in proc::ids()? {
        if let Looked::There(words) = command_line(pid)?
            && let Some((dir, id)) = shim_words(&words)
            && is_same(dir, data_dir)?
        {
            ids.insert(id.to_owned());
        }
    }
    Ok(ids)
}

/// The command line of a process, or `Gone`. A process of another user counts as gone if its
/// command line is hidden (proc(5), `hidepid`): shims are processes of our own user.
fn command_line(pid: i32) -> io::Result<Looked<Vec<u8>>> {
    match proc::command_line(pid) {
        Ok(words) => Ok(Looked::There(words)),
        Err(error) if proc::is_gone(&error) => Ok(Looked::Gone),
        Err(error) => match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) if is_of_another_user(pid) => Ok(Looked::Gone),
            _ => Err(error),
        },
    }
}

fn is_of_another_user(pid: i32) -> bool {
    let me = nix::unistd::geteuid().as_raw();
    fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() != me)
}

/// Data directory and id, if this is the command line of a shim.
fn shim_words(words: &[u8]) -> Option<(&Path, &str)> {
    let mut words = words.split(|byte| *byte == 0).skip(1);
    let mut is = |word: &str| words.next() == Some(word.as_bytes());
    if !(is("shim") && is("--data-dir")) {
        return None;
    }
    let dir = words.next()?;
    if words.next()? != b"--id" {
        return None;
    }
    let id = std::str::from_utf8(words.next()?).ok()?;
    Some((Path::new(std::ffi::OsStr::from_bytes(dir)), id))
}

/// Whether two paths lead to the same directory, by device and inode.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    if one == other {
        return Ok(true);
    }
    let other = fs::metadata(other)?;
    match fs::metadata(one) {
        Ok(one) => Ok((one.dev(), one.ino()) == (other.dev(), other.ino())),
        // Another data directory, which was removed or belongs to another user.
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::PermissionDenied => Ok(false),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_known_by_its_words_and_nobody_else_is() {
        let words = b"/proc/self/exe\0shim\0--data-dir\0/d a\0--id\0x1\0";
        assert_eq!(shim_words(words), Some((Path::new("/d a"), "x1")));
        for others in [
            &b"strace\0cc-executor\0shim\0--data-dir\0/d\0--id\0x1\0"[..],
            b"cc-executor\0serve\0--data-dir\0/d\0",
            b"",
        ] {
            assert_eq!(shim_words(others), None);
        }
    }
}
