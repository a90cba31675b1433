//! Executes a session's requests in the order in which they came, and those that may take long
//! beside the others.
//!
//! What a request does is the methods' business, what a reply looks like the envelope's.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    envelope::Request,
    methods::{self, Method},
    outbox::Reply,
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
}

/// Executes requests in the order in which they came; those that may take long run beside.
pub async fn execute_in_order(session: Arc<Session>, mut taken: mpsc::Receiver<Work>) {
    while let Some(work) = taken.recv().await {
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
}

/// Room for the reply first, so that a large one need not wait for it in memory. Where the client
/// has left, the request takes effect all the same.
async fn execute(session: &Session, work: Work) {
    let room = session.outbox.room().await;
    let outcome = methods::execute(session, work.method, &work.request.params).await;
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
