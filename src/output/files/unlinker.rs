//! Unlinks files of the spool, at once or, while a backup holds the spool, when the last hold ends.
//!
//! The caller decides which files are useless. Shims drop their own segments without this, and a hold
//! does not stop them.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::runtime::Handle;

use crate::sys::{lock, threads::blocking};

/// Most names that are remembered while the spool is held. The server's next start unlinks the rest.
const HELD_NAMES_MAX: usize = 256 << 10;

/// Unlinks files of one spool that the server does not need any more. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Unlinker {
    spool: PathBuf,
    held: Arc<Mutex<HeldFiles>>,
}

#[derive(Debug, Default)]
struct HeldFiles {
    holds: usize,
    names: Vec<String>,
}

/// While this lives, the server unlinks no file of the spool.
#[derive(Debug)]
pub struct UnlinkHold {
    unlinker: Unlinker,
}

impl Unlinker {
    /// The unlinker of this spool.
    pub fn new(spool: PathBuf) -> Self {
        Self {
            spool,
            held: Arc::default(),
        }
    }

    /// Unlinks these files in this order, or remembers them if the spool is held. A missing file is no
    /// error. All are tried; the last error is returned. If the server is killed in between, its next
    /// start unlinks the rest.
    pub async fn unlink(&self, names: impl IntoIterator<Item = String>) -> io::Result<()> {
        let names: Vec<String> = names.into_iter().collect();
        match self.keep_for_later(names) {
            Some(names) if !names.is_empty() => {
                let spool = self.spool.clone();
                blocking(move || unlink_all(&spool, names)).await
            }
            _ => Ok(()),
        }
    }

    /// Keeps all files that are in the spool now until the hold is dropped. A database that is read
    /// after this call names no file that the server has unlinked.
    pub fn hold(&self) -> UnlinkHold {
        self.lock().holds += 1;
        UnlinkHold {
            unlinker: self.clone(),
        }
    }

    /// Returns the names if the spool is not held; remembers them for later if it is.
    fn keep_for_later(&self, names: Vec<String>) -> Option<Vec<String>> {
        let mut held = self.lock();
        if held.holds == 0 {
            return Some(names);
        }
        if held.names.len() + names.len() <= HELD_NAMES_MAX {
            held.names.extend(names);
        } else {
            tracing::warn!(
                "too many files wait to be unlinked; the next start of the server unlinks the rest"
            );
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, HeldFiles> {
        lock(&self.held)
    }
}

impl Drop for UnlinkHold {
    fn drop(&mut self) {
        let mut held = self.unlinker.lock();
        held.holds -= 1;
        if held.holds > 0 || held.names.is_empty() {
            return;
        }
        let (names, spool) = (std::mem::take(&mut held.names), self.unlinker.spool.clone());
        drop(held);
        // Without a runtime the server is ending; its next start unlinks them.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || {
                if let Err(error) = unlink_all(&spool, names) {
                    tracing::warn!(%error, "a file that was held could not be unlinked");
                }
            });
        }
    }
}

fn unlink_all(spool: &std::path::Path, names: Vec<String>) -> io::Result<()> {
    let mut last = Ok(());
    for name in names {
        match fs::remove_file(spool.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => last = Err(error),
            _ => {}
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_goes_with_the_last_hold() {
        let spool = tempfile::tempdir().expect("a directory");
        let path = |name: &str| spool.path().join(name);
        for name in ["a", "b", "c"] {
            fs::write(path(name), "x").expect("written");
        }
        let unlinker = Unlinker::new(spool.path().to_owned());
        unlinker
            .unlink(["a".to_owned(), "missing".to_owned()])
            .await
            .expect("unlinked");
        assert!(!path("a").exists());
        let (one, two) = (unlinker.hold(), unlinker.hold());
        unlinker.unlink(["b".to_owned()]).await.expect("remembered");
        drop(one);
        assert!(path("b").exists());
        drop(two);
        let gone = async {
            while path("b").exists() {
                tokio::task::yield_now().await;
            }
        };
        let within = std::time::Duration::from_secs(30);
        tokio::time::timeout(within, gone)
            .await
            .expect("unlinked at last");
        assert!(path("c").exists());
    }
}
