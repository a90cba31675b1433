//! Finds out whether a shim lives: it answers, its lock is held, or its lock is free.

use std::{fs, io, path::Path, time::Duration};

use nix::fcntl::{Flock, FlockArg};

use super::{Context, connection::Connection};
use crate::spool::{FromShim, Layout, ShimState, Speaker, ToShim};

/// How long a lock must stay taken before it counts as held: a child between fork and exec holds
/// its parent's lock for that long at most.
const LOCK_RETRIES_FOR: Duration = Duration::from_millis(100);

/// Between two looks at a lock.
const LOCK_RETRY_EVERY: Duration = Duration::from_millis(10);

/// What a shim says of itself.
#[derive(Debug)]
pub struct Welcome {
    /// Its program version.
    pub version: String,
    /// What it is doing.
    pub state: ShimState,
}

/// What came of asking a shim.
#[derive(Debug)]
pub enum Reached {
    /// It answers.
    Answers(Box<Connection>, Welcome),
    /// It lives and does not answer.
    Held,
    /// It lives, and answers in a language that we do not speak.
    Foreign(Speaker),
    /// It is dead.
    Free,
}

/// What a shim says to a greeting.
enum Greeted {
    Welcome(Box<Connection>, Welcome),
    Foreign(Speaker),
}

/// Whether somebody holds a shim's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockState {
    /// The shim lives.
    Held,
    /// The shim is dead.
    Free,
}

/// The kernel's boot id (proc_sys_kernel(5)): another one means that every process is gone.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Asks a shim who it is, with this server's epoch, within the context's deadline.
pub async fn reach(ctx: &Context, shim: &str) -> Reached {
    match tokio::time::timeout(ctx.answer, greet(ctx, shim)).await {
        Ok(Ok(Greeted::Welcome(connection, welcome))) => Reached::Answers(connection, welcome),
        Ok(Ok(Greeted::Foreign(speaker))) => Reached::Foreign(speaker),
        answer => {
            if let Ok(Err(error)) = &answer {
                tracing::debug!(shim, %error, "a shim does not answer");
            }
            match lock_state(&ctx.layout, shim).await {
                LockState::Held => Reached::Held,
                LockState::Free => Reached::Free,
            }
        }
    }
}

/// The same for one that is known not to speak our language: nothing is said to it, so that it can
/// go when it is done.
pub async fn watch(ctx: &Context, shim: &str, speaker: Speaker) -> Reached {
    match lock_state(&ctx.layout, shim).await {
        LockState::Held => Reached::Foreign(speaker),
        LockState::Free => Reached::Free,
    }
}

async fn greet(ctx: &Context, shim: &str) -> io::Result<Greeted> {
    let mut connection = Connection::open(&ctx.layout, shim).await?;
    let hello = ToShim::Hello {
        epoch: ctx.epoch,
        instance: ctx.instance.clone(),
    };
    connection.send(&hello).await?;
    loop {
        match connection.receive_as(Heard::read).await? {
            Heard::Foreign(speaker) => return Ok(Greeted::Foreign(speaker)),
            Heard::Known(FromShim::Welcome { version, state, .. }) => {
                let welcome = Welcome { version, state };
                return Ok(Greeted::Welcome(Box::new(connection), welcome));
            }
            Heard::Known(FromShim::Stale { epoch }) => {
                let message = format!("the shim has seen epoch {epoch}, which is above ours");
                return Err(io::Error::other(message));
            }
            Heard::Known(_) => {}
        }
    }
}

/// The first thing that a shim says.
enum Heard {
    Foreign(Speaker),
    Known(FromShim),
}

impl Heard {
    fn read(json: &[u8]) -> Option<Self> {
        match Speaker::foreign(json) {
            Some(speaker) => Some(Self::Foreign(speaker)),
            None => serde_json::from_slice(json).ok().map(Self::Known),
        }
    }
}

/// Looks at a shim's lock. A missing file is a free lock.
pub async fn lock_state(layout: &Layout, shim: &str) -> LockState {
    let path = layout.shims().join(Layout::shim_lock_name(shim));
    let deadline = tokio::time::Instant::now() + LOCK_RETRIES_FOR;
    let mut ticks = tokio::time::interval(LOCK_RETRY_EVERY);
    loop {
        ticks.tick().await;
        if is_free(&path) {
            return LockState::Free;
        }
        if tokio::time::Instant::now() >= deadline {
            return LockState::Held;
        }
    }
}

fn is_free(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else {
        return true;
    };
    // Taken for this moment only; dropping the guard gives it back.
    Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()
}
