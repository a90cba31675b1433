//! The files of the private keys that sign checkpoints. A key that is replaced is overwritten and unlinked.

use std::io::{self, Read, Seek, Write};

use crate::{
    audit::{
        NoteSigner,
        chain::{hex, unhex},
    },
    data_dir::{Access, OwnDir},
    job::Micros,
    spool::Layout,
};

/// Name of a key's file while it is written.
const DRAFT: &str = "audit.key.new";
/// Longest file of a key that is read, bytes.
const BYTES_MAX: u64 = 1024;

/// A private key with the time at which it was made.
#[derive(Debug)]
pub struct DatedKey {
    pub signer: NoteSigner,
    pub made_at: Micros,
}

impl DatedKey {
    /// A new key with this name.
    pub fn generate(name: &str, made_at: Micros) -> io::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        let signer = NoteSigner::of_seed(name, seed);
        let signer = signer.ok_or_else(|| io::Error::other("the seed makes no key"))?;
        Ok(Self { signer, made_at })
    }

    fn text(&self) -> String {
        let name = &self.signer.key().name;
        format!("{name} {} {}\n", self.made_at.0, hex(self.signer.seed()))
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let (name, made_at, seed) = (words.next()?, words.next()?, words.next()?);
        Some(Self {
            signer: NoteSigner::of_seed(name, unhex(seed)?)?,
            made_at: Micros(made_at.parse().ok()?),
        })
    }
}

/// The key in a file; `None` where there is none, or where it was overwritten.
pub fn load(dir: &OwnDir, name: &str) -> io::Result<Option<DatedKey>> {
    let Some(file) = dir
        .open_file(name, Access::Read)
        .map_err(io::Error::other)?
    else {
        return Ok(None);
    };
    let mut text = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut text)?;
    Ok(std::str::from_utf8(&text).ok().and_then(DatedKey::read))
}

/// Stores a key beside the one in force, until the trail names it.
pub fn store_next(dir: &OwnDir, key: &DatedKey) -> io::Result<()> {
    let text = key.text();
    let stored = dir.replace_file(Layout::AUDIT_KEY_NEXT, DRAFT, text.as_bytes());
    stored.map_err(io::Error::other)
}

/// Puts the next key in the place of the one in force, which is overwritten first.
pub fn promote_next(dir: &OwnDir) -> io::Result<()> {
    overwrite(dir, Layout::AUDIT_KEY)?;
    dir.rename(Layout::AUDIT_KEY_NEXT, Layout::AUDIT_KEY)?;
    dir.file().sync_all()
}

/// Removes a next key that the trail does not name.
pub fn discard_next(dir: &OwnDir) -> io::Result<()> {
    overwrite(dir, Layout::AUDIT_KEY_NEXT)?;
    dir.remove(Layout::AUDIT_KEY_NEXT)
}

fn overwrite(dir: &OwnDir, name: &str) -> io::Result<()> {
    let Some(mut file) = dir
        .open_file(name, Access::Write)
        .map_err(io::Error::other)?
    else {
        return Ok(());
    };
    let length = usize::try_from(file.metadata()?.len().min(BYTES_MAX)).unwrap_or(0);
    file.rewind()?;
    file.write_all(&vec![b'0'; length])?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_follows_another_and_nothing_of_the_old_one_is_left() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = OwnDir::make(root.path()).expect("ours");
        let path = root.path().join(Layout::AUDIT_KEY);
        let [first, second] = [1, 2].map(|at| DatedKey::generate("x", Micros(at)).expect("a key"));
        store_next(&dir, &first).expect("stored");
        promote_next(&dir).expect("in force");
        let held = std::fs::File::open(&path).expect("open");
        store_next(&dir, &second).expect("stored");
        promote_next(&dir).expect("in force");
        let mut old = String::new();
        (&held).read_to_string(&mut old).expect("read");
        assert!(
            old.bytes().all(|byte| byte == b'0') && !old.is_empty(),
            "{old}"
        );
        let now = load(&dir, Layout::AUDIT_KEY).expect("read").expect("a key");
        assert_eq!(now.signer.key(), second.signer.key());
        assert_eq!(now.made_at, Micros(2));
        let mode = std::fs::metadata(&path)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(load(&dir, Layout::AUDIT_KEY_NEXT).expect("read").is_none());
    }
}
