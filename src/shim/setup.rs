//! Turns a process into a shim: a session of its own, nothing inherited but stderr, orphans
//! reparented to it. `event_loop` runs it afterwards.

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
    path::Path,
    sync::Arc,
};

use nix::{
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        stat::{Mode, umask},
    },
    unistd::{dup2_stdin, dup2_stdout, setsid},
};

use super::{
    context::ShimContext,
    event_loop::EventLoop,
    log::{frame::FrameBuffer, sync::Syncer},
    process::{fork, tree::Tree},
    server::socket::ControlSocket,
};
use crate::{
    spool::{Layout, ShimKey, key::KEY_BYTES, safe_file},
    sys::{disk_reserve::DiskReserve, proc},
};

/// The process name that `ps` shows; at most 15 bytes.
const NAME: &std::ffi::CStr = c"cc-shim";

/// Turns this process into the shim `id` of the data directory.
pub fn set_up(data_dir: &Path, id: &str) -> io::Result<EventLoop> {
    // It holds the environments of jobs and its key: no core dump, and no ptrace by other processes
    // of the user.
    prctl::set_dumpable(false)?;
    fork::close_inherited()?;
    let key = take_key().map_err(|e| while_trying("read its key", &e))?;
    let null = leave_parent()?;
    let layout = Layout::new(data_dir);
    let spool = safe_file::open_directory(&layout.spool())
        .map_err(|e| while_trying("open the spool", &e))?;
    let spool = Arc::new(OwnedFd::from(spool));
    let children = watch_children()?;
    let context = ShimContext {
        shim: id.to_owned(),
        boot_id: proc::boot_id()?,
        instance: String::new(),
        syncer: Syncer::start(Arc::clone(&spool))
            .map_err(|e| while_trying("start the thread that syncs", &e))?,
        spool,
        reserve: DiskReserve::of_data_dir(data_dir)
            .map_err(|e| while_trying("open the data directory", &e))?,
        null,
        frame: FrameBuffer::default(),
        tree: Tree::of_this_process().map_err(|e| while_trying("list its own children", &e))?,
        outgoing: Vec::new(),
        ticket: 0,
    };
    let socket = ControlSocket::open(&layout, id, key)
        .map_err(|e| while_trying("take its lock and socket", &e))?;
    Ok(EventLoop::new(context, socket, children))
}

/// Reads the key that a server writes to our stdin, a pipe: in any other place a job could read it
/// later. `None` where stdin is no pipe or the pipe is empty.
fn take_key() -> io::Result<Option<ShimKey>> {
    let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    if !stdin.metadata()?.file_type().is_fifo() {
        return Ok(None);
    }
    let mut bytes = [0; KEY_BYTES];
    match stdin.read(&mut bytes[..1])? {
        0 => Ok(None),
        _ => {
            stdin.read_exact(&mut bytes[1..])?;
            Ok(Some(ShimKey::from_bytes(bytes)))
        }
    }
}

/// Detaches from the parent: its session, terminal and signals. Returns `/dev/null`, open.
fn leave_parent() -> io::Result<OwnedFd> {
    // EPERM: it leads a group already, so its parent has made it a session leader.
    let _ = setsid();
    fork::ignore_signals();
    // The inherited working directory could not be unmounted or removed as long as the shim lives.
    std::env::set_current_dir("/")?;
    // Our sockets and files are for our user only; a job gets its own mask.
    umask(Mode::from_bits_truncate(0o177));
    let null = OwnedFd::from(File::options().read(true).write(true).open("/dev/null")?);
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    prctl::set_child_subreaper(true)?;
    prctl::set_name(NAME)?;
    Ok(null)
}

/// A descriptor that becomes readable when a child exits. SIGCHLD is blocked before the helper
/// thread exists, so that no thread receives it otherwise.
fn watch_children() -> io::Result<SignalFd> {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(SignalFd::with_flags(&children, flags)?)
}

/// The error, with what was tried in front.
fn while_trying(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
