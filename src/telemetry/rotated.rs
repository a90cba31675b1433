//! A log file that is replaced when it is full; one old file is kept, as `NAME.1`.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::data_dir::{Access, OwnDir};

/// An open log file with its size.
#[derive(Debug)]
pub struct RotatedFile {
    target: LogTarget,
    file: File,
    /// Bytes in the file; counted from 0 again after a failed attempt to begin a new one.
    bytes: u64,
    bytes_max: u64,
}

/// Where the file is.
#[derive(Debug)]
enum LogTarget {
    /// A name in the data directory: links there are refused.
    Own(OwnDir, String),
    /// A path from the settings; links are followed.
    Elsewhere(PathBuf),
}

impl RotatedFile {
    /// Opens the file for appending, or creates it with mode 0600.
    pub fn open(path: &Path, bytes_max: u64, data_dir: &OwnDir) -> io::Result<Self> {
        let target = match data_dir.name_of(path) {
            Some(name) => LogTarget::Own(data_dir.clone(), name.to_owned()),
            None => LogTarget::Elsewhere(path.to_owned()),
        };
        let file = target.open()?;
        Ok(Self {
            target,
            bytes: file.metadata()?.len(),
            file,
            bytes_max,
        })
    }

    /// Appends a line; first begins a new file if the line does not fit.
    pub fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bytes_max {
            // If no new file can be begun, the old one goes on: the lines are worth more than the bound.
            // The next attempt comes after as many bytes again.
            self.bytes = 0;
            if let Ok(file) = self.begin_new_file() {
                self.file = file;
            }
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn begin_new_file(&self) -> io::Result<File> {
        // A device or a pipe has no size, and must keep its name.
        if !self.file.metadata()?.is_file() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.target.move_aside()?;
        self.target.open()
    }
}

impl LogTarget {
    fn open(&self) -> io::Result<File> {
        match self {
            Self::Own(dir, name) => Ok(dir.open_or_create_file(name, Access::Append)?),
            Self::Elsewhere(path) => OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(path),
        }
    }

    fn move_aside(&self) -> io::Result<()> {
        match self {
            Self::Own(dir, name) => dir.rename(name, &format!("{name}.1")),
            Self::Elsewhere(path) => {
                let mut old = path.clone().into_os_string();
                old.push(".1");
                std::fs::rename(path, old)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_full_file_makes_room_and_one_old_one_is_kept() {
        let data = tempfile::tempdir().expect("tempdir");
        let elsewhere = tempfile::tempdir().expect("tempdir");
        let own = OwnDir::make(data.path()).expect("ours");
        for dir in [data.path(), elsewhere.path()] {
            let path = dir.join("server.log");
            let mut file = RotatedFile::open(&path, 10, &own).expect("open");
            for line in ["one\n", "two\n", "three\n", "four\n", "five\n"] {
                file.write(line.as_bytes()).expect("written");
            }
            let read = |name: &str| fs::read_to_string(dir.join(name)).expect("read");
            assert_eq!(
                (read("server.log.1"), read("server.log")),
                ("three\n".into(), "four\nfive\n".into())
            );
            let mut again = RotatedFile::open(&path, 10, &own).expect("open");
            again.write(b"six\n").expect("written");
            assert_eq!(
                (read("server.log.1"), read("server.log")),
                ("four\nfive\n".into(), "six\n".into())
            );
        }
    }

    #[test]
    fn a_link_in_the_place_of_an_old_log_is_replaced_and_one_in_that_of_the_log_is_refused() {
        let data = tempfile::tempdir().expect("tempdir");
        let own = OwnDir::make(data.path()).expect("ours");
        let at = |name: &str| data.path().join(name);
        fs::write(at("precious"), "precious").expect("written");
        symlink("precious", at("log.1")).expect("linked");
        let mut file = RotatedFile::open(&at("log"), 10, &own).expect("open");
        for _ in 0..3 {
            file.write(b"a line\n").expect("written");
        }
        assert!(at("log.1").symlink_metadata().expect("there").is_file());
        symlink("precious", at("other")).expect("linked");
        assert!(RotatedFile::open(&at("other"), 10, &own).is_err());
        assert_eq!(fs::read(at("precious")).expect("read"), b"precious");
    }

    #[test]
    fn a_log_that_cannot_be_moved_aside_goes_on() {
        let data = tempfile::tempdir().expect("tempdir");
        let own = OwnDir::make(data.path()).expect("ours");
        fs::create_dir(data.path().join("log.1")).expect("in its way");
        let path = data.path().join("log");
        let mut file = RotatedFile::open(&path, 10, &own).expect("open");
        for _ in 0..5 {
            file.write(b"line\n").expect("written");
        }
        assert_eq!(fs::read(&path).expect("read").len(), 25);
    }

    #[test]
    fn a_device_keeps_its_name() {
        let data = tempfile::tempdir().expect("tempdir");
        let own = OwnDir::make(data.path()).expect("ours");
        let mut file = RotatedFile::open(Path::new("/dev/null"), 10, &own).expect("open");
        for _ in 0..5 {
            file.write(b"a line\n").expect("taken");
        }
        assert!(!Path::new("/dev/null.1").exists());
    }
}
