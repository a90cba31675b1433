//! Opens a database at a path of any length, although SQLite takes names of at most 512 bytes:
//! through a descriptor of its directory, `/proc/self/fd/N/cc-executor.db`.
//!
//! Names that SQLite takes are left as they are.
#![allow(unsafe_code)] // Only SQLite's C interface can replace its system calls.

use std::{
    ffi::CStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use libsqlite3_sys::{SQLITE_OK, sqlite3_vfs_find};

use crate::sys::long_path;

/// SQLite's 512 bytes, less what SQLite and this program append to the name.
const PATH_BYTES_MAX: usize = 500;

/// Keeps the directory of a long path open as long as a clone of this lives: SQLite uses the names
/// of its files until its last connection is closed.
#[derive(Debug, Clone)]
pub(crate) struct LongPath(Option<Arc<File>>);

impl LongPath {
    /// For `path` and the files beside it.
    ///
    /// # Errors
    ///
    /// The directory of a long path cannot be opened, or SQLite has no system call table.
    pub(crate) fn to(path: &Path) -> io::Result<Self> {
        // SQLite follows links too, and checks the length of the result.
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if real.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self(None));
        }
        keep_links_unresolved()?;
        let directory = File::open(real.parent().unwrap_or(Path::new("/")))?;
        Ok(Self(Some(Arc::new(directory))))
    }

    /// The name by which SQLite opens `path`, which is in the directory of [`Self::to`].
    pub(crate) fn name(&self, path: &Path) -> PathBuf {
        match (&self.0, path.file_name()) {
            (Some(directory), Some(file)) => long_path::within(&**directory, file),
            _ => path.to_owned(),
        }
    }
}

/// SQLite resolves the links in a name, which would make the name long again. With `stat` in place
/// of its `lstat` it sees no links. This changes the whole process, whose only database this is.
fn keep_links_unresolved() -> io::Result<()> {
    static DONE: OnceLock<bool> = OnceLock::new();
    let done = *DONE.get_or_init(|| replace_system_call(c"lstat", c"stat"));
    done.then_some(()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::Unsupported,
            "this SQLite takes no path of more than 500 bytes; use a shorter one",
        )
    })
}

/// Makes SQLite use its system call `used` in place of `instead_of`. Both must take and return the
/// same. False where it has no such calls.
fn replace_system_call(instead_of: &CStr, used: &CStr) -> bool {
    // SAFETY: the default VFS is static; its functions are called as SQLite documents them, with
    // names that live as long as the calls. Both calls come from its own table.
    unsafe {
        let vfs = sqlite3_vfs_find(std::ptr::null());
        let Some(methods) = vfs.as_ref() else {
            return false;
        };
        let (Some(get), Some(set)) = (methods.xGetSystemCall, methods.xSetSystemCall) else {
            return false;
        };
        let call = get(vfs, used.as_ptr());
        call.is_some() && set(vfs, instead_of.as_ptr(), call) == SQLITE_OK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_path_is_left_as_it_is() {
        let root = tempfile::tempdir().expect("tempdir");
        let path = root.path().join("db");
        let long_path = LongPath::to(&path).expect("is short");
        assert_eq!(long_path.name(&path), path);
    }

    #[test]
    fn a_link_is_as_long_as_what_it_leads_to() {
        let root = tempfile::tempdir().expect("tempdir");
        let long = root.path().join(format!("{0}/{0}/{0}", "d".repeat(200)));
        fs::create_dir_all(&long).expect("made");
        fs::write(long.join("db"), "x").expect("written");
        let link = root.path().join("link");
        std::os::unix::fs::symlink(long.join("db"), &link).expect("linked");
        let long_path = LongPath::to(&link).expect("opens the directory");
        let name = long_path.name(&long.join("db"));
        assert!(name.as_os_str().len() < 40, "{}", name.display());
        assert_eq!(fs::read(name).expect("is there"), b"x");
    }
}
