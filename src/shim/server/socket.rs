//! The shim's lock and control socket. Only the server with the highest epoch that knows the shim's
//! key may use it. `event_loop` handles the messages.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixListener,
    },
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg, OFlag, openat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, unlinkat},
};

use super::connection::ControlConnection;
use crate::sys::long_path;
use crate::{
    shim::process::tree::Tree,
    spool::{FromShim, LaunchRequest, Layout, ShimKey, ToShim, message::EPOCH_MAX, safe_file},
};

/// How many connections may be open that have not sent a valid hello. Above that, the process with
/// the most of them loses its oldest one: a job that connects in a loop does not displace a server
/// that has just connected.
const UNAUTHENTICATED_MAX: usize = 16;

/// How many of them may come from the shim's own job. Not 0: a job may start a server.
const OWN_UNAUTHENTICATED_MAX: usize = 4;

/// How many connections are accepted before other events are handled.
const ACCEPTS_MAX: usize = 32;

/// How long no connection is accepted after accept failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a client of the socket wants.
#[derive(Debug)]
pub enum Call {
    /// A server has sent a valid hello and is to be welcomed; every older connection is closed.
    Hello {
        /// The data directory's instance.
        instance: String,
    },
    /// A message from the server.
    Message(ToShim),
    /// A process of our own user wants a program started as our sibling, and waits for the reply.
    Launch(Box<LaunchRequest>, ControlConnection),
}

/// The shim's lock file and socket in `DATA/shims`, with their connections.
pub struct ControlSocket {
    directory: File,
    id: String,
    /// `None`: the shim was given none, and accepts every hello from its user or root.
    key: Option<ShimKey>,
    _lock: Flock<File>,
    listener: UnixListener,
    server: Option<ControlConnection>,
    unauthenticated: Vec<Unauthenticated>,
    epoch: u64,
    accept_again_at: Option<Instant>,
}

/// A connection that has not sent a valid hello.
struct Unauthenticated {
    connection: ControlConnection,
    /// Whether it comes from the shim's own job.
    is_own: bool,
}

impl ControlSocket {
    /// Takes the lock and opens the socket. The socket is bound through the directory's descriptor,
    /// so that its path is never too long. The caller's umask decides its mode.
    pub fn open(layout: &Layout, id: &str, key: Option<ShimKey>) -> io::Result<Self> {
        let directory = safe_file::open_directory(&layout.shims())?;
        let lock = lock(&directory, id)?;
        let socket = Layout::shim_socket_name(id);
        match unlinkat(&directory, socket.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(e.into()),
        }
        let listener = UnixListener::bind(long_path::within(&directory, socket))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            directory,
            id: id.to_owned(),
            key,
            _lock: lock,
            listener,
            server: None,
            unauthenticated: Vec::new(),
            epoch: 0,
            accept_again_at: None,
        })
    }

    /// Every descriptor to poll, and whether bytes wait to be written to it.
    pub fn waits(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let listener = self
            .accept_again_at
            .is_none()
            .then(|| self.listener.as_fd());
        let unauthenticated = self.unauthenticated.iter().map(|s| &s.connection);
        let connections = unauthenticated.chain(&self.server);
        listener
            .map(|fd| (fd, false))
            .into_iter()
            .chain(connections.map(|c| (c.as_fd(), c.has_waiting())))
    }

    /// When connections are accepted again; `None` while they are accepted.
    pub fn accept_again_at(&self) -> Option<Instant> {
        self.accept_again_at
    }

    /// Reads once from every connection, then accepts new ones. `tree` shows which of them come
    /// from the job's processes.
    pub fn receive_all(&mut self, tree: &Tree, now: Instant) {
        self.accept_again_at.take_if(|until| *until <= now);
        let unauthenticated = self.unauthenticated.iter_mut().map(|s| &mut s.connection);
        for connection in unauthenticated.chain(&mut self.server) {
            connection.receive();
            connection.flush();
        }
        if self.accept_again_at.is_none() {
            self.accept_new(tree, now);
        }
    }

    fn accept_new(&mut self, tree: &Tree, now: Instant) {
        for _ in 0..ACCEPTS_MAX {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    // Other users than ours and root, or a socket whose peer cannot be determined:
                    // closed.
                    if let Ok(Some(connection)) = ControlConnection::accept(stream) {
                        self.add(connection, tree);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                // Accept would fail again at once while the listener stays readable: pause, or the
                // loop would spin.
                Err(_) => {
                    self.close_oldest(|_| true);
                    self.accept_again_at = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Adds a new connection and reads from it at once: a server sends its hello directly after
    /// connecting.
    fn add(&mut self, mut connection: ControlConnection, tree: &Tree) {
        connection.receive();
        if !connection.is_open() {
            return;
        }
        // A process that cannot be looked at does not count as the job's.
        let is_own = tree.is_ours(connection.peer()) == Ok(true);
        self.unauthenticated
            .push(Unauthenticated { connection, is_own });
        if self.unauthenticated.iter().filter(|s| s.is_own).count() > OWN_UNAUTHENTICATED_MAX {
            self.close_oldest(|client| client.is_own);
        }
        if self.unauthenticated.len() > UNAUTHENTICATED_MAX {
            self.close_oldest(|_| true);
        }
    }

    /// Closes the oldest connection of the process that has the most, among those that match.
    fn close_oldest(&mut self, among: impl Fn(&Unauthenticated) -> bool) {
        let peers = self
            .unauthenticated
            .iter()
            .map(|s| among(s).then(|| s.connection.peer()));
        if let Some(at) = to_close(&peers.collect::<Vec<_>>()) {
            self.unauthenticated.remove(at);
        }
    }

    /// The next call. The newest connections come first: a hello there discards what older ones
    /// have sent and the shim has not handled.
    pub fn next_call(&mut self) -> Option<Call> {
        for at in (0..self.unauthenticated.len()).rev() {
            match self.unauthenticated[at].connection.next_message() {
                Some(ToShim::Hello { epoch, instance }) => {
                    if self.admit(at, epoch, &instance) {
                        return Some(Call::Hello { instance });
                    }
                    return self.next_call();
                }
                Some(ToShim::Launch(launch)) => {
                    let client = self.unauthenticated.remove(at).connection;
                    if client.is_our_user() {
                        return Some(Call::Launch(launch, client));
                    }
                    return self.next_call();
                }
                Some(_) => {
                    self.unauthenticated.remove(at);
                    return self.next_call();
                }
                None => {}
            }
        }
        self.unauthenticated.retain(|s| s.connection.is_open());
        let message = self
            .server
            .as_mut()
            .and_then(ControlConnection::next_message);
        match message {
            Some(ToShim::Hello { epoch, instance }) => {
                let server = self.server.as_ref();
                if !server.is_some_and(|server| self.is_proven(server, epoch, &instance)) {
                    self.server = None;
                    return self.next_call();
                }
                self.epoch = self.epoch.max(epoch);
                Some(Call::Hello { instance })
            }
            Some(message) => Some(Call::Message(message)),
            None => {
                self.server.take_if(|server| !server.is_open());
                None
            }
        }
    }

    /// Handles a hello of the unauthenticated connection at index `at`; returns whether it is the
    /// server now.
    fn admit(&mut self, at: usize, epoch: u64, instance: &str) -> bool {
        let mut connection = self.unauthenticated.remove(at).connection;
        // Without the proof nothing changes, and the client learns nothing.
        if !self.is_proven(&connection, epoch, instance) {
            return false;
        }
        if epoch < self.epoch {
            connection.send(&FromShim::Stale { epoch: self.epoch });
            return false;
        }
        self.epoch = epoch;
        // The connections before it in the list are older.
        self.unauthenticated.drain(..at);
        self.server = Some(connection);
        true
    }

    /// Whether a hello proves that its sender knows the key, with an epoch that a server can have.
    fn is_proven(&self, connection: &ControlConnection, epoch: u64, instance: &str) -> bool {
        let key = self.key.as_ref();
        epoch <= EPOCH_MAX && key.is_none_or(|key| key.proves(connection.proof(), epoch, instance))
    }

    /// Sends a message to the server; without a server it is dropped.
    pub fn send(&mut self, message: &FromShim) {
        if let Some(server) = &mut self.server {
            server.send(message);
        }
        // A server that does not read is closed at once: it must see that it has lost the shim.
        self.server.take_if(|server| !server.is_open());
    }

    /// Whether a server is connected.
    pub fn has_server(&self) -> bool {
        self.server.as_ref().is_some_and(ControlConnection::is_open)
    }

    /// Removes socket and lock file, in this order and while the lock is held.
    pub fn close(self) {
        for name in [
            Layout::shim_socket_name(&self.id),
            Layout::shim_lock_name(&self.id),
        ] {
            let _ = unlinkat(&self.directory, name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// The index of the connection to close, given their processes in the order of arrival: the oldest
/// one of the process that has the most; among equals, of the process that came first. `None` is a
/// connection that stays.
fn to_close(peers: &[Option<i32>]) -> Option<usize> {
    let count = |peer: i32| peers.iter().filter(|p| **p == Some(peer)).count();
    let mut chosen = None;
    let mut most = 0;
    for (at, peer) in peers.iter().enumerate() {
        let of_peer = peer.map_or(0, count);
        if of_peer > most {
            (chosen, most) = (Some(at), of_peer);
        }
    }
    chosen
}

fn lock(directory: &File, id: &str) -> io::Result<Flock<File>> {
    let flags =
        OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let name = Layout::shim_lock_name(id);
    let file: File = openat(directory, name.as_str(), flags, mode)?.into();
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_does_not_give_way_to_one_that_has_many() {
        let many = |pid: i32, count: usize| vec![Some(pid); count];
        assert_eq!(to_close(&[]), None);
        assert_eq!(
            to_close(&[many(1, 1), many(2, 15), many(3, 1)].concat()),
            Some(1)
        );
        // No process has more than one: the oldest connection is closed.
        let all: Vec<_> = (1..=17).map(Some).collect();
        assert_eq!(to_close(&all), Some(0));
        assert_eq!(to_close(&[None, Some(4), Some(5), Some(5)]), Some(2));
    }
}
