//! Finds and ends what is left of process trees whose shims are dead, all of them with the same looks
//! at `/proc`, so that two hundred of them cost little more than one.
//!
//! A process is ours if it carries the job's mark (`mark`), or if its session is the leader's and the
//! leader is there and is the process that the ledger names. What carries the mark of another data
//! directory with the same job, such as the one that this is a backup of, is none of our business.
//! Where a look fails, or a chain of processes goes on, nobody can know what is left, and that is what
//! is told. What becomes of the jobs is not known here.

mod kill;
mod mark;
mod process_scan;
mod search_progress;
mod tree;
mod tree_search;

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

pub use self::{
    mark::Mark,
    tree::{Leader, OrphanTree},
};
use crate::sys::lock;
use crate::sys::{threads::blocking, vital::Vital};
use process_scan::ProcessScan;
use tree_search::TreeSearch;

/// Between two tries of a look for which there was no thread.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Held by somebody for whom others wait; it is let go after the first look at everybody.
pub type SearchGuard = mpsc::Sender<()>;

/// Searches for trees, and does nothing while there are none. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct OrphanSearcher(Arc<Mutex<Asked>>);

#[derive(Default)]
struct Asked {
    new: Vec<OpenSearch>,
    is_searching: bool,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let new = self.new.len();
        f.debug_struct("Asked").field("new", &new).finish()
    }
}

/// A tree that is searched for, and who waits for the answer.
struct OpenSearch {
    tree: TreeSearch,
    held: Option<SearchGuard>,
    answer: oneshot::Sender<OrphanTree>,
}

/// Everything that is searched for at the moment.
#[derive(Default)]
struct OrphanSearches {
    scan: ProcessScan,
    open: Vec<OpenSearch>,
}

impl OrphanSearcher {
    /// Ends every process of a job that can be found; those that could not be proven gone are
    /// returned, after 20 s at most where the machine is not overloaded.
    ///
    /// # Errors
    ///
    /// The server stops.
    pub async fn search(
        &self,
        vital: &Vital,
        mark: Mark,
        leader: Option<Leader>,
        held: Option<SearchGuard>,
    ) -> io::Result<OrphanTree> {
        let (answer, remains) = oneshot::channel();
        let tree = TreeSearch::begin(mark, leader, Instant::now());
        if self.ask(OpenSearch { tree, held, answer }) {
            vital.spawn("searching for trees", self.clone().work());
        }
        remains.await.map_err(io::Error::other)
    }

    /// Whether there is nobody at work.
    fn ask(&self, open: OpenSearch) -> bool {
        let mut asked = lock(&self.0);
        asked.new.push(open);
        !std::mem::replace(&mut asked.is_searching, true)
    }

    /// What was asked since the last time; with nothing and nothing `left` the work is done.
    fn take(&self, left: bool) -> Option<Vec<OpenSearch>> {
        let mut asked = lock(&self.0);
        let new = std::mem::take(&mut asked.new);
        asked.is_searching = left || !new.is_empty();
        asked.is_searching.then_some(new)
    }

    async fn work(self) {
        // Not given away: where there is no thread for a look, everything is still here.
        let searches = Arc::new(Mutex::new(OrphanSearches::default()));
        let mut pause = None;
        while let Some(new) = self.take(pause.is_some()) {
            let searches = Arc::clone(&searches);
            let look = blocking(move || {
                let mut searches = lock(&searches);
                searches.open.extend(new);
                Ok(searches.round())
            });
            pause = look.await.unwrap_or(Some(AGAIN_AFTER));
            if let Some(pause) = pause {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "nobody tells when a stranger's process is gone"
                )]
                tokio::time::sleep(pause).await;
            }
        }
    }
}

impl OrphanSearches {
    /// One look at everybody for all trees; how long to wait for the next one, if there is to be one.
    fn round(&mut self) -> Option<Duration> {
        self.open.iter_mut().for_each(|open| open.tree.prepare());
        let open = &mut self.open;
        self.scan.all(|seen| {
            for open in open.iter_mut() {
                open.tree.meet(&seen);
            }
        });
        for mut open in std::mem::take(&mut self.open) {
            match open.tree.conclude(Instant::now()) {
                // Who asked may be gone.
                Some(remains) => drop(open.answer.send(remains)),
                None => {
                    open.held = None;
                    self.open.push(open);
                }
            }
        }
        self.open.iter().map(|open| open.tree.pause()).min()
    }
}

#[cfg(test)]
mod tests;
