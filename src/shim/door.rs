//! The shim's lock and socket, and who may talk through it: the server of the highest epoch,
//! nobody else. What the messages mean is not known here.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::net::UnixListener,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg, OFlag, openat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, unlinkat},
};

use super::connection::Connection;
use crate::spool::{FromShim, Launch, Layout, ToShim};

/// Connections that have not said hello; the oldest is closed for another.
const STRANGERS_MAX: usize = 16;

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
    Launch(Box<Launch>, Connection),
}

/// The shim's place in `DATA/shims`.
pub struct Door {
    directory: File,
    id: String,
    _lock: Flock<File>,
    listener: UnixListener,
    server: Option<Connection>,
    strangers: Vec<Connection>,
    epoch: u64,
}

impl Door {
    /// Takes the lock and opens the socket. The socket is reached through the directory's
    /// descriptor, so that no path is too long. The caller's umask decides on its mode.
    pub fn open(layout: &Layout, id: &str) -> io::Result<Self> {
        let directory = File::open(layout.shims())?;
        let lock = lock(&directory, id)?;
        let socket = Layout::shim_socket_name(id);
        match unlinkat(&directory, socket.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(e.into()),
        }
        let within = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
        let listener = UnixListener::bind(within.join(socket))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            directory,
            id: id.to_owned(),
            _lock: lock,
            listener,
            server: None,
            strangers: Vec::new(),
            epoch: 0,
        })
    }

    /// Every descriptor that may wake the shim, and whether it waits to be written to.
    pub fn waits(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let connections = self.strangers.iter().chain(&self.server);
        std::iter::once((self.listener.as_fd(), false))
            .chain(connections.map(|c| (c.as_fd(), c.is_behind())))
    }

    /// Lets in who knocks, and reads once from everybody.
    pub fn attend(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if let Ok(Some(connection)) = Connection::accept(stream) {
                if self.strangers.len() >= STRANGERS_MAX {
                    self.strangers.remove(0);
                }
                self.strangers.push(connection);
            }
        }
        for connection in self.strangers.iter_mut().chain(&mut self.server) {
            connection.receive();
            connection.flush();
        }
    }

    /// The next thing to do. The newest connections come first: a hello there takes back what
    /// older ones have not been heard on.
    pub fn next_call(&mut self) -> Option<Call> {
        for at in (0..self.strangers.len()).rev() {
            match self.strangers[at].next_message() {
                Some(ToShim::Hello { epoch, instance }) => {
                    if self.admit(at, epoch) {
                        return Some(Call::Hello { instance });
                    }
                    return self.next_call();
                }
                Some(ToShim::Launch(launch)) => {
                    let asker = self.strangers.remove(at);
                    if asker.is_our_user() {
                        return Some(Call::Launch(launch, asker));
                    }
                    return self.next_call();
                }
                Some(_) => {
                    self.strangers.remove(at);
                    return self.next_call();
                }
                None => {}
            }
        }
        self.strangers.retain(Connection::is_open);
        let message = self.server.as_mut().and_then(Connection::next_message);
        match message {
            Some(ToShim::Hello { epoch, instance }) => {
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
    fn admit(&mut self, at: usize, epoch: u64) -> bool {
        let mut connection = self.strangers.remove(at);
        if epoch < self.epoch {
            connection.send(&FromShim::Stale { epoch: self.epoch });
            return false;
        }
        self.epoch = epoch;
        // Those before it in the list came before it.
        self.strangers.drain(..at);
        self.server = Some(connection);
        true
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
        self.server.as_ref().is_some_and(Connection::is_open)
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

fn lock(directory: &File, id: &str) -> io::Result<Flock<File>> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let name = Layout::shim_lock_name(id);
    let file: File = openat(directory, name.as_str(), flags, mode)?.into();
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}
