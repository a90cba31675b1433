//! The helper thread that syncs segments, and drops some, while the shim goes on. It is started by
//! the first request, because most jobs never need it; what a result means is the log's business.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::eventfd::{EfdFlags, EventFd},
    unistd::{UnlinkatFlags, fsync, unlinkat},
};

use super::room;
use crate::spool::{Hole, SegmentName, hole};

/// How often it is tried to write a hole down on a full disk.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// A finished request.
#[derive(Debug)]
pub struct Synced {
    /// What [`Syncer::request`] was given.
    pub ticket: u64,
    /// Whether it is done, and on disk.
    pub result: io::Result<()>,
}

/// What can be asked for. Done in the order in which it was asked.
#[derive(Debug)]
pub enum Work {
    /// Sync a segment, and the directory's entries.
    Sync(File),
    /// Unlink segments, once it is on disk that they are gone.
    Drop {
        /// The segments.
        victims: Vec<SegmentName>,
        /// What all that is gone adds up to.
        hole: Hole,
    },
}

struct Request {
    ticket: u64,
    work: Work,
}

/// Hands segments to the helper thread and collects its results.
pub struct Syncer {
    spool: Arc<OwnedFd>,
    wake: Arc<EventFd>,
    done: (Sender<Synced>, Receiver<Synced>),
    requests: Option<Sender<Request>>,
}

impl Syncer {
    /// A syncer for segments in the directory `spool`. Starts nothing yet.
    pub fn new(spool: Arc<OwnedFd>) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            spool,
            wake: Arc::new(EventFd::from_value_and_flags(0, flags)?),
            done: mpsc::channel(),
            requests: None,
        })
    }

    /// Becomes readable when there are results.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Asks for something to be done; the result comes back under `ticket`.
    pub fn request(&mut self, ticket: u64, work: Work) -> io::Result<()> {
        let requests = match self.requests.take() {
            Some(requests) => requests,
            None => self.start()?,
        };
        let sent = requests.send(Request { ticket, work });
        self.requests = Some(requests);
        sent.map_err(|_| io::Error::other("the sync thread is gone"))
    }

    /// The next result, if there is one.
    pub fn next_result(&mut self) -> Option<Synced> {
        // Emptying the eventfd first: a result that comes in between wakes us again.
        let _ = self.wake.read();
        self.done.1.try_recv().ok()
    }

    fn start(&self) -> io::Result<Sender<Request>> {
        let (sender, receiver) = mpsc::channel();
        let (spool, wake) = (Arc::clone(&self.spool), Arc::clone(&self.wake));
        let done = self.done.0.clone();
        thread::Builder::new()
            .name("cc-shim-sync".to_owned())
            .stack_size(128 << 10)
            .spawn(move || work(&receiver, &spool, &wake, &done))?;
        Ok(sender)
    }
}

fn work(requests: &Receiver<Request>, spool: &OwnedFd, wake: &EventFd, done: &Sender<Synced>) {
    for Request { ticket, work } in requests {
        let result = match work {
            Work::Sync(file) => sync(&file, spool),
            Work::Drop { victims, hole } => drop_segments(&victims, &hole, spool),
        };
        if done.send(Synced { ticket, result }).is_err() {
            return;
        }
        let _ = wake.write(1);
    }
}

/// The data first: a name without its bytes is of no use after a power loss.
fn sync(file: &File, spool: &OwnedFd) -> io::Result<()> {
    file.sync_data()?;
    Ok(fsync(spool)?)
}

/// First it is on disk what is gone, then it goes: a kill in between leaves bytes that nobody
/// counts on, and never a hole that nobody knows of.
fn drop_segments(victims: &[SegmentName], hole: &Hole, spool: &OwnedFd) -> io::Result<()> {
    let Some(first) = victims.first() else {
        return Ok(());
    };
    write_hole(first, hole, spool)?;
    fsync(spool)?;
    for victim in victims {
        match unlinkat(
            spool,
            victim.to_string().as_str(),
            UnlinkatFlags::NoRemoveDir,
        ) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// On a full disk it waits for the block that this takes: the log goes on no further than one
/// segment without it.
fn write_hole(of: &SegmentName, hole: &Hole, spool: &OwnedFd) -> io::Result<()> {
    loop {
        match hole::write(spool, of.job, of.attempt, hole) {
            Err(e) if room::is_full(&e) => {
                #[expect(clippy::disallowed_methods, reason = "nobody tells of room on a disk")]
                thread::sleep(RETRY_EVERY);
            }
            written => return written,
        }
    }
}
