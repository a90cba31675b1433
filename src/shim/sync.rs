//! The helper thread that syncs segments while the shim goes on. It is started by the first
//! request, because most jobs never need it; what a result means is the log's business.

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

use nix::sys::eventfd::{EfdFlags, EventFd};

/// A finished request.
#[derive(Debug)]
pub struct Synced {
    /// What [`Syncer::request`] was given.
    pub ticket: u64,
    /// Whether file and directory are on disk now.
    pub result: io::Result<()>,
}

struct Request {
    ticket: u64,
    file: File,
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

    /// Asks for `file` and the directory's entries to be synced; the result comes back under
    /// `ticket`.
    pub fn request(&mut self, ticket: u64, file: File) -> io::Result<()> {
        let requests = match self.requests.take() {
            Some(requests) => requests,
            None => self.start()?,
        };
        let sent = requests.send(Request { ticket, file });
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
    for Request { ticket, file } in requests {
        // The data first: a name without its bytes is of no use after a power loss.
        let result = file
            .sync_data()
            .and_then(|()| Ok(nix::unistd::fsync(spool)?));
        drop(file);
        if done.send(Synced { ticket, result }).is_err() {
            return;
        }
        let _ = wake.write(1);
    }
}
