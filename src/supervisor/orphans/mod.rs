//! Finds and ends what is left of process trees whose shims are dead. All trees share the same
//! looks at `/proc`, so that two hundred of them cost little more than one.
//!
//! A process is the job's if it carries the job's mark (`mark`), or if it is in the session of the
//! leader, and the leader lives and is the process that the database names. A process with the mark
//! of another data directory that has the same job, such as the original of a backup, is left
//! alone. If a look fails, or a chain of processes goes on, it is unknown what is left, and the
//! result says so. `scheduler::rescue` decides what becomes of the jobs.

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
use crate::sys::{lock, threads::blocking, vital::Vital};
use process_scan::ProcessScan;
use tree_search::TreeSearch;

/// The pause before a look is tried again for which there was no thread.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The search drops it after its first look at all processes. A start of the server waits only
/// until then.
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

/// A tree that is searched for, and the caller that waits for the result.
struct OpenSearch {
    tree: TreeSearch,
    held: Option<SearchGuard>,
    answer: oneshot::Sender<OrphanTree>,
}

/// All searches that run at the moment.
#[derive(Default)]
struct OrphanSearches {
    scan: ProcessScan,
    open: Vec<OpenSearch>,
}

impl OrphanSearcher {
    /// Ends every process of a job that can be found, and returns those that could not be proven
    /// gone. Takes up to 20 s if the machine is not overloaded.
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

    /// Adds a search; whether the caller must start the task that works on them.
    fn ask(&self, open: OpenSearch) -> bool {
        let mut asked = lock(&self.0);
        asked.new.push(open);
        !std::mem::replace(&mut asked.is_searching, true)
    }

    /// The searches that were added since the last time; `None` if there are none and none are
    /// `left`, and then the task ends.
    fn take(&self, left: bool) -> Option<Vec<OpenSearch>> {
        let mut asked = lock(&self.0);
        let new = std::mem::take(&mut asked.new);
        asked.is_searching = left || !new.is_empty();
        asked.is_searching.then_some(new)
    }

    async fn work(self) {
        // Shared with the thread, not moved into it: if no thread can be started, nothing is lost.
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
                    reason = "no event tells that a process of another parent is gone"
                )]
                tokio::time::sleep(pause).await;
            }
        }
    }
}

impl OrphanSearches {
    /// One look at all processes for all trees; how long to wait before the next one, if one is
    /// needed.
    fn round(&mut self) -> Option<Duration> {
        self.open.iter_mut().for_each(|open| open.tree.prepare());
        let open = &mut self.open;
        let has_missed = self.scan.all(|seen| {
            for open in open.iter_mut() {
                open.tree.meet(&seen);
            }
        });
        for mut open in std::mem::take(&mut self.open) {
            match open.tree.conclude(has_missed, Instant::now()) {
                // The caller may be gone.
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
