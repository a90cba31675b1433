//! Unlinks files of the spool, at once or when nobody needs them to stay any more: whoever copies the
//! spool holds what is in it.
//!
//! Which files have become useless is decided by who asks. Shims drop their own segments, and hold
//! nothing back.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::runtime::Handle;

use crate::sys::threads::blocking;

/// Names that are kept while somebody holds the spool; more are left for the next start's tidying.
const HELD_NAMES_MAX: usize = 256 << 10;

/// The one who unlinks what the server has no use for. Cheap to clone.
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

/// While this lives no file leaves the spool by the server's hand.
#[derive(Debug)]
pub struct Hold {
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

    /// Unlinks what is there of these, in this order, or remembers to. All are tried; the last error
    /// is returned. What is not done for a kill in between the next start does.
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

    /// Keeps everything in the spool that is there, and is not unlinked already, until the hold is
    /// dropped. A ledger that is read from now on names no file that is missing.
    pub fn hold(&self) -> Hold {
        self.lock().holds += 1;
        Hold {
            unlinker: self.clone(),
        }
    }

    /// `None`: somebody holds them.
    fn keep_for_later(&self, names: Vec<String>) -> Option<Vec<String>> {
        let mut held = self.lock();
        if held.holds == 0 {
            return Some(names);
        }
        if held.names.len() + names.len() <= HELD_NAMES_MAX {
            held.names.extend(names);
        } else {
            tracing::warn!(
                "more files wait to be unlinked than are remembered: the next start does it"
            );
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, HeldFiles> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.unlinker.lock();
        held.holds -= 1;
        if held.holds > 0 || held.names.is_empty() {
            return;
        }
        let (names, spool) = (std::mem::take(&mut held.names), self.unlinker.spool.clone());
        drop(held);
        // Without a runtime the server is gone, and the next one does it.
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
