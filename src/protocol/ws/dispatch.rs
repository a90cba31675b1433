//! Executes a session's requests in the order in which they came, and those that may take long
//! beside the others.
//!
//! What a request does is the methods' business, what a reply looks like the envelope's.

use std::sync::Arc;

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    methods::{self, Method, Outcome},
    outbox::{Closed, Reply, Room},
    session::Session,
};
use crate::protocol::{
    jsonrpc::{
        envelope::{Id, Request},
        error::Refusal,
    },
    limits::{byte_gate::Weight, offload::Aside},
};

/// A request with its place among those in flight. Its parameters are text until it is their turn:
/// as values they can take many times as much memory.
#[derive(Debug)]
pub struct Work {
    /// The request.
    pub request: Request,
    /// What it asks for.
    pub method: Method,
    /// The place, until its reply is written.
    pub place: OwnedSemaphorePermit,
    /// Its message among the bytes that wait.
    pub weight: Weight,
}

/// A request whose turn it is.
struct Task {
    id: Id,
    method: Method,
    params: Map<String, Value>,
    place: OwnedSemaphorePermit,
    weight: Weight,
}

impl Task {
    async fn of(work: Work, aside: &Aside) -> Self {
        let Work {
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

    fn split(self) -> (Asker, Method, Map<String, Value>, Weight) {
        let asker = Asker {
            id: self.id,
            place: self.place,
        };
        (asker, self.method, self.params, self.weight)
    }
}

/// Submits are handed to the ledger together while their messages have less than this in all,
/// bytes: what is shown of a job is about as long as its NewJob, and waits in memory for its turn.
const TOGETHER_BYTES_MAX: usize = 256 << 10;

/// Executes requests in the order in which they came; those that may take long run beside.
///
/// Submits that follow each other share the ledger's commits: each is handed in before the next
/// one, so they take effect in order, and nothing else begins before they are answered.
pub async fn execute_in_order(session: Arc<Session>, mut taken: mpsc::Receiver<Work>) {
    let mut together = Together::new(&session);
    loop {
        let task = tokio::select! {
            biased;
            Some(done) = together.submits.next() => {
                together.answer(done).await;
                continue;
            }
            work = taken.recv() => match work {
                Some(work) => Task::of(work, &session.door.aside).await,
                None => break,
            },
        };
        if task.method.is_submit_alone(&task.params) {
            together.add(task).await;
            continue;
        }
        together.answer_all().await;
        if task.method.runs_beside(&task.params) {
            let session = session.clone();
            tokio::spawn(async move {
                let over = session.over.clone();
                over.run_until_cancelled(execute_beside(&session, task))
                    .await;
            });
        } else {
            execute(&session, task).await;
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
type Done = (Asker, Weight, Result<Outcome, Refusal>);

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
    async fn add(&mut self, task: Task) {
        while self.bytes + task.weight.bytes() > TOGETHER_BYTES_MAX
            && let Some(done) = self.submits.next().await
        {
            self.answer(done).await;
        }
        self.bytes += task.weight.bytes();
        let session = self.session;
        self.submits.push_back(Box::pin(async move {
            let (asker, method, params, weight) = task.split();
            let outcome = methods::execute(session, method, params).await;
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
async fn execute(session: &Session, task: Task) {
    let room = session.outbox.room().await;
    if session.over.is_cancelled() && task.method.only_tells() {
        return;
    }
    let _quiet = match task.method.wakes_tails() {
        true => Some(session.outbox.quiet().await),
        false => None,
    };
    let _making = match task.method.tells_much(&task.params) {
        true => session.door.hoard.making().await,
        false => None,
    };
    let (asker, method, params, _weight) = task.split();
    let outcome = methods::execute(session, method, params).await;
    send(session, room, asker, outcome);
}

fn send(
    session: &Session,
    room: Result<Room, Closed>,
    asker: Asker,
    outcome: Result<Outcome, Refusal>,
) {
    let (text, granted) = session.answer(&asker.id, outcome);
    if let Ok(room) = room {
        room.send(Reply {
            text,
            place: Some(asker.place),
        });
        if let Some(granted) = granted {
            session.tails.start(granted, session.outbox.clone());
        }
    }
}

/// What it looks for goes on counting among the bytes that wait.
async fn verify(session: &Session, task: Task) {
    let (asker, method, params, _weight) = task.split();
    let outcome = methods::execute(session, method, params).await;
    let room = session.outbox.room().await;
    send(session, room, asker, outcome);
}

async fn execute_beside(session: &Session, task: Task) {
    if task.method == Method::Verify {
        return verify(session, task).await;
    }
    // It may wait for days, and nothing of its message with it.
    let task = Task {
        weight: session.queued.add(0),
        ..task
    };
    if task.method == Method::Read {
        methods::read::until_there(session, &task.params).await;
        return execute(session, task).await;
    }
    let (asker, method, params, _) = task.split();
    if matches!(method, Method::Query | Method::Backup) {
        let outcome = methods::execute(session, method, params).await;
        let room = session.outbox.room().await;
        return send(session, room, asker, outcome);
    }
    let decision = methods::wait::until_decided(session, params).await;
    let room = session.outbox.room().await;
    let outcome = methods::wait::tell(session, decision).await;
    send(session, room, asker, outcome);
}
