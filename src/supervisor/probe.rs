//! Finds out whether a shim lives: it answers, its lock is held, or it is proven to be dead.

use std::{io, time::Duration};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::{Context, budget::ConnectionPermit, connection::ShimConnection, looked::Looked};
use crate::spool::{AnyWelcome, FromShim, Greeting, Layout, ShimState};

/// How long a lock must stay taken before it counts as held. A child between fork and exec holds
/// its parent's lock for a shorter time than that.
const LOCK_RETRIES_FOR: Duration = Duration::from_millis(100);

/// How often a shim that waits for a connection slot is checked for its death.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The interval between two tries to lock.
const LOCK_RETRY_EVERY: Duration = Duration::from_millis(10);

/// What a shim says about itself in its welcome.
#[derive(Debug)]
pub struct ShimWelcome {
    /// Its program version.
    pub version: String,
    /// What it is doing.
    pub state: ShimState,
    /// Whether it takes secrets and masks them.
    pub takes_secrets: bool,
    /// Whether it tells when its process last gave a sign of life.
    pub tells_last_sign: bool,
}

/// The result of probing a shim.
#[derive(Debug)]
pub enum ProbeOutcome {
    /// It answers.
    Answers(Box<ShimConnection>, ShimWelcome),
    /// It lives and does not answer.
    Held,
    /// It does not answer, and it is unknown whether it lives: it counts as if it did. A sentence
    /// why.
    Unknown(String),
    /// It was not asked yet, because there are fewer connections than shims. It lives.
    Later,
    /// It lives, and speaks another protocol version than this server.
    Foreign(AnyWelcome),
    /// It is dead.
    Free,
}

/// A shim's answer to a greeting.
enum Greeted {
    Welcome(Box<ShimConnection>, ShimWelcome),
    Foreign(AnyWelcome),
}

/// Connects to a shim and greets it with this server's epoch, within `Context::answer`. Waits for a
/// connection slot before, until the shim is found dead.
pub async fn reach(ctx: &Context, shim: &str) -> ProbeOutcome {
    let mut permit = std::pin::pin!(ctx.budget.take());
    loop {
        if let Ok(permit) = tokio::time::timeout(LOOK_EVERY, &mut permit).await {
            return ask(ctx, shim, permit).await;
        }
        if look(ctx, shim).await == Looked::Gone {
            return ProbeOutcome::Free;
        }
    }
}

/// The same, but does not wait for a connection slot: without one the result is `Later`.
pub async fn reach_now(ctx: &Context, shim: &str) -> ProbeOutcome {
    match ctx.budget.try_take() {
        Some(permit) => ask(ctx, shim, permit).await,
        None => match look(ctx, shim).await {
            Looked::Gone => ProbeOutcome::Free,
            Looked::There(()) => ProbeOutcome::Later,
            Looked::Unknown(why) => ProbeOutcome::Unknown(why),
        },
    }
}

/// Greets a shim on a new connection. If it does not answer, looks whether it lives.
pub async fn ask(ctx: &Context, shim: &str, permit: ConnectionPermit) -> ProbeOutcome {
    let error = match tokio::time::timeout(ctx.answer, greet(ctx, shim, permit)).await {
        Ok(Ok(Greeted::Welcome(connection, welcome))) => {
            return ProbeOutcome::Answers(connection, welcome);
        }
        Ok(Ok(Greeted::Foreign(welcome))) => return ProbeOutcome::Foreign(welcome),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    tracing::debug!(shim, error, "a shim does not answer");
    match look(ctx, shim).await {
        Looked::There(()) => ProbeOutcome::Held,
        Looked::Gone => ProbeOutcome::Free,
        Looked::Unknown(why) => ProbeOutcome::Unknown(why),
    }
}

/// Looks whether a shim of another protocol version lives. It is sent nothing, so that it can exit
/// when its job is done.
pub async fn watch(ctx: &Context, shim: &str, welcome: AnyWelcome) -> ProbeOutcome {
    match look(ctx, shim).await {
        Looked::There(()) | Looked::Unknown(_) => ProbeOutcome::Foreign(welcome),
        Looked::Gone => ProbeOutcome::Free,
    }
}

async fn greet(ctx: &Context, shim: &str, permit: ConnectionPermit) -> io::Result<Greeted> {
    let mut connection = ShimConnection::open(&ctx.directory, shim, permit).await?;
    let hello = Greeting::new(&ctx.key_of(shim), ctx.epoch, &ctx.instance);
    connection.send(&hello).await?;
    loop {
        let look_at = connection.next_wake_check();
        let message = tokio::select! {
            message = connection.receive_as(FirstMessage::read) => message?,
            // It may be stopped.
            () = tokio::time::sleep_until(look_at) => {
                connection.wake_if_stopped();
                continue;
            }
        };
        match message {
            FirstMessage::Foreign(welcome) => return Ok(Greeted::Foreign(welcome)),
            FirstMessage::Known(FromShim::Welcome {
                version,
                state,
                takes_secrets,
                tells_last_sign,
                ..
            }) => {
                let welcome = ShimWelcome {
                    version,
                    state,
                    takes_secrets,
                    tells_last_sign,
                };
                return Ok(Greeted::Welcome(Box::new(connection), welcome));
            }
            FirstMessage::Known(FromShim::Stale { epoch }) => {
                let message = format!("the shim has seen epoch {epoch}, which is above ours");
                return Err(io::Error::other(message));
            }
            FirstMessage::Known(_) => {}
        }
    }
}

/// The first message of a shim.
enum FirstMessage {
    Foreign(AnyWelcome),
    Known(FromShim),
}

impl FirstMessage {
    fn read(json: &[u8]) -> Option<Self> {
        match AnyWelcome::foreign(json) {
            Some(welcome) => Some(Self::Foreign(welcome)),
            None => serde_json::from_slice(json).ok().map(Self::Known),
        }
    }
}

/// Whether a shim lives. A free lock proves that it does not, unless its process is found: the lock
/// may be another file under the same name. A missing lock proves nothing by itself.
pub async fn look(ctx: &Context, shim: &str) -> Looked {
    match look_at_lock(ctx, shim).await {
        Lock::Held => Looked::There(()),
        Lock::Free => match ctx.shim_search.look(shim).await {
            Looked::There(()) => Looked::There(()),
            Looked::Gone | Looked::Unknown(_) => Looked::Gone,
        },
        Lock::Missing => ctx.shim_search.look(shim).await,
        Lock::Unknown(error) => Looked::failed("its lock cannot be looked at", &error),
    }
}

/// What a look at a shim's lock has found.
enum Lock {
    /// A process holds it.
    Held,
    /// It is there, and no process holds it.
    Free,
    /// There is none.
    Missing,
    /// It could not be looked at.
    Unknown(io::Error),
}

async fn look_at_lock(ctx: &Context, shim: &str) -> Lock {
    let deadline = tokio::time::Instant::now() + LOCK_RETRIES_FOR;
    let mut ticks = tokio::time::interval(LOCK_RETRY_EVERY);
    loop {
        ticks.tick().await;
        let found = try_lock(ctx, shim);
        if matches!(found, Lock::Free | Lock::Missing) || tokio::time::Instant::now() >= deadline {
            return found;
        }
    }
}

fn try_lock(ctx: &Context, shim: &str) -> Lock {
    let file = match ctx.directory.open_file(&Layout::shim_lock_name(shim)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Lock::Missing,
        Err(error) => return Lock::Unknown(error),
    };
    // Only for this moment: dropping the guard releases it.
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_) => Lock::Free,
        Err((_, Errno::EWOULDBLOCK)) => Lock::Held,
        Err((_, errno)) => Lock::Unknown(errno.into()),
    }
}
