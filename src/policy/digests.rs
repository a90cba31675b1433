//! Digests of programs' files: each is computed once, with a bound, and remembered as long as the file is the
//! same.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::fs::OFlags;

use crate::sys::{clock, file_digest, lock};

/// The largest file whose digest is computed, bytes.
pub const DIGEST_BYTES_MAX: u64 = 512 << 20;
/// How many digests are remembered.
const REMEMBERED_MAX: usize = 1024;
/// A file that changed less than this ago may change again without another time: its digest is not
/// remembered.
const RECENT_WITHIN: Duration = Duration::from_secs(2);

/// What is known of the digest of a program's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileDigest {
    /// It was not computed.
    NotYet,
    /// SHA-256, in hexadecimal.
    Is(String),
    /// It cannot be known, and why: the end of a sentence about the file.
    Unknown(String),
}

/// The state of a file: while it is the same, so is the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FileState {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Whether a further change might leave it as it is.
    fn is_recent(&self) -> bool {
        let now = clock::now().0.div_euclid(1_000_000);
        let within = i64::try_from(RECENT_WITHIN.as_secs()).unwrap_or(i64::MAX);
        self.changed.0.saturating_add(within) >= now
    }
}

/// Digests of files as they were.
#[derive(Debug, Default)]
pub struct KnownDigests(Mutex<HashMap<FileState, FileDigest>>);

impl KnownDigests {
    fn get(&self, state: &FileState) -> Option<FileDigest> {
        lock(&self.0).get(state).cloned()
    }

    fn insert(&self, state: FileState, digest: FileDigest) {
        let mut known = lock(&self.0);
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(state, digest);
    }
}

/// A file whose digest is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedDigest {
    /// Its path.
    pub path: PathBuf,
    /// Its length, bytes.
    pub bytes: u64,
}

/// The digests for the judgements of one request: those that are known, and the files whose digests these
/// judgements want.
#[derive(Debug, Default)]
pub struct RequestDigests {
    known: KnownDigests,
    wanted: Mutex<Vec<WantedDigest>>,
    /// Whether nothing more is computed.
    is_over: AtomicBool,
}

impl RequestDigests {
    /// The digest of this file, if it is known; else it is wanted from now on.
    pub fn digest(&self, path: &Path, remembered: &KnownDigests) -> FileDigest {
        let state = match fs::metadata(path) {
            Ok(found) => FileState::of(&found),
            Err(error) => return unreadable(&error),
        };
        if state.bytes > DIGEST_BYTES_MAX {
            return too_large(state.bytes);
        }
        if let Some(known) = self.known.get(&state).or_else(|| remembered.get(&state)) {
            return known;
        }
        if self.is_over.load(Ordering::SeqCst) {
            return FileDigest::Unknown("changes while it is read".to_owned());
        }
        let mut wanted = lock(&self.wanted);
        if !wanted.iter().any(|known| known.path == path) {
            wanted.push(WantedDigest {
                path: path.to_owned(),
                bytes: state.bytes,
            });
        }
        FileDigest::NotYet
    }

    /// The files whose digests are wanted; none of them is wanted any more.
    pub fn take_wanted(&self) -> Vec<WantedDigest> {
        std::mem::take(&mut lock(&self.wanted))
    }

    /// From now on a digest that is not known cannot be known.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Computes a digest, until `stop` is set, and remembers it. One that another request has computed
    /// meanwhile is not computed again.
    pub fn compute(&self, path: &Path, remembered: &KnownDigests, stop: &AtomicBool) {
        let computed = open(path).and_then(|(file, before)| {
            if let Some(digest) = remembered.get(&before) {
                return Ok((before, digest, false));
            }
            let is_recent = before.is_recent();
            let digest = read(&file, stop)?;
            let is_same = FileState::of(&file.metadata()?) == before;
            Ok((before, digest, is_same && !is_recent))
        });
        match computed {
            Ok((state, digest, is_lasting)) => {
                if is_lasting {
                    remembered.insert(state, digest.clone());
                }
                self.known.insert(state, digest);
            }
            Err(error) => {
                if let Ok(found) = fs::metadata(path) {
                    self.known.insert(FileState::of(&found), unreadable(&error));
                }
            }
        }
    }
}

/// The digest of a file, computed now.
pub fn digest_now(path: &Path) -> FileDigest {
    let computed = open(path).and_then(|(file, _)| read(&file, &AtomicBool::new(false)));
    computed.unwrap_or_else(|error| unreadable(&error))
}

fn open(path: &Path) -> io::Result<(File, FileState)> {
    let mut options = fs::OpenOptions::new();
    // A FIFO that was put there meanwhile must not be waited for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = options.read(true).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    match found.is_file() {
        true => Ok((file, FileState::of(&found))),
        false => Err(io::Error::other("it is no regular file")),
    }
}

fn read(file: &File, stop: &AtomicBool) -> io::Result<FileDigest> {
    let mut bounded = Bounded {
        file,
        bytes: 0,
        stop,
    };
    let digest = file_digest::sha256_hex(&mut bounded)?;
    Ok(match bounded.bytes > DIGEST_BYTES_MAX {
        true => too_large(bounded.bytes),
        false => FileDigest::Is(digest),
    })
}

fn unreadable(error: &io::Error) -> FileDigest {
    FileDigest::Unknown(format!("cannot be read: {error}"))
}

fn too_large(bytes: u64) -> FileDigest {
    FileDigest::Unknown(format!(
        "has {bytes} bytes, and only files of up to {DIGEST_BYTES_MAX} are read for a rule with sha256; name the \
         program without sha256, or make it smaller"
    ))
}

/// A file that ends after the bound.
struct Bounded<'a> {
    file: &'a File,
    bytes: u64,
    stop: &'a AtomicBool,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::SeqCst) {
            return Err(io::Error::other("it is not waited for any more"));
        }
        if self.bytes > DIGEST_BYTES_MAX {
            return Ok(0);
        }
        let length = self.file.read(buffer)?;
        self.bytes += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn wanted(request: &RequestDigests, path: &Path, remembered: &KnownDigests) -> FileDigest {
        assert_eq!(request.digest(path, remembered), FileDigest::NotYet);
        let wanted = request.take_wanted();
        let paths: Vec<&Path> = wanted.iter().map(|one| one.path.as_path()).collect();
        assert_eq!(paths, [path]);
        request.compute(path, remembered, &AtomicBool::new(false));
        request.digest(path, remembered)
    }

    #[test]
    fn a_digest_is_known_until_the_file_changes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        fs::write(&path, "abc").expect("written");
        let (request, remembered) = (RequestDigests::default(), KnownDigests::default());
        assert_eq!(
            wanted(&request, &path, &remembered),
            FileDigest::Is(ABC.to_owned())
        );
        // It has just changed: the next request reads it again.
        assert_eq!(
            RequestDigests::default().digest(&path, &remembered),
            FileDigest::NotYet
        );
        fs::write(&path, "abcd").expect("written");
        let changed = wanted(&request, &path, &remembered);
        assert!(matches!(changed, FileDigest::Is(digest) if digest != ABC));
        request.end();
        fs::write(&path, "abcde").expect("written");
        assert!(matches!(
            request.digest(&path, &remembered),
            FileDigest::Unknown(_)
        ));
    }

    #[test]
    fn the_digest_of_an_old_file_is_remembered() {
        let path = Path::new("/bin/sh");
        let (request, remembered) = (RequestDigests::default(), KnownDigests::default());
        let first = wanted(&request, path, &remembered);
        assert_eq!(RequestDigests::default().digest(path, &remembered), first);
    }

    #[test]
    fn what_is_too_large_or_no_file_has_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("large");
        let large = File::create(&path).expect("made");
        large.set_len(DIGEST_BYTES_MAX + 1).expect("a length");
        let (request, remembered) = (RequestDigests::default(), KnownDigests::default());
        assert!(matches!(
            request.digest(&path, &remembered),
            FileDigest::Unknown(why) if why.contains("bytes")
        ));
        assert!(request.take_wanted().is_empty());
        for path in [directory.path(), &directory.path().join("nothing")] {
            assert!(matches!(digest_now(path), FileDigest::Unknown(_)));
        }
        // One that is not waited for is not read.
        let path = Path::new("/bin/sh");
        request.compute(path, &remembered, &AtomicBool::new(true));
        assert!(matches!(
            request.digest(path, &remembered),
            FileDigest::Unknown(_)
        ));
    }
}
