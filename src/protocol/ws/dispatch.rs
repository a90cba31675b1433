//! Executes a session's requests in the order in which they came, and those that may take long
//! beside the others.
//!
//! What a request does is the methods' business, what a reply looks like the envelope's.

use std::sync::Arc;

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    methods::{Late, LateFuture, Method, MethodFuture, Mode, Outcome, Parameters},
    outbox::{QueuedReply, ReplyPermit, SessionClosed},
    session::Session,
    tails::Granted,
};
use crate::protocol::{
    jsonrpc::{
        envelope::{self, Id, Request},
        error::Refusal,
    },
    limits::{byte_gate::BytePermit, offload::ParserThread},
};

/// A request with its place among those in flight. Its parameters are text until it is their turn:
/// as values they can take many times as much memory.
#[derive(Debug)]
pub struct QueuedRequest {
    /// The request.
    pub request: Request,
    /// What it asks for.
    pub method: &'static Method,
    /// The place, until its reply is written.
    pub place: OwnedSemaphorePermit,
    /// Its message among the bytes that wait.
    pub weight: BytePermit,
}

/// A request whose turn it is.
struct ReadyRequest {
    id: Id,
    method: &'static Method,
    params: Parameters,
    place: OwnedSemaphorePermit,
    weight: BytePermit,
}

impl ReadyRequest {
    async fn of(work: QueuedRequest, aside: &ParserThread) -> Self {
        let QueuedRequest {
            request,
            method,
            place,
            weight,
        } = work;
        let read = move || (request.params(), request.id);
        let (params, id) = aside.run(weight.bytes(), read).await;
        Self {
            id,
            method,
            params,
            place,
            weight,
        }
    }

    fn split(self) -> (Asker, Parameters, BytePermit) {
        let asker = Asker {
            id: self.id,
            place: self.place,
        };
        (asker, self.params, self.weight)
    }
}

/// Submits are handed to the ledger together while their messages have less than this in all,
/// bytes: what is shown of a job is about as long as its NewJob, and waits in memory for its turn.
const TOGETHER_BYTES_MAX: usize = 256 << 10;

/// An ordered or batched method.
type Run = for<'a> fn(&'a Session, Parameters) -> MethodFuture<'a>;
/// A concurrent one.
type RunLate = for<'a> fn(&'a Session, Parameters) -> LateFuture<'a>;

/// Executes requests in the order in which they came; those that may take long run beside.
///
/// Submits that follow each other share the ledger's commits: each is handed in before the next
/// one, so they take effect in order, and nothing else begins before they are answered.
pub async fn execute_in_order(session: Arc<Session>, mut taken: mpsc::Receiver<QueuedRequest>) {
    let mut together = Together::new(&session);
    loop {
        let task = tokio::select! {
            biased;
            Some(done) = together.submits.next() => {
                together.answer(done).await;
                continue;
            }
            work = taken.recv() => match work {
                Some(work) => ReadyRequest::of(work, &session.caller.server.aside).await,
                None => break,
            },
        };
        match (task.method.mode)(&task.params) {
            Mode::Batched(run) => together.add(task, run).await,
            Mode::Ordered(run) => {
                together.answer_all().await;
                execute(&session, task, run).await;
            }
            Mode::Concurrent(run) => {
                together.answer_all().await;
                let session = session.clone();
                tokio::spawn(async move {
                    let over = session.over.clone();
                    over.run_until_cancelled(execute_concurrently(&session, task, run))
                        .await;
                });
            }
        }
    }
    together.answer_all().await;
}

/// Whom to answer.
struct Asker {
    id: Id,
    place: OwnedSemaphorePermit,
}

/// A submit and what came of it.
type Done = (Asker, BytePermit, Result<Outcome, Refusal>);

/// Submits that are on their way into the ledger, in the order in which they came.
struct Together<'a> {
    session: &'a Session,
    submits: FuturesOrdered<BoxFuture<'a, Done>>,
    bytes: usize,
}

impl<'a> Together<'a> {
    fn new(session: &'a Session) -> Self {
        Self {
            session,
            submits: FuturesOrdered::new(),
            bytes: 0,
        }
    }

    /// Hands one more in, behind those before it.
    async fn add(&mut self, task: ReadyRequest, run: Run) {
        while self.bytes + task.weight.bytes() > TOGETHER_BYTES_MAX
            && let Some(done) = self.submits.next().await
        {
            self.answer(done).await;
        }
        self.bytes += task.weight.bytes();
        let session = self.session;
        self.submits.push_back(Box::pin(async move {
            let (asker, params, weight) = task.split();
            let outcome = run(session, params).await;
            (asker, weight, outcome)
        }));
    }

    async fn answer(&mut self, (asker, weight, outcome): Done) {
        self.bytes -= weight.bytes();
        let room = self.session.outbox.room().await;
        send(self.session, room, asker, outcome);
    }

    async fn answer_all(&mut self) {
        while let Some(done) = self.submits.next().await {
            self.answer(done).await;
        }
    }
}

/// Room for the reply first, so that a large one need not wait for it in memory. Where the client
/// has left, the request takes effect all the same, if it has any.
async fn execute(session: &Session, task: ReadyRequest, run: Run) {
    let room = session.outbox.room().await;
    if session.over.is_cancelled() && task.method.only_tells {
        return;
    }
    let _quiet = match task.method.wakes_tails {
        true => Some(session.outbox.quiet().await),
        false => None,
    };
    let _making = match (task.method.long_reply)(&task.params) {
        true => session.caller.server.hoard.making().await,
        false => None,
    };
    let (asker, params, _weight) = task.split();
    let outcome = run(session, params).await;
    send(session, room, asker, outcome);
}

fn send(
    session: &Session,
    room: Result<ReplyPermit, SessionClosed>,
    asker: Asker,
    outcome: Result<Outcome, Refusal>,
) {
    let (text, granted) = session.reply(&asker.id, outcome);
    if let Ok(room) = room {
        room.send(QueuedReply {
            text,
            place: Some(asker.place),
        });
        if let Some(granted) = granted {
            session.tails.start(granted, session.outbox.clone());
        }
    }
}

/// Executes a request beside the session's others. What it has waited for is read once there is room
/// for the reply.
async fn execute_concurrently(session: &Session, mut task: ReadyRequest, run: RunLate) {
    if !task.method.keeps_parameters {
        // It may wait for days, and nothing of its message with it.
        task.weight = session.queued.add(0);
    }
    let is_long = (task.method.long_reply)(&task.params);
    let (asker, params, _weight) = task.split();
    let late = run(session, params).await;
    let room = session.outbox.room().await;
    let outcome = match late {
        Ok(Late::Outcome(outcome)) => Ok(outcome),
        Ok(Late::Reply(_)) if session.over.is_cancelled() => return,
        Ok(Late::Reply(reply)) => {
            let _making = match is_long {
                true => session.caller.server.hoard.making().await,
                false => None,
            };
            reply.await
        }
        Err(refusal) => Err(refusal),
    };
    send(session, room, asker, outcome);
}

impl Session {
    /// The reply, never longer than a message may be, and the tail that begins after it.
    fn reply(&self, id: &Id, outcome: Result<Outcome, Refusal>) -> (String, Option<Granted>) {
        let (result, granted) = match outcome {
            Ok(outcome) => (Ok(outcome.result), outcome.granted),
            Err(refusal) => (Err(refusal), None),
        };
        let mut text = envelope::reply(id, result.as_deref());
        // It was written into room that doubles, and may wait.
        text.shrink_to_fit();
        self.pace.answered(text.len());
        if text.len() <= self.caller.server.settings.message_len_max() {
            return (text, granted);
        }
        let message = "the reply would be longer than a message may be; ask for less";
        let refusal = Refusal::limit("message_bytes_max", message);
        (envelope::error(Some(id), &refusal), None)
    }
}
