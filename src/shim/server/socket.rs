//! The shim's lock and socket, and who may talk through it: the server of the highest epoch that knows
//! the shim's key, nobody else. What the messages mean is not known here.

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

/// Connections that have not said hello. Beyond that the process with the most of them loses its
/// oldest one: a server that has just come is not pushed out by a job that connects in a loop.
const UNAUTHENTICATED_MAX: usize = 16;

/// How many of them may be those of the shim's own job. Not none: a job may start a server.
const OWN_UNAUTHENTICATED_MAX: usize = 4;

/// How many are let in before everything else has its turn.
const ACCEPTS_MAX: usize = 32;

/// How long nobody is let in after that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What came through the door.
#[derive(Debug)]
pub enum Call {
    /// A server has said hello and is to be welcomed; everybody before it has been forgotten.
    Hello {
        /// The data directory's instance.
        instance: String,
    },
    /// A message of the server.
    Message(ToShim),
    /// Somebody of our own user wants a program started beside us, and waits for the answer.
    Launch(Box<LaunchRequest>, ControlConnection),
}

/// The shim's place in `DATA/shims`.
pub struct ControlSocket {
    directory: File,
    id: String,
    /// `None`: nobody has given it one, and it takes everybody of its user at their word.
    key: Option<ShimKey>,
    _lock: Flock<File>,
    listener: UnixListener,
    server: Option<ControlConnection>,
    unauthenticated: Vec<Unauthenticated>,
    epoch: u64,
    accept_again_at: Option<Instant>,
}

/// A connection that has not said hello.
struct Unauthenticated {
    connection: ControlConnection,
    /// It comes from the shim's own job.
    is_own: bool,
}

impl ControlSocket {
    /// Takes the lock and opens the socket. The socket is reached through the directory's
    /// descriptor, so that no path is too long. The caller's umask decides on its mode.
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

    /// Every descriptor that may wake the shim, and whether it waits to be written to.
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

    /// When it listens again, while it cannot.
    pub fn accept_again_at(&self) -> Option<Instant> {
        self.accept_again_at
    }

    /// Lets in who knocks, and reads once from everybody. `tree` tells the job's processes from
    /// others.
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
                    // Others than our user and root, or a socket that cannot be asked: closed.
                    if let Ok(Some(connection)) = ControlConnection::accept(stream) {
                        self.add(connection, tree);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                // It would fail again at once, and the listener stays readable.
                Err(_) => {
                    self.close_oldest(|_| true);
                    self.accept_again_at = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Takes a newcomer, and hears it at once: a server says hello as it comes.
    fn add(&mut self, mut connection: ControlConnection, tree: &Tree) {
        connection.receive();
        if !connection.is_open() {
            return;
        }
        // One that cannot be looked at counts as a stranger.
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

    /// Closes a connection among these: the oldest one of the process that has the most.
    fn close_oldest(&mut self, among: impl Fn(&Unauthenticated) -> bool) {
        let peers = self
            .unauthenticated
            .iter()
            .map(|s| among(s).then(|| s.connection.peer()));
        if let Some(at) = to_close(&peers.collect::<Vec<_>>()) {
            self.unauthenticated.remove(at);
        }
    }

    /// The next thing to do. The newest connections come first: a hello there takes back what
    /// older ones have not been heard on.
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

    /// A hello from the stranger at this place: whether it is the server now.
    fn admit(&mut self, at: usize, epoch: u64, instance: &str) -> bool {
        let mut connection = self.unauthenticated.remove(at).connection;
        // One that cannot prove it changes nothing, and learns nothing.
        if !self.is_proven(&connection, epoch, instance) {
            return false;
        }
        if epoch < self.epoch {
            connection.send(&FromShim::Stale { epoch: self.epoch });
            return false;
        }
        self.epoch = epoch;
        // Those before it in the list came before it.
        self.unauthenticated.drain(..at);
        self.server = Some(connection);
        true
    }

    /// Whether a hello comes from who knows the key, with an epoch that a server can have.
    fn is_proven(&self, connection: &ControlConnection, epoch: u64, instance: &str) -> bool {
        let key = self.key.as_ref();
        epoch <= EPOCH_MAX && key.is_none_or(|key| key.proves(connection.proof(), epoch, instance))
    }

    /// Tells the server; without one nobody hears it.
    pub fn send(&mut self, message: &FromShim) {
        if let Some(server) = &mut self.server {
            server.send(message);
        }
        // One that does not listen is closed at once: it must see that it is out.
        self.server.take_if(|server| !server.is_open());
    }

    /// Whether a server is there.
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

/// Which of the connections of these processes, in the order in which they came, is to be closed:
/// the oldest of the process that has the most; of equals, of the one that came first. `None` is one
/// that stays.
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
        // Nobody has more than one: the one that has waited longest in vain.
        let all: Vec<_> = (1..=17).map(Some).collect();
        assert_eq!(to_close(&all), Some(0));
        assert_eq!(to_close(&[None, Some(4), Some(5), Some(5)]), Some(2));
    }
}
