//! What a handle does while its shim cannot be told anything: it takes commands, keeps the few that
//! wait for the connection, and answers the rest, so that nothing piles up.

use std::{io, pin::pin, sync::Arc, time::Duration};

use super::{Flow, PauseAsked, RETRY_EVERY, ShimHandle, ShimTask, due};
use crate::{
    job::{InputAnswer, StopCause, StopWish},
    store::{OpenAttempt, StoreError},
    supervisor::{
        AttemptId,
        connection::ShimConnection,
        probe::{self, ProbeOutcome},
        registry::Command,
    },
};

/// Between two questions to a ledger that does not answer.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl ShimHandle {
    /// Asks the shim who it is.
    pub(super) async fn reach(&mut self) -> ProbeOutcome {
        let (ctx, shim) = (Arc::clone(&self.ctx), self.offer.shim.clone());
        self.meanwhile(async move { probe::reach(&ctx, &shim).await })
            .await
    }

    /// What the shim was given, as the ledger says, is watched until the shim says something.
    pub(super) fn watch(&mut self, open: &Option<OpenAttempt>) {
        if let (ShimTask::None, Some(open)) = (&self.task, open) {
            self.task = ShimTask::watching(open);
        }
    }

    /// A pause before another knock.
    pub(super) async fn pause(&mut self, open: &Option<OpenAttempt>) {
        self.watch(open);
        #[expect(
            clippy::disallowed_methods,
            reason = "a stopped shim tells nobody that it goes on, and a lock not that it is free"
        )]
        let pause = tokio::time::sleep(RETRY_EVERY);
        self.meanwhile(pause).await;
    }

    /// The connection is gone, and with it what was asked on it.
    pub(super) fn disconnected(&mut self) {
        self.commit_start();
        // Whether they were taken will not be told any more.
        self.inputs.asked.clear();
    }

    /// Whether an answer of the shim is waited for: no time to give the connection away.
    pub(super) fn is_asking(&self) -> bool {
        self.inputs.asked.values().any(|done| !done.is_closed())
            || self.pauses.iter().any(|asked| !asked.done.is_closed())
    }

    /// The ledger's row of the attempt that this shim was given, if it is still open. It is asked
    /// until it answers: what somebody wishes of the attempt stands there. `None` also where the
    /// server stops. No commands are taken meanwhile: one that came behind the answer would be lost.
    pub(super) async fn open_attempt(&mut self) -> Option<OpenAttempt> {
        let key = self.task.key()?;
        loop {
            match self.ctx.store.open_attempt(key.job, key.attempt).await {
                Ok(open) => return open,
                Err(StoreError::Stopping) => return None,
                Err(error) => {
                    tracing::warn!(job = key.job, %error, "the ledger cannot be read; trying again");
                }
            }
            #[expect(clippy::disallowed_methods, reason = "a pause before another try")]
            let pause = tokio::time::sleep(ASK_AGAIN_AFTER);
            self.meanwhile(pause).await;
        }
    }

    /// Waits for something, and takes commands meanwhile.
    async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        loop {
            tokio::select! {
                biased;
                done = &mut what => return done,
                Some(command) = self.commands.recv() => self.put_off(command),
                () = due(self.started.as_ref().map(|(_, at)| *at)) => self.commit_start(),
            }
        }
    }

    /// Takes an command that cannot be passed on now. Wishes are levels: the ledger has them, and they
    /// are sent again behind the next welcome. What is done at most once is not done.
    pub(super) fn put_off(&mut self, command: Command) {
        let current = self.task.open_key();
        match command {
            // There is one at a time: the next one follows from its end.
            Command::Run(claim) => self.run = Some(claim),
            Command::Release => {
                if matches!(self.task, ShimTask::Ended(_)) {
                    // A shim that does not hear it says so again.
                    self.task = ShimTask::None;
                }
            }
            Command::Leave => self.dismissed = true,
            Command::Stop(key, wish) if Some(key) == current => self.put_off_stop(key, wish),
            Command::Pause {
                key,
                pause,
                actor,
                done,
                ..
            } if Some(key) == current => {
                // The newest is what is to be; those before it are answered by it.
                self.pauses.clear();
                self.pauses.push(PauseAsked { pause, actor, done });
            }
            Command::Input { key, done, .. }
                if current.is_none() && Some(key) == self.task.key() =>
            {
                let _ = done.send(InputAnswer::Closed);
            }
            Command::Stop(key, _) | Command::Pause { key, .. } | Command::Input { key, .. }
                if Some(key) == self.task.key() => {}
            Command::Signal { .. } => {}
            command => self.keep_early(command),
        }
    }

    /// On a full disk a stop is not in the ledger. One is kept, the harder one.
    fn put_off_stop(&mut self, key: AttemptId, wish: StopWish) {
        let kept = self.stop.take();
        let harder = kept.filter(|(of, kept)| *of == key && kept.cause == StopCause::Kill);
        self.stop = Some(harder.unwrap_or((key, wish)));
    }

    /// Does what was ordered while the shim could not be told.
    pub(super) async fn catch_up(&mut self, connection: &mut ShimConnection) -> io::Result<Flow> {
        // Where it cannot be sent the next welcome tells that it never ran.
        if let Some(claim) = self.run.take() {
            self.on_command(connection, Command::Run(claim)).await?;
        }
        // A level: it may be sent twice, and is kept until it was.
        if let Some((key, wish)) = self.stop.clone() {
            if self.task.open_key() == Some(key) {
                self.on_command(connection, Command::Stop(key, wish))
                    .await?;
            }
            self.stop = None;
        }
        if self.dismissed {
            return self.on_command(connection, Command::Leave).await;
        }
        Ok(Flow::Continue)
    }
}
