//! The helper thread that syncs and drops segments while the shim goes on. It is started before the
//! shim holds a job that a failed start could cost. `syncing` handles the results.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use nix::{
    errno::Errno,
    sys::eventfd::{EfdFlags, EventFd},
    unistd::{UnlinkatFlags, fsync, unlinkat},
};

use crate::spool::{DroppedRange, SegmentName, dropped_range};

/// A finished request.
#[derive(Debug)]
pub struct Synced {
    /// The ticket that [`Syncer::request`] was given.
    pub ticket: u64,
    /// The request: it may be sent again.
    pub work: SyncWork,
    /// Success means that it is done and on disk.
    pub result: Result<(), SyncFailure>,
}

/// Why a request failed.
#[derive(Debug)]
pub struct SyncFailure {
    /// The step that failed.
    pub error: io::Error,
    /// A sync has failed: the kernel may have discarded the data that it should have written.
    pub is_sync: bool,
    /// Readers already see that the segments are dropped, whether they are unlinked or not.
    pub is_published: bool,
}

impl SyncFailure {
    fn of(error: impl Into<io::Error>) -> Self {
        Self {
            error: error.into(),
            is_sync: false,
            is_published: false,
        }
    }

    fn sync(error: impl Into<io::Error>) -> Self {
        Self {
            is_sync: true,
            ..Self::of(error)
        }
    }

    fn published(self) -> Self {
        Self {
            is_published: true,
            ..self
        }
    }
}

/// A request. Requests are done in the order in which they were sent.
#[derive(Debug)]
pub enum SyncWork {
    /// Sync a segment, and the entries of the directory.
    Sync(Arc<File>),
    /// Unlink segments, once the range that they leave is on disk.
    Drop {
        /// The segments to unlink, in order.
        victims: Vec<SegmentName>,
        /// The dropped range, with everything that was dropped before.
        dropped_range: DroppedRange,
    },
}

impl SyncWork {
    fn perform(&self, spool: &OwnedFd) -> Result<(), SyncFailure> {
        match self {
            Self::Sync(file) => sync(file, spool),
            Self::Drop {
                victims,
                dropped_range,
            } => drop_segments(victims, dropped_range, spool),
        }
    }
}

struct SyncRequest {
    ticket: u64,
    work: SyncWork,
}

/// Sends requests to the helper thread and collects its results.
pub struct Syncer {
    spool: Arc<OwnedFd>,
    wake: Arc<EventFd>,
    done: (Sender<Synced>, Receiver<Synced>),
    requests: Sender<SyncRequest>,
}

impl Syncer {
    /// Starts the thread for segments in the directory `spool`, and waits until it runs: a thread
    /// that begins allocates memory for its signal stack, and the process aborts without it. At
    /// this point the shim holds no job and can be replaced.
    ///
    /// # Errors
    ///
    /// The kernel refuses a descriptor or a thread.
    pub fn start(spool: Arc<OwnedFd>) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let done = mpsc::channel();
        let (requests, receiver) = mpsc::channel();
        let (begun, has_begun) = mpsc::channel();
        let (thread_spool, thread_wake, results) =
            (Arc::clone(&spool), Arc::clone(&wake), done.0.clone());
        thread::Builder::new()
            .name("cc-shim-sync".to_owned())
            .stack_size(128 << 10)
            .spawn(move || {
                let _ = begun.send(());
                work(&receiver, &thread_spool, &thread_wake, &results);
            })?;
        has_begun.recv().map_err(io::Error::other)?;
        Ok(Self {
            spool,
            wake,
            done,
            requests,
        })
    }

    /// Becomes readable when there are results.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Sends a request; the result comes back under `ticket`. Where the thread is gone, the request
    /// is returned.
    pub fn request(&mut self, ticket: u64, work: SyncWork) -> Result<(), SyncWork> {
        self.requests
            .send(SyncRequest { ticket, work })
            .map_err(|mpsc::SendError(SyncRequest { work, .. })| work)
    }

    /// Does it in this thread: for a caller that has nothing else to do.
    pub fn perform(&self, ticket: u64, work: SyncWork) -> Synced {
        let result = work.perform(&self.spool);
        Synced {
            ticket,
            work,
            result,
        }
    }

    /// The next result, if there is one.
    pub fn next_result(&mut self) -> Option<Synced> {
        // The eventfd is emptied first: a result that comes in between wakes us again.
        let _ = self.wake.read();
        self.done.1.try_recv().ok()
    }
}

fn work(requests: &Receiver<SyncRequest>, spool: &OwnedFd, wake: &EventFd, done: &Sender<Synced>) {
    for SyncRequest { ticket, work } in requests {
        let result = work.perform(spool);
        let synced = Synced {
            ticket,
            work,
            result,
        };
        if done.send(synced).is_err() {
            return;
        }
        // The write fails only when the counter is full, and then it is readable as well.
        let _ = wake.write(1);
    }
}

/// The data first: after a power loss a name without its bytes is of no use.
fn sync(file: &File, spool: &OwnedFd) -> Result<(), SyncFailure> {
    file.sync_data().map_err(SyncFailure::sync)?;
    fsync(spool).map_err(SyncFailure::sync)
}

/// First the dropped range is on disk, then the segments are unlinked: a kill in between leaves
/// bytes that no reader counts on, and never missing bytes without a dropped range. Repeating it
/// has the same result.
fn drop_segments(
    victims: &[SegmentName],
    dropped_range: &DroppedRange,
    spool: &OwnedFd,
) -> Result<(), SyncFailure> {
    let Some(SegmentName { job, attempt, .. }) = victims.first().copied() else {
        return Ok(());
    };
    let draft =
        dropped_range::draft(spool, job, attempt, dropped_range).map_err(SyncFailure::of)?;
    draft.sync_data().map_err(SyncFailure::sync)?;
    dropped_range::publish(spool, job, attempt).map_err(SyncFailure::of)?;
    fsync(spool).map_err(|error| SyncFailure::sync(error).published())?;
    for victim in victims {
        let name = victim.to_string();
        match unlinkat(spool, name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(SyncFailure::of(error).published()),
        }
    }
    Ok(())
}
