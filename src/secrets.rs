//! Where the values of secrets come from: files of a directory that the operator names, and the credentials
//! of a systemd service. Every value is read anew when an attempt needs it, and nothing is kept.
//!
//! Reasons are in docs/design/secrets.md.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::PathBuf,
};

use nix::errno::Errno;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use zeroize::Zeroizing;

use crate::job::{
    EnvValue, SecretName, SecretText, SecretVariable, SpawnError, secret::references,
};

/// The variable that names the credentials of a systemd service (systemd.exec(5)).
pub const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// The most bytes of all secrets of one job together: its shim searches the output for all of them.
const JOB_BYTES_MAX: usize = 64 << 10;

/// The shortest value that is masked, bytes. A shorter one would be found everywhere, and its masks would show it.
pub const MASKED_BYTES_MIN: usize = 4;

/// How often a name is looked up again that was renamed meanwhile.
const LOOKUPS_MAX: u32 = 8;

/// Mode bits of a directory: group and others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretSourceKind {
    /// The setting `secrets_dir`.
    Directory,
    /// The credentials of a systemd service.
    Credentials,
}

impl SecretSourceKind {
    /// Its name in `server.info`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Directory => "secrets_dir",
            Self::Credentials => "credentials",
        }
    }

    /// The mode bits that a file must not have. Where systemd gives a credential to a user by an access
    /// control list, the list's mask is shown as the group's bits (acl(5)).
    fn forbidden_mode(self) -> u32 {
        match self {
            Self::Directory => 0o077,
            Self::Credentials => 0o037,
        }
    }
}

/// Why there is no value. Messages have no value in them.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No source has it.
    #[error("there is no secret {name}: put it into {places}", places = places.join(" or "))]
    Missing {
        /// The secret.
        name: SecretName,
        /// The files that would be read.
        places: Vec<String>,
    },
    /// A file or directory must not be used.
    #[error("the secret {name} is not used: {} {why}", path.display())]
    Unsafe {
        /// The secret.
        name: SecretName,
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// The content is no value.
    #[error("the secret {name} {why}")]
    Unfit {
        /// The secret.
        name: SecretName,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// The system refuses it.
    #[error("the secret {name} cannot be read: {}: {source}", path.display())]
    Io {
        /// The secret.
        name: SecretName,
        /// The file or directory.
        path: PathBuf,
        /// What the system reports.
        source: io::Error,
    },
}

impl SecretError {
    /// The end of an attempt that cannot start without it.
    pub fn as_spawn_error(&self) -> SpawnError {
        let errno = match self {
            Self::Missing { .. } => Errno::ENOKEY,
            Self::Unsafe { .. } => Errno::EACCES,
            Self::Unfit { .. } => Errno::EINVAL,
            Self::Io { source, .. } => source.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
        };
        SpawnError {
            errno: errno as i32,
            name: format!("{errno:?}"),
            what: format!("start, because {self}"),
        }
    }
}

/// The directory of the setting `secrets_dir` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("secrets_dir: {} {why}", path.display())]
pub struct SecretsDirError {
    path: PathBuf,
    why: String,
}

/// Where a server is told to find secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretSettings {
    /// The setting `secrets_dir`.
    pub directory: Option<PathBuf>,
    /// The credentials of the service that the server is.
    pub credentials: Option<PathBuf>,
    /// The longest value, bytes.
    pub bytes_max: u64,
}

/// A directory of secrets.
#[derive(Debug, Clone)]
struct SecretSource {
    kind: SecretSourceKind,
    path: PathBuf,
}

/// Where the values of secrets come from, in the order in which a name is looked for.
#[derive(Debug, Clone, Default)]
pub struct SecretSources {
    sources: Vec<SecretSource>,
    /// The longest value, bytes.
    bytes_max: usize,
}

impl SecretSources {
    /// These sources. The first one is checked, because a mistake in a setting should be seen at the start.
    ///
    /// # Errors
    ///
    /// `secrets_dir` is no directory, or other users can write into it.
    pub fn new(settings: &SecretSettings) -> Result<Self, SecretsDirError> {
        let directory = settings.directory.as_deref();
        let directory = directory.map(|path| SecretSource {
            kind: SecretSourceKind::Directory,
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        });
        if let Some(source) = &directory {
            let opened = source.open();
            opened.map(drop).map_err(|why| SecretsDirError {
                path: source.path.clone(),
                why: why.to_string(),
            })?;
        }
        let credentials = settings.credentials.iter();
        let credentials = credentials.filter(|path| path.is_absolute());
        let credentials = credentials.map(|path| SecretSource {
            kind: SecretSourceKind::Credentials,
            path: path.clone(),
        });
        Ok(Self {
            sources: directory.into_iter().chain(credentials).collect(),
            bytes_max: usize::try_from(settings.bytes_max).unwrap_or(usize::MAX),
        })
    }

    /// The kinds of sources that there are.
    pub fn kinds(&self) -> impl Iterator<Item = SecretSourceKind> + use<'_> {
        self.sources.iter().map(|source| source.kind)
    }

    /// Whether there is no source, so that no job can refer to a secret.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The variables of an environment that are secrets, with their values. `masked`: a value must be long
    /// enough to be masked.
    ///
    /// # Errors
    ///
    /// A value is missing, must not be used, or is none.
    pub fn resolve(
        &self,
        env: &BTreeMap<String, EnvValue>,
        masked: bool,
    ) -> Result<Vec<SecretVariable>, SecretError> {
        let mut bytes = 0;
        let resolved = references(env).map(|(variable, name)| {
            let value = self.value(name)?;
            bytes += value.expose().len();
            let unfit = |why| {
                let name = name.clone();
                Err(SecretError::Unfit { name, why })
            };
            if bytes > JOB_BYTES_MAX {
                return unfit(format!(
                    "makes the secrets of this job longer than {JOB_BYTES_MAX} bytes together"
                ));
            }
            if masked && value.expose().len() < MASKED_BYTES_MIN {
                return unfit(format!(
                    "has less than {MASKED_BYTES_MIN} bytes, too few to be masked in the output; make it longer, or \
                     submit the job with output.redact = false (--no-redact)"
                ));
            }
            Ok(SecretVariable {
                name: variable.clone(),
                value,
            })
        });
        resolved.collect()
    }

    /// The value of a secret, from the first source that has it.
    fn value(&self, name: &SecretName) -> Result<SecretText, SecretError> {
        for source in &self.sources {
            let bytes = source.read(name, self.bytes_max);
            let bytes = bytes.map_err(|why| why.about(name, source))?;
            if let Some(bytes) = bytes {
                return as_text(bytes, self.bytes_max).map_err(|why| SecretError::Unfit {
                    name: name.clone(),
                    why,
                });
            }
        }
        let places = self.sources.iter();
        let places = places.map(|source| source.path.join(name.as_str()).display().to_string());
        Err(SecretError::Missing {
            name: name.clone(),
            places: match self.sources.is_empty() {
                true => vec!["a directory of secrets (serve --secrets-dir DIR)".to_owned()],
                false => places.collect(),
            },
        })
    }
}

/// Why a file or directory cannot be read.
enum Unreadable {
    /// A sentence about the file, or about the directory.
    File(String),
    Directory(String),
    Io(io::Error),
}

impl Unreadable {
    fn about(self, name: &SecretName, source: &SecretSource) -> SecretError {
        let (name, directory) = (name.clone(), source.path.clone());
        let file = directory.join(name.as_str());
        match self {
            Self::File(why) => SecretError::Unsafe {
                name,
                path: file,
                why,
            },
            Self::Directory(why) => SecretError::Unsafe {
                name,
                path: directory,
                why,
            },
            Self::Io(source) => SecretError::Io {
                name,
                path: file,
                source,
            },
        }
    }
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(why) | Self::Directory(why) => f.write_str(why),
            Self::Io(error) => write!(f, "cannot be opened: {error}"),
        }
    }
}

impl SecretSource {
    /// Opens the directory, if only its owner can change what is in it.
    fn open(&self) -> Result<OwnedFd, Unreadable> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, &self.path, flags, Mode::empty());
        let opened = opened.map_err(|errno| Unreadable::Io(errno.into()))?;
        let found = fstat(&opened).map_err(|errno| Unreadable::Io(errno.into()))?;
        check_owner(found.st_uid).map_err(Unreadable::Directory)?;
        match found.st_mode & WRITABLE_BY_OTHERS {
            0 => Ok(opened),
            _ => Err(Unreadable::Directory(format!(
                "can be written by other users (mode {:04o}): chmod go-w {}",
                found.st_mode & 0o7777,
                self.path.display()
            ))),
        }
    }

    /// The content of a secret's file; `None` where there is no such file.
    fn read(
        &self,
        name: &SecretName,
        bytes_max: usize,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Unreadable> {
        let directory = self.open()?;
        let file = match open_beneath(&directory, name.as_str()) {
            Ok(file) => File::from(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_link_error(&error) => {
                let why = "is a link that leads out of the directory; put the file itself there";
                return Err(Unreadable::File(why.to_owned()));
            }
            Err(error) => return Err(Unreadable::Io(error)),
        };
        self.check(&file, name)?;
        // With a line end, and one byte more, which shows that it is too long. No reallocation leaves a copy.
        let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max.saturating_add(3)));
        let mut bounded = file.take(bytes_max as u64 + 2);
        bounded.read_to_end(&mut bytes).map_err(Unreadable::Io)?;
        Ok(Some(bytes))
    }

    fn check(&self, file: &File, name: &SecretName) -> Result<(), Unreadable> {
        let found = file.metadata().map_err(Unreadable::Io)?;
        if !found.is_file() {
            let why = "is no regular file; put a file with the value there";
            return Err(Unreadable::File(why.to_owned()));
        }
        check_owner(found.uid()).map_err(Unreadable::File)?;
        match found.mode() & self.kind.forbidden_mode() {
            0 => Ok(()),
            _ => Err(Unreadable::File(format!(
                "can be read by other users (mode {:04o}): chmod 600 {}",
                found.mode() & 0o7777,
                self.path.join(name.as_str()).display()
            ))),
        }
    }
}

/// Whether this user may own secrets: root or the server's own user.
fn check_owner(uid: u32) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    match uid == 0 || uid == own {
        true => Ok(()),
        false => Err(format!(
            "belongs to the user {uid}; it must belong to root or to the server's user ({own})"
        )),
    }
}

/// Opens a file of a directory. A link may lead to another file below it, as where a service replaces all
/// secrets at once, and not out of it.
fn open_beneath(directory: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    // A FIFO must not block.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..LOOKUPS_MAX {
        match openat2(directory, name, flags, Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN) => {}
            // A kernel or sandbox without this call: no links at all.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
                let flags = flags | OFlags::NOFOLLOW;
                return Ok(openat(directory, name, flags, Mode::empty())?);
            }
            opened => return Ok(opened?),
        }
    }
    Err(rustix::io::Errno::AGAIN.into())
}

/// Whether an open failed because of a link.
fn is_link_error(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EXDEV | Errno::ELOOP))
}

/// The value that a file's content is: without the one line end that editors and `echo` add.
fn as_text(mut bytes: Zeroizing<Vec<u8>>, bytes_max: usize) -> Result<SecretText, String> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.len() > bytes_max {
        return Err(format!(
            "is longer than {bytes_max} bytes (secret_bytes_max)"
        ));
    }
    if bytes.is_empty() {
        return Err("is empty; write its value into its file".to_owned());
    }
    if bytes.contains(&0) {
        return Err("has a NUL byte, which no variable can have; encode it".to_owned());
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(SecretText::new(text.to_owned())),
        Err(_) => Err("is not UTF-8; encode it, for example with base64".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use std::path::Path;

    use tempfile::TempDir;

    use super::*;

    fn name(text: &str) -> SecretName {
        SecretName::read(text).expect("a name")
    }

    fn write(directory: &TempDir, name: &str, value: impl AsRef<[u8]>, mode: u32) {
        let path = directory.path().join(name);
        fs::write(&path, value).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }

    fn directory() -> TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(directory.path(), mode).expect("a mode");
        directory
    }

    fn sources(directory: &TempDir) -> SecretSources {
        SecretSources::new(&settings(Some(directory.path()), None)).expect("a source")
    }

    fn settings(directory: Option<&Path>, credentials: Option<&Path>) -> SecretSettings {
        SecretSettings {
            directory: directory.map(Path::to_owned),
            credentials: credentials.map(Path::to_owned),
            bytes_max: 16,
        }
    }

    fn value(sources: &SecretSources, secret: &str) -> Result<String, String> {
        let value = sources.value(&name(secret));
        value
            .map(|value| value.expose().to_owned())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_is_the_content_without_one_line_end() {
        let directory = directory();
        write(&directory, "plain", "s3cret", 0o600);
        write(&directory, "line", "s3cret\n", 0o400);
        write(&directory, "lines", "a\nb\n\n", 0o600);
        write(&directory, "longest", "0123456789abcdef\n", 0o600);
        let sources = sources(&directory);
        for (secret, expected) in [
            ("plain", "s3cret"),
            ("line", "s3cret"),
            ("lines", "a\nb\n"),
            ("longest", "0123456789abcdef"),
        ] {
            assert_eq!(value(&sources, secret).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_no_value_is_refused_with_what_to_do() {
        let directory = directory();
        write(&directory, "empty", "", 0o600);
        write(&directory, "line", "\n", 0o600);
        write(&directory, "nul", "a\0b", 0o600);
        write(&directory, "latin", b"\xe9\xe8", 0o600);
        write(&directory, "long", "0123456789abcdefg", 0o600);
        write(&directory, "group", "s3cret", 0o640);
        write(&directory, "others", "s3cret", 0o604);
        fs::create_dir(directory.path().join("directory")).expect("made");
        symlink("/etc/hostname", directory.path().join("out")).expect("a link");
        symlink("../x", directory.path().join("up")).expect("a link");
        let sources = sources(&directory);
        for (secret, expected) in [
            ("missing", "there is no secret missing: put it into"),
            ("empty", "is empty"),
            ("line", "is empty"),
            ("nul", "NUL"),
            ("latin", "UTF-8"),
            ("long", "secret_bytes_max"),
            ("group", "chmod 600"),
            ("others", "chmod 600"),
            ("directory", "no regular file"),
            ("out", "out of the directory"),
            ("up", "out of the directory"),
        ] {
            let refused = value(&sources, secret).expect_err(secret);
            assert!(refused.contains(expected), "{secret}: {refused}");
            assert!(!refused.contains("s3cret"), "{refused}");
        }
    }

    #[test]
    fn a_link_may_lead_to_another_file_of_the_directory() {
        let directory = directory();
        fs::create_dir(directory.path().join("..data")).expect("made");
        write(&directory, "..data/token", "s3cret", 0o600);
        symlink("..data/token", directory.path().join("token")).expect("a link");
        assert_eq!(
            value(&sources(&directory), "token").as_deref(),
            Ok("s3cret")
        );
    }

    #[test]
    fn the_directory_comes_before_the_credentials_and_says_why_it_is_not_used() {
        let (first, second) = (directory(), directory());
        write(&first, "both", "first", 0o600);
        write(&first, "open", "first", 0o644);
        write(&second, "both", "second", 0o440);
        write(&second, "open", "second", 0o400);
        write(&second, "own", "second", 0o440);
        write(&second, "wide", "second", 0o444);
        let sources = SecretSources::new(&settings(Some(first.path()), Some(second.path())));
        let sources = sources.expect("two sources");
        assert_eq!(value(&sources, "both").as_deref(), Ok("first"));
        assert_eq!(value(&sources, "own").as_deref(), Ok("second"));
        // What is wrong is not passed over in silence.
        assert!(value(&sources, "open").is_err());
        assert!(value(&sources, "wide").is_err());
        let kinds: Vec<_> = sources.kinds().map(SecretSourceKind::name).collect();
        assert_eq!(kinds, ["secrets_dir", "credentials"]);
    }

    #[test]
    fn a_directory_that_others_can_write_or_that_is_none_is_refused_at_the_start() {
        let directory = directory();
        let mode = fs::Permissions::from_mode(0o720);
        fs::set_permissions(directory.path(), mode).expect("a mode");
        let refused = SecretSources::new(&settings(Some(directory.path()), None));
        let refused = refused.expect_err("refused");
        assert!(refused.to_string().contains("chmod go-w"), "{refused}");
        let missing = directory.path().join("missing");
        assert!(SecretSources::new(&settings(Some(&missing), None)).is_err());
        let none =
            SecretSources::new(&settings(None, Some(Path::new("relative")))).expect("no source");
        assert!(none.is_empty());
    }

    #[test]
    fn only_references_are_resolved_and_a_short_value_is_refused_where_it_is_masked() {
        let directory = directory();
        write(&directory, "token", "s3cret", 0o600);
        write(&directory, "pin", "123", 0o600);
        let sources = sources(&directory);
        let env = |secret: &str| {
            BTreeMap::from([
                ("A".to_owned(), EnvValue::from("text")),
                ("B".to_owned(), EnvValue::Secret(name(secret))),
            ])
        };
        let resolved = sources.resolve(&env("token"), true).expect("a value");
        let value = SecretText::new("s3cret".to_owned());
        let name = "B".to_owned();
        assert_eq!(resolved, [SecretVariable { name, value }]);
        let refused = sources.resolve(&env("pin"), true).expect_err("too short");
        assert!(refused.to_string().contains("--no-redact"), "{refused}");
        assert!(sources.resolve(&env("pin"), false).is_ok());
        let missing = sources.resolve(&env("none"), true).expect_err("missing");
        let end = missing.as_spawn_error();
        assert_eq!(end.name, "ENOKEY");
        assert!(end.what.contains("there is no secret none"), "{}", end.what);
    }
}
