//! Executes a session's requests in the order in which they came; requests that may take long run beside
//! the others.

use std::{collections::VecDeque, pin::pin, sync::Arc};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    methods::{
        BatchedFuture, ConcurrentFuture, ConcurrentOutcome, Method, MethodFuture, Mode, Outcome,
        Parameters,
    },
    outbox::{PausedTails, QueuedReply, ReplyPermit, SessionClosed},
    session::Session,
    tails::Granted,
};
use crate::protocol::{
    ErrorKind,
    jsonrpc::{
        envelope::{self, Id, Request},
        error::Refusal,
    },
    limits::{byte_semaphore::BytePermit, memory_budget::LongReplyPermit, offload::ParserThread},
};

/// A request that waits to be executed. Its parameters stay text until then: as values they can take many
/// times as much memory.
#[derive(Debug)]
pub struct QueuedRequest {
    /// The request as it was read.
    pub request: Request,
    /// The method that it names.
    pub method: &'static Method,
    /// Its permit among the requests in flight, held until the reply is written.
    pub in_flight: OwnedSemaphorePermit,
    /// Counts its message among the bytes that wait to be executed.
    pub bytes: BytePermit,
}

/// A request that is executed next, with its parameters as values.
struct ReadyRequest {
    id: Id,
    method: &'static Method,
    params: Parameters,
    in_flight: OwnedSemaphorePermit,
    bytes: BytePermit,
}

impl ReadyRequest {
    async fn of(work: QueuedRequest, parser: &ParserThread) -> Self {
        let QueuedRequest {
            request,
            method,
            in_flight,
            bytes,
        } = work;
        let read = move || (request.params(), request.id);
        let (params, id) = parser.run(bytes.bytes(), read).await;
        Self {
            id,
            method,
            params,
            in_flight,
            bytes,
        }
    }

    fn split(self) -> (ReplyTo, Parameters, BytePermit) {
        let reply_to = ReplyTo {
            id: self.id,
            method: self.method.name.wire,
            in_flight: self.in_flight,
        };
        (reply_to, self.params, self.bytes)
    }
}

/// Submits are in the store at the same time while their messages have less than this in all, bytes. The
/// view of a job is about as long as its NewJob, and waits in memory to be sent.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// An ordered method.
type Run = for<'a> fn(&'a Session, Parameters) -> MethodFuture<'a>;
/// A batched method.
type RunBatched = for<'a> fn(&'a Session, Parameters) -> BatchedFuture<'a>;
/// A concurrent method.
type RunConcurrent = for<'a> fn(&'a Session, Parameters) -> ConcurrentFuture<'a>;

/// Executes requests in the order in which they came; those that may take long run beside the others.
///
/// Submits that follow each other share the store's commits. Each is handed to the store before the next
/// one, so they take effect in order; any other request begins only after they are answered.
pub async fn execute_in_order(session: Arc<Session>, mut requests: mpsc::Receiver<QueuedRequest>) {
    let mut batch = SubmitBatch::new(&session);
    loop {
        let task = tokio::select! {
            biased;
            Some(done) = batch.next() => {
                batch.answer(done).await;
                continue;
            }
            work = requests.recv() => match work {
                Some(work) => {
                    let parser = &session.caller.server.parser;
                    batch.beside(ReadyRequest::of(work, parser)).await
                }
                None => break,
            },
        };
        if let Err(refusal) = batch.beside(judge(&session, &task)).await {
            batch.answer_all().await;
            let permit = session.outbox.reply_permit().await;
            let (reply_to, _, _bytes) = task.split();
            send(&session, permit, reply_to, Err(refusal));
            continue;
        }
        match (task.method.mode)(&task.params) {
            Mode::Batched(run) => batch.add(task, run).await,
            Mode::Ordered(run) => {
                batch.answer_all().await;
                execute(&session, task, run).await;
            }
            Mode::Concurrent(run) => {
                batch.answer_all().await;
                let session = session.clone();
                tokio::spawn(async move {
                    let over = session.over.clone();
                    over.run_until_cancelled(execute_concurrently(&session, task, run))
                        .await;
                });
            }
        }
    }
    batch.answer_all().await;
}

/// Refuses a request whose client's token is worth nothing any more, or does not reach what it names.
async fn judge(session: &Session, task: &ReadyRequest) -> Result<(), Refusal> {
    let caller = &session.caller;
    if !caller.server.tokens.is_valid(&caller.principal()) {
        let message = "the token was revoked or replaced, or has expired";
        return Err(Refusal::new(ErrorKind::Unauthenticated, message));
    }
    let narrowing = task.method.name.narrowing;
    narrowing.check(caller, &task.params).await
}

/// The request that a reply answers.
struct ReplyTo {
    id: Id,
    /// The name of the method.
    method: &'static str,
    in_flight: OwnedSemaphorePermit,
}

/// A submit that is done, and its result.
type SubmitResult = (ReplyTo, BytePermit, Result<Outcome, Refusal>);

/// Submits that the store works on, in the order in which they came.
///
/// They are polled whatever else is awaited meanwhile, such as a client that does not read: a submit may
/// have one of the few connections to the database, and would keep it from everybody.
struct SubmitBatch<'a> {
    session: &'a Session,
    submits: FuturesOrdered<BoxFuture<'a, SubmitResult>>,
    /// Those that are done and come before all `submits`.
    done: VecDeque<SubmitResult>,
    bytes: usize,
}

impl<'a> SubmitBatch<'a> {
    fn new(session: &'a Session) -> Self {
        Self {
            session,
            submits: FuturesOrdered::new(),
            done: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Hands one more submit to the store; first waits for earlier ones if they have too many bytes.
    async fn add(&mut self, task: ReadyRequest, run: RunBatched) {
        while self.bytes + task.bytes.bytes() > BATCH_BYTES_MAX
            && let Some(done) = self.next().await
        {
            self.answer(done).await;
        }
        self.bytes += task.bytes.bytes();
        let (reply_to, params, bytes) = task.split();
        let session = self.session;
        let begun = self.beside(run(session, params)).await;
        self.submits.push_back(Box::pin(async move {
            let outcome = match begun {
                Ok(rest) => rest.await,
                Err(refusal) => Err(refusal),
            };
            (reply_to, bytes, outcome)
        }));
    }

    /// The next one that is done, in order; `None`: there are none. It is safe to drop the future.
    async fn next(&mut self) -> Option<SubmitResult> {
        match self.done.pop_front() {
            Some(done) => Some(done),
            None => self.submits.next().await,
        }
    }

    /// Waits for something else, and lets the submits go on meanwhile.
    async fn beside<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        loop {
            tokio::select! {
                biased;
                value = &mut what => return value,
                Some(done) = self.submits.next() => self.done.push_back(done),
            }
        }
    }

    async fn answer(&mut self, (reply_to, bytes, outcome): SubmitResult) {
        let session = self.session;
        let permit = self.beside(session.outbox.reply_permit()).await;
        self.bytes -= bytes.bytes();
        send(session, permit, reply_to, outcome);
    }

    async fn answer_all(&mut self) {
        while let Some(done) = self.next().await {
            self.answer(done).await;
        }
    }
}

/// Waits for the reply's permit first, so that a large reply does not wait in memory. If the client has
/// left, a request that changes something is executed all the same.
async fn execute(session: &Session, task: ReadyRequest, run: Run) {
    let _answering = session.answering().await;
    let permit = session.outbox.reply_permit().await;
    if session.over.is_cancelled() && task.method.read_only {
        return;
    }
    let paused = (task.method.wakes_tails)(&task.params);
    let pause = || session.outbox.pause_notifications(paused);
    let _pause = (paused != PausedTails::None).then(pause);
    let is_long = (task.method.long_reply)(&task.params);
    let _long_reply = long_reply_permit(session, is_long).await;
    let read_only = task.method.read_only;
    let (reply_to, params, _bytes) = task.split();
    let outcome = match read_only {
        // Once the client has left, its reply is of no use.
        true => session.over.run_until_cancelled(run(session, params)).await,
        false => Some(run(session, params).await),
    };
    if let Some(outcome) = outcome {
        send(session, permit, reply_to, outcome);
    }
}

/// The permit to make a reply that may be long; other replies need none.
async fn long_reply_permit(session: &Session, is_long: bool) -> Option<LongReplyPermit<'_>> {
    match is_long {
        true => {
            session
                .caller
                .server
                .memory_budget
                .long_reply_permit()
                .await
        }
        false => None,
    }
}

fn send(
    session: &Session,
    permit: Result<ReplyPermit, SessionClosed>,
    reply_to: ReplyTo,
    outcome: Result<Outcome, Refusal>,
) {
    if let Err(refusal) = &outcome {
        session.caller.count_refusal(reply_to.method, refusal);
    }
    let (text, granted) = session.reply(&reply_to.id, outcome);
    if let Ok(permit) = permit {
        permit.send(QueuedReply {
            text,
            in_flight: Some(reply_to.in_flight),
        });
        if let Some(granted) = granted {
            session.tails.start(granted, session.outbox.clone());
        }
    }
}

/// Executes a request beside the session's others. A deferred reply is made only after its permit is
/// there.
async fn execute_concurrently(session: &Session, mut task: ReadyRequest, run: RunConcurrent) {
    if !task.method.keeps_parameters {
        // A `job.wait` may take days: its message no longer counts.
        task.bytes = session.queued.add(0);
    }
    let is_long = (task.method.long_reply)(&task.params);
    let (reply_to, params, _bytes) = task.split();
    let late = run(session, params).await;
    let permit = session.outbox.reply_permit().await;
    let outcome = match late {
        Ok(ConcurrentOutcome::Ready(result)) => Ok(result.into()),
        Ok(ConcurrentOutcome::Deferred(_)) if session.over.is_cancelled() => return,
        Ok(ConcurrentOutcome::Deferred(reply)) => {
            let _long_reply = long_reply_permit(session, is_long).await;
            reply.await
        }
        Err(refusal) => Err(refusal),
    };
    send(session, permit, reply_to, outcome);
}

impl Session {
    /// The reply as JSON, never longer than a message may be, and the tail that begins after it.
    fn reply(&self, id: &Id, outcome: Result<Outcome, Refusal>) -> (String, Option<Granted>) {
        let (result, granted) = match outcome {
            Ok(outcome) => (Ok(outcome.result), outcome.granted),
            Err(refusal) => (Err(refusal), None),
        };
        let mut text = envelope::reply(id, result.as_deref());
        // A growing string doubles its capacity, and the reply may wait.
        text.shrink_to_fit();
        self.rate_limiter.charge_reply(text.len());
        if text.len() <= self.caller.server.settings.message_len_max() {
            return (text, granted);
        }
        let message = "the reply would be longer than a message may be; ask for less";
        let refusal = Refusal::limit("message_bytes_max", message);
        (envelope::error(Some(id), &refusal), None)
    }
}
