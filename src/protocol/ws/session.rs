//! What a session is made of, and how it takes a request: authentication, bounds, replies.
//!
//! Its tasks and its end are `life`'s business, execution is `work`'s.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use serde_json::{json, value::RawValue};
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::{
    dispatch::Work,
    methods::{self, Method},
    outbox::{Closed, Outbox, Reply},
    tails::{Granted, Tails},
};
use crate::{
    executor::Share as Turns,
    protocol::{
        Door, Kind, Reason, Seat,
        encode::notifications::notification,
        jsonrpc::{
            envelope::{self, Id, Incoming, Request, to_raw},
            error::Refusal,
        },
        limits::{buffered::Pile, byte_gate::Load, memory_budget::Share, rate_limit::Pace},
        listener::Connection,
    },
};

/// What the requests of a session share.
#[derive(Debug)]
pub struct Session {
    /// The server.
    pub door: Arc<Door>,
    /// Names the session.
    pub id: String,
    /// Its tails.
    pub tails: Tails,
    /// Where its messages are handed in.
    pub outbox: Outbox,
    /// Its requests that wait to be executed.
    pub queued: Load,
    /// What it makes us hold.
    pub share: Arc<Share>,
    /// How fast it may ask.
    pub pace: Pace,
    /// Who is at the other end, and its place.
    pub connection: Arc<Connection>,
    /// Its share of what keeps processors busy.
    pub turns: Turns,
    authenticated: Arc<AtomicBool>,
    seat: Seat,
    in_flight: Arc<Semaphore>,
    heard_at: Mutex<Instant>,
    /// Set when it ends, and by whoever finds that it cannot go on.
    pub over: CancellationToken,
}

impl Session {
    /// A session that has just begun; it sets `authenticated` when it has been shown the token.
    pub fn new(
        door: Arc<Door>,
        seat: Seat,
        connection: Arc<Connection>,
        authenticated: Arc<AtomicBool>,
        outbox: Outbox,
        share: Arc<Share>,
    ) -> Self {
        let over = CancellationToken::new();
        let in_flight_max = usize::try_from(door.settings.in_flight_max).unwrap_or(1);
        Self {
            id: uuid::Uuid::now_v7().simple().to_string(),
            tails: Tails::new(door.settings.subscriptions_max, over.clone()),
            outbox,
            queued: Load::new(
                door.settings.in_flight_bytes_max,
                share.clone(),
                Pile::Requests,
            ),
            share,
            pace: Pace::new(door.floods.clone(), &door.settings),
            connection,
            turns: Turns::default(),
            authenticated,
            seat,
            in_flight: Arc::new(Semaphore::new(in_flight_max)),
            heard_at: Mutex::new(Instant::now()),
            over,
            door,
        }
    }

    /// Who asked, in the ledger.
    pub fn actor(&self) -> String {
        format!("ws:{}", self.id)
    }

    /// Something of the client has arrived, or its end.
    pub fn heard(&self) {
        *self.heard_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When something of the client last arrived.
    pub fn heard_at(&self) -> Instant {
        *self.heard_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has shown the token, or needs none.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::SeqCst)
    }

    /// `server.hello`.
    pub fn greeting(&self) -> String {
        let auth = if self.is_authenticated() {
            "ok"
        } else {
            "required"
        };
        let params = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": methods::PROTOCOL,
            "session_id": self.id,
            "auth": auth,
            "limits": methods::limits::greeted(&self.door.settings),
        });
        notification("server.hello", params)
    }

    /// Sends a message that has no place among the requests in flight.
    pub async fn say(&self, text: String) -> Result<(), Closed> {
        self.pace.answered(text.len());
        self.outbox.reply(Reply { text, place: None }).await
    }

    async fn refuse(&self, id: Option<&RawValue>, refusal: &Refusal) -> Result<(), Closed> {
        self.say(envelope::error(id, refusal)).await
    }

    /// Answers a binary frame.
    pub async fn refuse_binary(&self) -> Result<(), Closed> {
        let message = "binary frames are not taken; send requests as text";
        self.refuse(None, &Refusal::new(Kind::InvalidRequest, message))
            .await
    }

    /// Takes one text frame: hands a request on, or refuses it at once.
    pub async fn take(&self, text: Utf8Bytes, work: &mpsc::Sender<Work>) -> Result<(), Closed> {
        let (bytes, depth_max) = (text.len(), self.door.settings.json_depth_max);
        // From now on it is our turn.
        self.share.arrived();
        let weight = self.queued.add(bytes);
        let read = move || envelope::read(&text, depth_max);
        let request = match self.door.aside.run(bytes, read).await {
            Incoming::Notification => return Ok(()),
            Incoming::Refused(id, refusal) => {
                drop(weight);
                return self.refuse(id.as_deref(), &refusal).await;
            }
            Incoming::Request(request) => request,
        };
        let method = match self.admit(&request) {
            Ok(Some(method)) => method,
            Ok(None) => return self.say(envelope::reply(&request.id, Ok(&nothing()))).await,
            Err(refusal) => return self.refuse(Some(&request.id), &refusal).await,
        };
        let Ok(place) = self.in_flight.clone().try_acquire_owned() else {
            let max = self.door.settings.in_flight_max;
            let message = format!("{max} requests are in flight; wait for a reply");
            let refusal = Refusal::limit("in_flight_max", message);
            return self.refuse(Some(&request.id), &refusal).await;
        };
        work.send(Work {
            request,
            method,
            place,
            weight,
        })
        .await
        .map_err(|_| Closed)
    }

    /// Leaves the seat of a stranger to the next one: it has shown the token, or is over and only says
    /// goodbye.
    pub fn leave_strangers_seat(&self) {
        self.seat.authenticated();
    }

    /// Whether a request may be executed, and as what; `None`: it was the token, and right.
    fn admit(&self, request: &Request) -> Result<Option<Method>, Refusal> {
        if request.method == methods::AUTHENTICATE {
            methods::authenticate::check(&self.door.token, &request.params())
                .inspect_err(|refusal| self.tell(refusal, Reason::WrongToken))?;
            self.authenticated.store(true, Ordering::SeqCst);
            self.connection.place.known();
            self.leave_strangers_seat();
            return Ok(None);
        }
        if !self.is_authenticated() {
            let message = "call session.authenticate {token} first; the token is in the file \
                           `token` of the server's data directory";
            let refusal = Refusal::new(Kind::Unauthenticated, message);
            self.tell(&refusal, Reason::NoToken);
            return Err(refusal);
        }
        let method = Method::named(&request.method)?;
        let (limit, containers_max) = method.containers_max();
        if request.containers > containers_max {
            let message = format!("params: at most {containers_max} arrays and objects");
            return Err(Refusal::limit(limit, message));
        }
        if method == Method::SubmitMany {
            methods::submit_many::check_id(request)?;
        }
        Ok(Some(method))
    }

    /// Tells the log of one that knows no token.
    fn tell(&self, refusal: &Refusal, reason: Reason) {
        if refusal.kind == Kind::Unauthenticated {
            self.door.refusals.tell(self.connection.peer, reason);
        }
    }

    /// The reply, never longer than a message may be, and the tail that begins behind it.
    pub fn answer(
        &self,
        id: &Id,
        outcome: Result<methods::Outcome, Refusal>,
    ) -> (String, Option<Granted>) {
        let (result, granted) = match outcome {
            Ok(outcome) => (Ok(outcome.result), outcome.granted),
            Err(refusal) => (Err(refusal), None),
        };
        let mut text = envelope::reply(id, result.as_deref());
        // It was written into room that doubles, and may wait.
        text.shrink_to_fit();
        self.pace.answered(text.len());
        if text.len() <= self.door.settings.message_len_max() {
            return (text, granted);
        }
        let message = "the reply would be longer than a message may be; ask for less";
        let refusal = Refusal::limit("message_bytes_max", message);
        (envelope::error(Some(id), &refusal), None)
    }
}

/// The result of a method that has nothing to tell.
fn nothing() -> Box<RawValue> {
    to_raw(&json!({}))
}
