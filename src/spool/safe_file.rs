//! Opens and creates the files of a spool by name: only regular files, never through a link,
//! without waiting, and a new file did not exist before.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Opens a file for reading.
///
/// # Errors
///
/// `Other` where the name is a link or anything but a regular file: that is no damage, and it may
/// be gone the next time.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match opened {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(no_file(path)),
        opened => opened?,
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(no_file(path)),
    }
}

/// Opens a directory for reading; fails on a link.
pub fn open_directory(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)
}

/// Opens a log (0600) to append to it, and creates it where it is missing; refuses links and other
/// files like [`open`], and a file with a second hard link.
pub fn open_log(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)?;
    let about = file.metadata()?;
    match about.is_file() && about.nlink() <= 1 {
        true => Ok(file),
        false => Err(no_file(path)),
    }
}

/// Creates a file (0600) for writing. An existing file of that name, such as one that a kill has
/// left, is unlinked first.
pub fn create_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn no_file(path: &Path) -> io::Error {
    io::Error::other(format!(
        "{} is not a regular file with a single name (hard link)",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_and_pipes_are_neither_followed_nor_waited_for_nor_written_to() {
        let spool = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| spool.path().join(name);
        fs::write(at("precious"), "precious").expect("written");
        assert!(open(&at("precious")).is_ok());
        symlink("precious", at("link")).expect("linked");
        fs::hard_link(at("precious"), at("second")).expect("linked");
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        for name in ["link", "pipe"] {
            let error = open(&at(name)).expect_err(name).kind();
            let damaged = [io::ErrorKind::InvalidData, io::ErrorKind::NotFound];
            assert!(!damaged.contains(&error), "{name}: {error}");
        }
        for name in ["link", "pipe", "second", "new"] {
            let mut file = create_anew(&at(name)).expect(name);
            file.write_all(b"x").expect("written");
        }
        assert_eq!(fs::read(at("precious")).expect("read"), b"precious");
        let missing = open(&at("missing")).expect_err("nothing there");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
