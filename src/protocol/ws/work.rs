//! Executes a session's requests in the order in which they came, and those that may take long
//! beside the others.
//!
//! What a request does is the methods' business, what a reply looks like the envelope's.

use std::sync::Arc;

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    envelope::Request,
    methods::{self, Method, Outcome},
    outbox::{Closed, Reply},
    refusal::Refusal,
    session::Session,
};

/// A request with its place among those in flight.
#[derive(Debug)]
pub struct Work {
    /// The request.
    pub request: Request,
    /// What it asks for.
    pub method: Method,
    /// The place, until its reply is written.
    pub place: OwnedSemaphorePermit,
    /// Length of its message, bytes.
    pub bytes: usize,
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
        let work = tokio::select! {
            biased;
            Some(done) = together.submits.next() => {
                together.answer(done).await;
                continue;
            }
            work = taken.recv() => match work {
                Some(work) => work,
                None => break,
            },
        };
        if work.method.is_submit_alone(&work.request.params) {
            together.add(work).await;
            continue;
        }
        together.answer_all().await;
        if work.method.runs_beside(&work.request.params) {
            let session = session.clone();
            tokio::spawn(async move {
                let over = session.over.clone();
                over.run_until_cancelled(execute_beside(&session, work))
                    .await;
            });
        } else {
            execute(&session, work).await;
        }
    }
    together.answer_all().await;
}

/// A submit and what came of it.
type Done = (Work, Result<Outcome, Refusal>);

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
    async fn add(&mut self, work: Work) {
        while self.bytes + work.bytes > TOGETHER_BYTES_MAX
            && let Some(done) = self.submits.next().await
        {
            self.answer(done).await;
        }
        self.bytes += work.bytes;
        let session = self.session;
        self.submits.push_back(Box::pin(async move {
            let outcome = methods::execute(session, work.method, &work.request.params).await;
            (work, outcome)
        }));
    }

    async fn answer(&mut self, (work, outcome): Done) {
        self.bytes -= work.bytes;
        answer(self.session, work, outcome).await;
    }

    async fn answer_all(&mut self) {
        while let Some(done) = self.submits.next().await {
            self.answer(done).await;
        }
    }
}

/// Room for the reply first, so that a large one need not wait for it in memory. Where the client
/// has left, the request takes effect all the same.
async fn execute(session: &Session, work: Work) {
    let room = session.outbox.room().await;
    let outcome = methods::execute(session, work.method, &work.request.params).await;
    send(session, room, work, outcome);
}

async fn answer(session: &Session, work: Work, outcome: Result<Outcome, Refusal>) {
    let room = session.outbox.room().await;
    send(session, room, work, outcome);
}

fn send(session: &Session, room: Room<'_>, work: Work, outcome: Result<Outcome, Refusal>) {
    let (text, granted) = session.answer(&work.request, outcome);
    if let Ok(room) = room {
        room.send(Reply {
            text,
            place: Some(work.place),
        });
        if let Some(granted) = granted {
            session.tails.start(granted, session.outbox.clone());
        }
    }
}

/// Room for a reply, or nobody to read it.
type Room<'a> = Result<mpsc::Permit<'a, Reply>, Closed>;

async fn execute_beside(session: &Session, work: Work) {
    if work.method == Method::Read {
        methods::read::until_there(session, &work.request.params).await;
        return execute(session, work).await;
    }
    let outcome = methods::execute(session, work.method, &work.request.params).await;
    let (text, _) = session.answer(&work.request, outcome);
    // Nobody to answer: the session is over.
    let _ = session
        .outbox
        .reply(Reply {
            text,
            place: Some(work.place),
        })
        .await;
}
