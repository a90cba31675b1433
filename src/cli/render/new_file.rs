//! A file that a verb writes for its user: only the owner can read it, it is complete or not there
//! at all, and it is never written through a symbolic link that another user may have put there.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// How many names are tried for the draft; each contains our process id.
const NAMES_MAX: u32 = 100;

/// A file with the name of a draft until it is complete; the drop removes an unfinished one.
#[derive(Debug)]
pub struct NewFile {
    draft: PathBuf,
    path: PathBuf,
    replaces: bool,
}

/// Begins a file that will be `path`, mode 0600. With `replaces` it replaces a file or a link of
/// that name: the link itself, not its target.
///
/// # Errors
///
/// The name exists and `replaces` is false, or it is a directory, a device or a pipe.
pub fn begin(path: &Path, replaces: bool) -> anyhow::Result<(NewFile, File)> {
    let name = path.display();
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => bail!("{name} is a directory: give a file in it"),
        Ok(meta) if !meta.is_file() && !meta.is_symlink() => {
            bail!(
                "{name} is not a regular file: to write to a device or a pipe, use `> {name}` instead of -o"
            )
        }
        Ok(_) if !replaces => return Err(taken(path)),
        _ => {}
    }
    let (draft, file) = draft(path).with_context(|| format!("cannot write to {name}"))?;
    let path = path.to_owned();
    let new = NewFile {
        draft,
        path,
        replaces,
    };
    Ok((new, file))
}

impl NewFile {
    /// Renames the complete file to its name.
    ///
    /// # Errors
    ///
    /// The name exists by now and `replaces` is false, or the directory cannot be written.
    pub fn finish(self) -> anyhow::Result<()> {
        let named = match self.replaces {
            true => fs::rename(&self.draft, &self.path),
            false => name_anew(&self.draft, &self.path),
        };
        match named {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(taken(&self.path)),
            named => named.with_context(|| format!("cannot write to {}", self.path.display())),
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // After the rename there is no draft any more, and the error is ignored.
        let _ = fs::remove_file(&self.draft);
    }
}

fn taken(path: &Path) -> anyhow::Error {
    let name = path.display();
    anyhow::anyhow!("{name} exists already: give --force to replace it, or another name")
}

/// Renames unless the name exists. Some file systems cannot do that (EINVAL): there a hard link,
/// which fails if the name exists, is the new name, and the drop removes the draft.
fn name_anew(draft: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, draft, CWD, path, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::hard_link(draft, path),
        renamed => Ok(renamed?),
    }
}

/// A new file in the directory of `path`, so that a rename stays within one file system.
fn draft(path: &Path) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    for nth in 0..NAMES_MAX {
        // Not the whole name: with the additions it could become too long.
        let begin: String = name.to_string_lossy().chars().take(32).collect();
        let draft = path.with_file_name(format!(".{begin}.{}.{nth}", std::process::id()));
        match options.open(&draft) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return Ok((draft, opened?)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        os::unix::fs::{MetadataExt, symlink},
    };

    use super::*;

    fn write(path: &Path, replaces: bool, text: &str) -> anyhow::Result<()> {
        let (new, mut file) = begin(path, replaces)?;
        file.write_all(text.as_bytes())?;
        new.finish()
    }

    #[test]
    fn a_link_is_refused_or_replaced_and_never_followed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (victim, link) = (dir.path().join("victim"), dir.path().join("link"));
        fs::write(&victim, "precious").expect("written");
        symlink(&victim, &link).expect("a link");
        let error = write(&link, false, "x").expect_err("is there");
        assert!(error.to_string().contains("--force"), "{error}");
        write(&link, true, "new").expect("replaces the link");
        assert_eq!(fs::read_to_string(&victim).expect("read"), "precious");
        let meta = fs::symlink_metadata(&link).expect("a file");
        assert!(meta.is_file() && meta.mode() & 0o777 == 0o600, "{meta:?}");
        // A link that leads nowhere does not make a file elsewhere.
        let (nowhere, dangling) = (dir.path().join("nowhere"), dir.path().join("dangling"));
        symlink(&nowhere, &dangling).expect("a link");
        write(&dangling, false, "x").expect_err("is there");
        assert!(!nowhere.exists());
    }

    #[test]
    fn what_is_not_complete_leaves_nothing_and_what_is_there_stays() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("file");
        drop(begin(&path, false).expect("begun"));
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 0);
        let (new, _file) = begin(&path, false).expect("begun");
        fs::write(&path, "another's").expect("written");
        new.finish().expect_err("taken meanwhile");
        assert_eq!(fs::read_to_string(&path).expect("read"), "another's");
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1);
        begin(dir.path(), true).expect_err("a directory");
    }
}
