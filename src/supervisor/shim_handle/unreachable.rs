//! What a handle does while its shim cannot be reached: it receives commands, keeps the few that
//! wait for the connection, and answers the rest, so that the queue of commands does not fill up.

use std::{io, pin::pin, sync::Arc, time::Duration};

use super::{Flow, PendingPause, RETRY_EVERY, ShimHandle, ShimTask, due};
use crate::{
    job::{InputAnswer, StopCause, StopRequest},
    store::{OpenAttempt, StoreError},
    supervisor::{
        AttemptId,
        connection::ShimConnection,
        probe::{self, ProbeOutcome},
        registry::ShimCommand,
    },
};

/// The pause between two reads of the database after an error.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl ShimHandle {
    /// Tries to connect to the shim.
    pub(super) async fn reach(&mut self) -> ProbeOutcome {
        let (ctx, shim) = (Arc::clone(&self.ctx), self.offer.shim.clone());
        self.defer_commands_until(async move { probe::reach(&ctx, &shim).await })
            .await
    }

    /// Watches the attempt that the database names for the shim, until the shim itself reports one.
    pub(super) fn watch(&mut self, open: &Option<OpenAttempt>) {
        if let (ShimTask::None, Some(open)) = (&self.task, open) {
            self.task = ShimTask::watching(open);
        }
    }

    /// A pause before the next try to reach the shim.
    pub(super) async fn pause(&mut self, open: &Option<OpenAttempt>) {
        self.watch(open);
        #[expect(
            clippy::disallowed_methods,
            reason = "no event tells that a stopped shim goes on, or that a lock is free"
        )]
        let pause = tokio::time::sleep(RETRY_EVERY);
        self.defer_commands_until(pause).await;
    }

    /// The connection is gone, and the answers that were awaited on it will not come.
    pub(super) fn disconnected(&mut self) {
        self.commit_start();
        // Whether the shim took these inputs stays unknown: dropping the senders says so.
        self.inputs.pending.clear();
        self.last_signs.clear();
    }

    /// Whether a client waits for an answer of the shim: the connection is not given up before
    /// that.
    pub(super) fn awaits_answer(&self) -> bool {
        self.inputs.pending.values().any(|done| !done.is_closed())
            || self.pauses.iter().any(|asked| !asked.done.is_closed())
    }

    /// The database's row of the attempt that this shim was given, if it is still open. After an
    /// error it is read again, because it holds the committed requests about the attempt. `None`
    /// also if the server stops. No commands are received while it is read: a request that is
    /// committed after the read and received before its end would be lost.
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
            self.defer_commands_until(pause).await;
        }
    }

    /// Waits for a future, and defers the commands that come meanwhile.
    async fn defer_commands_until<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        loop {
            tokio::select! {
                biased;
                done = &mut what => return done,
                Some(command) = self.commands.recv() => self.defer(command),
                () = due(self.started.as_ref().map(|(_, at)| *at)) => self.commit_start(),
            }
        }
    }

    /// Handles a command that cannot be passed on now. Stop and pause requests are in the database
    /// and are sent again after the next welcome. Signals and inputs are dropped, because they are
    /// sent at most once.
    pub(super) fn defer(&mut self, command: ShimCommand) {
        let current = self.task.open_key();
        match command {
            // There is one at a time: the scheduler sends the next one after the end of this one.
            ShimCommand::Run(claim) => self.run = Some(claim),
            ShimCommand::Release => {
                if matches!(self.task, ShimTask::Ended(_)) {
                    // A shim that does not receive it reports the end again.
                    self.task = ShimTask::None;
                }
            }
            ShimCommand::Leave => self.dismissed = true,
            ShimCommand::Stop(key, request) if Some(key) == current => {
                self.defer_stop(key, request)
            }
            ShimCommand::Pause {
                key,
                pause,
                actor,
                done,
                ..
            } if Some(key) == current => {
                // The newest one counts; dropping the others answers them.
                self.pauses.clear();
                self.pauses.push(PendingPause { pause, actor, done });
            }
            ShimCommand::Input { key, done, .. }
                if current.is_none() && Some(key) == self.task.key() =>
            {
                let _ = done.send(InputAnswer::Closed);
            }
            ShimCommand::Stop(key, _)
            | ShimCommand::Pause { key, .. }
            | ShimCommand::Input { key, .. }
                if Some(key) == self.task.key() => {}
            ShimCommand::Signal { .. } | ShimCommand::LastSign { .. } => {}
            command => self.keep_early(command),
        }
    }

    /// On a full disk a stop request is not in the database. One is kept: a kill rather than a
    /// cancel.
    fn defer_stop(&mut self, key: AttemptId, request: StopRequest) {
        let kept = self.stop.take();
        let harder = kept.filter(|(of, kept)| *of == key && kept.cause == StopCause::Kill);
        self.stop = Some(harder.unwrap_or((key, request)));
    }

    /// Sends the commands that were deferred while the shim could not be reached.
    pub(super) async fn run_deferred(
        &mut self,
        connection: &mut ShimConnection,
    ) -> io::Result<Flow> {
        // If it cannot be sent, the next welcome tells that it never ran.
        if let Some(claim) = self.run.take() {
            self.on_command(connection, ShimCommand::Run(claim)).await?;
        }
        // A stop may be sent twice. It is kept until it was sent.
        if let Some((key, request)) = self.stop.clone() {
            if self.task.open_key() == Some(key) {
                self.on_command(connection, ShimCommand::Stop(key, request))
                    .await?;
            }
            self.stop = None;
        }
        if self.dismissed {
            return self.on_command(connection, ShimCommand::Leave).await;
        }
        Ok(Flow::Continue)
    }
}
