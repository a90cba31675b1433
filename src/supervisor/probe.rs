//! Finds out whether a shim lives: it answers, its lock is held, or it is proven to be dead.

use std::{io, time::Duration};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::{Context, budget::ConnectionPermit, connection::ShimConnection, looked::Looked};
use crate::spool::{AnyWelcome, FromShim, Greeting, Layout, ShimState};

/// How long a lock must stay taken before it counts as held: a child between fork and exec holds
/// its parent's lock for that long at most.
const LOCK_RETRIES_FOR: Duration = Duration::from_millis(100);

/// How often the lock of a shim is looked at that waits for a connection.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Between two looks at a lock.
const LOCK_RETRY_EVERY: Duration = Duration::from_millis(10);

/// What a shim says of itself.
#[derive(Debug)]
pub struct ShimWelcome {
    /// Its program version.
    pub version: String,
    /// What it is doing.
    pub state: ShimState,
}

/// What came of asking a shim.
#[derive(Debug)]
pub enum ProbeOutcome {
    /// It answers.
    Answers(Box<ShimConnection>, ShimWelcome),
    /// It lives and does not answer.
    Held,
    /// It does not answer, and nobody can say whether it lives: it counts as if it did.
    Unknown(String),
    /// It was not asked yet: there are fewer connections than shims. Its lock is held.
    Later,
    /// It lives, and answers in a language that we do not speak.
    Foreign(AnyWelcome),
    /// It is dead.
    Free,
}

/// What a shim says to a greeting.
enum Greeted {
    Welcome(Box<ShimConnection>, ShimWelcome),
    Foreign(AnyWelcome),
}

/// Asks a shim who it is, with this server's epoch, within the context's deadline; waits for a
/// connection before, as long as the shim is not known to be dead.
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

/// The same, but one for which there is no connection now is asked later.
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

/// Asks on a connection of its own.
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

/// The same for one that is known not to speak our language: nothing is said to it, so that it can
/// go when it is done.
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
            // It may have been stopped.
            () = tokio::time::sleep_until(look_at) => {
                connection.wake_if_stopped();
                continue;
            }
        };
        match message {
            FirstMessage::Foreign(welcome) => return Ok(Greeted::Foreign(welcome)),
            FirstMessage::Known(FromShim::Welcome { version, state, .. }) => {
                let welcome = ShimWelcome { version, state };
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

/// The first thing that a shim says.
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

/// Whether a shim lives. A free lock proves that it does not, unless a process says otherwise: the
/// lock may be another one under the same name. A lock that is missing proves nothing by itself.
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
    /// Somebody holds it.
    Held,
    /// It is there, and nobody holds it.
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
    // Taken for this moment only; dropping the guard gives it back.
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_) => Lock::Free,
        Err((_, Errno::EWOULDBLOCK)) => Lock::Held,
        Err((_, errno)) => Lock::Unknown(errno.into()),
    }
}
