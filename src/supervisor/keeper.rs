//! One task per shim: it passes orders on, watches the attempt that the shim runs, and settles it
//! when it ends. When the connection breaks it finds out whether the shim still lives.
//!
//! What runs next, and what becomes of an attempt whose shim is dead, is the scheduler's business.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use super::{
    Context, ShimEvent,
    connection::Connection,
    probe::{self, Reached, Welcome},
    registry::{Order, Registry},
    settle::{Ending, settle},
    spawn, spec,
    ward::{Key, Ward},
};
use crate::{
    clock,
    job::{ExitFacts, Micros},
    output::{Digest, Hasher, log::blocking},
    spool::{FromShim, ShimState, ToShim},
    store::{Fenced, Offer, OpenAttempt, Started},
};

/// Between two attempts to reach a shim that lives and does not answer.
const KNOCK_EVERY: Duration = Duration::from_secs(1);

/// Between two attempts to settle or to commit what could not be.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Starts the keeper of a shim that answers, or that lives without answering.
pub fn keep(
    ctx: Arc<Context>,
    registry: Registry,
    events: mpsc::UnboundedSender<ShimEvent>,
    shim: String,
    reached: Reached,
    open: Option<OpenAttempt>,
) {
    let orders = registry.enter(&shim);
    let stopping = ctx.stopping.clone();
    let keeper = Keeper {
        offer: Offer {
            shim,
            version: String::new(),
        },
        ctx,
        registry,
        events,
        orders,
        early: VecDeque::new(),
        task: Task::None,
        pauses: Vec::new(),
    };
    tokio::spawn(async move {
        stopping
            .run_until_cancelled(keeper.run(reached, open))
            .await;
    });
}

/// What the shim was given.
#[derive(Debug)]
enum Task {
    /// Nothing.
    None,
    /// An attempt that has not ended.
    Attempt(Box<Watched>),
    /// An attempt whose end is on its way into the ledger.
    Ended(Key),
}

/// An attempt that is being watched.
#[derive(Debug)]
struct Watched {
    ward: Ward,
    /// Runs once the first segment is sealed; holds the digest then.
    hasher: Option<Hasher>,
}

struct PauseAsked {
    pause: bool,
    actor: String,
    done: oneshot::Sender<()>,
}

struct Keeper {
    ctx: Arc<Context>,
    registry: Registry,
    events: mpsc::UnboundedSender<ShimEvent>,
    offer: Offer,
    orders: mpsc::UnboundedReceiver<Order>,
    /// Orders about an attempt that this shim has not been given yet.
    early: VecDeque<Order>,
    task: Task,
    pauses: Vec<PauseAsked>,
}

/// Whether the keeper goes on.
enum Flow {
    Continue,
    /// The shim was sent away.
    Left,
}

impl Keeper {
    async fn run(mut self, mut reached: Reached, mut open: Option<OpenAttempt>) {
        loop {
            match reached {
                Reached::Answers(connection, welcome) => {
                    match self.serve(*connection, welcome, open.take()).await {
                        Ok(Flow::Left) => break,
                        Ok(Flow::Continue) => {}
                        Err(error) => {
                            tracing::info!(shim = self.offer.shim, %error, "a shim's connection broke");
                        }
                    }
                }
                Reached::Held => {
                    tracing::warn!(
                        shim = self.offer.shim,
                        "a shim lives and does not answer; its job is left as it is"
                    );
                    if let (Task::None, Some(open)) = (&self.task, &open) {
                        self.task = Task::watching(open);
                    }
                    tokio::time::sleep(KNOCK_EVERY).await;
                }
                Reached::Free => {
                    self.dead().await;
                    break;
                }
            }
            reached = probe::reach(&self.ctx, &self.offer.shim).await;
            open = self.open_attempt().await;
        }
        self.registry.remove(&self.offer.shim);
        // What was ordered in the last moment is not lost either.
        self.orders.close();
        while let Some(order) = self.orders.recv().await {
            if let Order::Run(claim) = order {
                self.tell(ShimEvent::Dead {
                    shim: self.offer.shim.clone(),
                    attempt: Some(Key::of_claim(&claim)),
                });
            }
        }
    }

    /// The ledger's row of the attempt that this shim was given, if it is still open.
    async fn open_attempt(&self) -> Option<OpenAttempt> {
        let key = self.task.key()?;
        let open = self.ctx.store.open_attempts().await.ok()?;
        open.into_iter().find(|open| Key::of_open(open) == key)
    }

    async fn dead(&mut self) {
        spawn::remove_traces(&self.ctx.layout, &self.offer.shim);
        let attempt = match &self.task {
            // Its end is on its way into the ledger already.
            Task::None | Task::Ended(_) => None,
            Task::Attempt(watched) => Some(watched.ward.key),
        };
        if let Some(key) = attempt {
            self.registry.detach(key.job);
        }
        self.tell(ShimEvent::Dead {
            shim: self.offer.shim.clone(),
            attempt,
        });
    }

    fn tell(&self, event: ShimEvent) {
        // The scheduler outlives the keepers, except in a stop, when nobody needs to know.
        let _ = self.events.send(event);
    }

    /// Serves one connection until it breaks or the shim is sent away.
    async fn serve(
        &mut self,
        mut connection: Connection,
        welcome: Welcome,
        open: Option<OpenAttempt>,
    ) -> io::Result<Flow> {
        self.offer.version = welcome.version;
        self.reconcile(&mut connection, welcome.state, open).await?;
        loop {
            tokio::select! {
                message = connection.receive() => {
                    self.hear(&mut connection, message?).await?;
                }
                Some(order) = self.orders.recv() => {
                    if let Flow::Left = self.obey(&mut connection, order).await? {
                        return Ok(Flow::Left);
                    }
                }
            }
        }
    }

    /// Brings what the ledger says and what the shim says together. The shim is believed.
    async fn reconcile(
        &mut self,
        connection: &mut Connection,
        state: ShimState,
        open: Option<OpenAttempt>,
    ) -> io::Result<()> {
        if let (Task::None, Some(open)) = (&self.task, &open) {
            self.task = Task::watching(open);
        }
        match (state, self.task.open_key()) {
            (
                ShimState::Running {
                    job,
                    attempt,
                    started_at_us,
                    ..
                },
                Some(key),
            ) if key == (Key { job, attempt }) => {
                self.adopt(connection, key, started_at_us, open).await
            }
            (
                ShimState::Exited {
                    job,
                    attempt,
                    facts,
                    synced,
                },
                Some(key),
            ) if key == (Key { job, attempt }) => {
                self.ended(*facts, synced, true).await;
                Ok(())
            }
            (ShimState::Exited { job, attempt, .. }, None) => {
                // Committed by an earlier server that could not say so any more; or its end is on
                // its way, and the acknowledgement will follow.
                if !matches!(self.task, Task::Ended(_)) {
                    connection.send(&ToShim::Release { job, attempt }).await?;
                    self.idle();
                }
                Ok(())
            }
            (ShimState::Idle, expected) => {
                if let Some(key) = expected {
                    self.registry.detach(key.job);
                    self.tell(ShimEvent::NeverRan(key));
                }
                self.idle();
                Ok(())
            }
            (ShimState::Retired, None) => Ok(()),
            (state, expected) => {
                tracing::error!(
                    shim = self.offer.shim,
                    ?state,
                    ?expected,
                    "a shim does something else than the ledger says"
                );
                Ok(())
            }
        }
    }

    fn idle(&mut self) {
        self.task = Task::None;
        self.tell(ShimEvent::Idle(self.offer.clone()));
    }

    /// Goes on with a running attempt: wishes are sent again, readers are woken.
    async fn adopt(
        &mut self,
        connection: &mut Connection,
        key: Key,
        started_at_us: i64,
        open: Option<OpenAttempt>,
    ) -> io::Result<()> {
        tracing::info!(
            job = key.job,
            attempt = key.attempt,
            shim = self.offer.shim,
            "adopted a running job"
        );
        self.registry.attach(key.job, &self.offer.shim);
        if let Some(open) = &open {
            if open.started_at.is_none() {
                let started = Started {
                    number: key.job,
                    attempt: key.attempt,
                    pid: open.pid.unwrap_or_default(),
                    start_ticks: open.start_ticks.unwrap_or_default(),
                    at: Micros(started_at_us),
                };
                self.commit_start(started);
            }
            if let Some(wish) = &open.stop {
                connection.send(&ToShim::Stop(wish.clone())).await?;
            }
            let pause = if open.pause {
                ToShim::Pause
            } else {
                ToShim::Resume
            };
            connection.send(&pause).await?;
        }
        connection.send(&ToShim::Arm { offset: 0 }).await?;
        if let Some(watched) = self.task.watched() {
            watched.hasher(&self.ctx).sealed();
        }
        self.ctx.hub.grew(key.job);
        Ok(())
    }

    /// Takes what the shim says.
    async fn hear(&mut self, connection: &mut Connection, message: FromShim) -> io::Result<()> {
        match message {
            FromShim::Started {
                job,
                attempt,
                pid,
                start_ticks,
                started_at_us,
            } => {
                let started = Started {
                    number: job,
                    attempt,
                    pid,
                    start_ticks,
                    at: Micros(started_at_us),
                };
                self.commit_start(started);
            }
            FromShim::Grew { .. } => {
                if let Some(key) = self.task.key() {
                    self.ctx.hub.grew(key.job);
                }
            }
            FromShim::Sealed { .. } => {
                if let Some(watched) = self.task.watched() {
                    watched.hasher(&self.ctx).sealed();
                }
            }
            FromShim::Paused => self.commit_pause(true).await,
            FromShim::Resumed => self.commit_pause(false).await,
            FromShim::Exited {
                facts,
                synced,
                reusable,
                ..
            } => {
                self.ended(*facts, synced, reusable).await;
            }
            FromShim::Refused { job, attempt, why } => {
                tracing::error!(job, attempt, why, "a shim refused an attempt");
                self.registry.detach(job);
                self.tell(ShimEvent::NeverRan(Key { job, attempt }));
                self.idle();
            }
            FromShim::Waiting { waiting, why } => {
                let job = self.task.key().map(|key| key.job);
                tracing::warn!(job, waiting, why, "a job waits for room on the disk");
            }
            FromShim::Trouble { message } => {
                let job = self.task.key().map(|key| key.job);
                tracing::error!(job, message, "a shim is in trouble");
            }
            FromShim::Stopping(wish) => {
                let job = self.task.key().map(|key| key.job);
                tracing::debug!(
                    job,
                    cause = wish.cause.name(),
                    "an attempt is being stopped"
                );
            }
            FromShim::Welcome { .. } | FromShim::Stale { .. } => {
                let _ = connection;
            }
        }
        Ok(())
    }

    /// Does what the server wants.
    async fn obey(&mut self, connection: &mut Connection, order: Order) -> io::Result<Flow> {
        match order {
            Order::Run(claim) => {
                let key = Key::of_claim(&claim);
                let Some(ward) = Ward::of_claim(&claim) else {
                    tracing::error!(job = key.job, "the digest's state is unreadable");
                    return Ok(Flow::Continue);
                };
                self.task = Task::Attempt(Box::new(Watched { ward, hasher: None }));
                self.pauses.clear();
                self.registry.attach(key.job, &self.offer.shim);
                let spec = spec::run_spec(&claim, &self.ctx.bounds);
                connection.send(&ToShim::Run(Box::new(spec))).await?;
                connection
                    .send(&ToShim::Arm {
                        offset: claim.start_offset,
                    })
                    .await?;
                self.ctx.hub.changed(key.job);
                for early in std::mem::take(&mut self.early) {
                    Box::pin(self.obey_about(connection, early)).await?;
                }
            }
            Order::Release => {
                if let Task::Ended(Key { job, attempt }) = self.task {
                    connection.send(&ToShim::Release { job, attempt }).await?;
                    self.task = Task::None;
                }
            }
            Order::Leave => {
                connection.send(&ToShim::Leave).await?;
                return Ok(Flow::Left);
            }
            order => self.obey_about(connection, order).await?,
        }
        Ok(Flow::Continue)
    }

    /// Passes on what concerns one attempt, or keeps it until the shim is given that attempt.
    async fn obey_about(&mut self, connection: &mut Connection, order: Order) -> io::Result<()> {
        let current = self.task.key();
        match order {
            Order::Stop(key, _) | Order::Pause { key, .. } if Some(key) != current => {
                self.early.push_back(order);
                // Only what is in flight between a claim and its run can be early.
                self.early.truncate(EARLY_MAX);
            }
            Order::Stop(_, wish) => connection.send(&ToShim::Stop(wish)).await?,
            Order::Pause {
                pause, actor, done, ..
            } => {
                self.pauses.push(PauseAsked { pause, actor, done });
                let message = if pause { ToShim::Pause } else { ToShim::Resume };
                connection.send(&message).await?;
            }
            Order::Arm(offset) => connection.send(&ToShim::Arm { offset }).await?,
            Order::Signal { signal, done } => {
                connection.send(&ToShim::Signal { signal }).await?;
                let _ = done.send(());
            }
            Order::Run(_) | Order::Release | Order::Leave => {}
        }
        Ok(())
    }

    /// Enters the start; nobody waits for it.
    fn commit_start(&self, started: Started) {
        let (store, hub) = (self.ctx.store.clone(), self.ctx.hub.clone());
        tokio::spawn(async move {
            let number = started.number;
            match store.started(started).await {
                Ok(Fenced::Done) => hub.changed(number),
                Ok(Fenced::Stale) => {}
                Err(error) => tracing::warn!(job = number, %error, "a start could not be entered"),
            }
        });
    }

    /// Enters that the tree was stopped, or goes on, and answers who asked for it.
    async fn commit_pause(&mut self, paused: bool) {
        let Some(Key { job, attempt }) = self.task.key() else {
            return;
        };
        let (asked, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pauses)
            .into_iter()
            .partition(|asked| asked.pause == paused);
        self.pauses = others;
        let actor = asked
            .last()
            .map_or_else(|| "shim".to_owned(), |asked| asked.actor.clone());
        let store = &self.ctx.store;
        let entered = if paused {
            store.paused(job, attempt, actor, clock::now()).await
        } else {
            store.resumed(job, attempt, actor, clock::now()).await
        };
        match entered {
            Ok(Fenced::Done) => self.ctx.hub.changed(job),
            Ok(Fenced::Stale) => {}
            Err(error) => tracing::warn!(job, %error, "a pause could not be entered"),
        }
        for asked in asked {
            let _ = asked.done.send(());
        }
    }

    /// Settles the attempt and hands it to the scheduler, which commits it.
    async fn ended(&mut self, facts: ExitFacts, synced: bool, reusable: bool) {
        let task = std::mem::replace(&mut self.task, Task::None);
        let Task::Attempt(watched) = task else {
            tracing::error!(
                shim = self.offer.shim,
                "a shim ended an attempt that it was not given"
            );
            return;
        };
        let key = watched.ward.key;
        self.registry.detach(key.job);
        self.pauses.clear();
        self.task = Task::Ended(key);
        let ward = watched.into_ward().await;
        let ending = Ending::Known {
            facts: Box::new(facts),
            synced,
        };
        let settled = loop {
            let (spool, inline) = (self.ctx.layout.spool(), self.ctx.bounds.inline_bytes_max);
            let (ward, ending) = (ward.clone(), ending.clone());
            match blocking(move || settle(&spool, inline, ward, ending)).await {
                Ok(settled) => break settled,
                Err(error) => {
                    tracing::error!(job = key.job, %error, "an ended job's output cannot be read; trying again");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        };
        self.tell(ShimEvent::Ended {
            settled: Box::new(settled),
            shim: self.offer.shim.clone(),
            offer: reusable.then(|| self.offer.clone()),
        });
    }
}

/// Most orders that are kept for an attempt that the shim has not been given yet.
const EARLY_MAX: usize = 64;

impl Task {
    fn watching(open: &OpenAttempt) -> Self {
        match Ward::of_open(open) {
            Some(ward) => Self::Attempt(Box::new(Watched { ward, hasher: None })),
            None => {
                tracing::error!(job = open.number, "the digest's state is unreadable");
                Self::None
            }
        }
    }

    /// The attempt that the shim was last given.
    fn key(&self) -> Option<Key> {
        match self {
            Self::None => None,
            Self::Attempt(watched) => Some(watched.ward.key),
            Self::Ended(key) => Some(*key),
        }
    }

    /// The attempt that the shim was given and that has not ended.
    fn open_key(&self) -> Option<Key> {
        match self {
            Self::Attempt(watched) => Some(watched.ward.key),
            Self::None | Self::Ended(_) => None,
        }
    }

    fn watched(&mut self) -> Option<&mut Watched> {
        match self {
            Self::Attempt(watched) => Some(watched),
            Self::None | Self::Ended(_) => None,
        }
    }
}

impl Watched {
    fn hasher(&mut self, ctx: &Context) -> &Hasher {
        let Key { job, attempt } = self.ward.key;
        let digest: &Digest = &self.ward.digest;
        self.hasher.get_or_insert_with(|| {
            let spool = ctx.layout.spool();
            Hasher::start(ctx.store.clone(), spool, job, attempt, digest.clone())
        })
    }

    /// The ward with the digest as far as it came.
    async fn into_ward(self) -> Ward {
        let mut ward = self.ward;
        if let Some(hasher) = self.hasher {
            if let Some(digest) = hasher.finish().await {
                ward.digest = digest;
            }
        }
        ward
    }
}
