//! Decides what is sent to the client and to the server, over any number of connections. Pure: `bridge`
//! reports what happens, and takes the messages from the two queues.
//!
//! A request of the client is held until it is answered. After a lost connection the session is opened
//! again with the client's own `initialize`, whose second answer the client does not get; then all held
//! requests are sent again, in their order, unless that could do harm.

mod from_client;
mod from_server;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    failures,
    held::{self, HeldRequests},
    ids::MessageId,
    limits::{MessageLimits, check},
    progress::ProgressFilter,
    replies::{self, LIMIT_EXCEEDED},
    server_requests::ServerRequests,
};

/// The method that opens a session of the revisions before 2026-07-28.
const INITIALIZE: &str = "initialize";
/// Messages for the client from which on nothing more is read that could add one.
const CLIENT_QUEUE_MAX: usize = 16;
/// Messages for the server from which on nothing more is read from the client.
const SERVER_QUEUE_MAX: usize = 2 * held::REQUESTS_MAX;
/// A connection that is lost within this time was lost at once.
const AT_ONCE: Duration = Duration::from_millis(500);
/// How many connections in a row may be lost at once while a request is held. Then it is answered with an
/// error: it may be what ends the server.
const LOST_AT_ONCE_MAX: u32 = 10;

/// The present connection.
#[derive(Debug, PartialEq, Eq)]
enum LinkState {
    /// There is none.
    Down,
    /// It waits for the answer to the `initialize` with this id.
    Opening {
        id: MessageId,
        /// Whether the client has had its answer on an earlier connection.
        is_replay: bool,
    },
    /// It takes every message.
    Up,
}

/// A message for the server.
#[derive(Debug)]
enum Outgoing {
    Text(Utf8Bytes),
    /// The held request with this id, if it is still held then.
    Request(MessageId),
}

/// What the client sent to open its session, to be sent again.
#[derive(Debug, Default)]
struct OpeningMessages {
    /// The `initialize` that was answered with a result.
    initialize: Option<(MessageId, Utf8Bytes)>,
    /// The client's `notifications/initialized`.
    initialized: Option<Utf8Bytes>,
}

/// The state of the relay.
#[derive(Debug)]
pub struct Relay {
    link: LinkState,
    limits: MessageLimits,
    /// The first message of each connection: where and how the client was started.
    caller: Option<Utf8Bytes>,
    opening: OpeningMessages,
    held: HeldRequests,
    server_requests: ServerRequests,
    progress: ProgressFilter,
    to_client: VecDeque<Utf8Bytes>,
    to_server: VecDeque<Outgoing>,
}

impl Relay {
    /// Without a connection. Each one begins with `caller`, if there is one.
    pub fn new(caller: Option<Utf8Bytes>) -> Self {
        Self {
            link: LinkState::Down,
            limits: MessageLimits::default(),
            caller,
            opening: OpeningMessages::default(),
            held: HeldRequests::default(),
            server_requests: ServerRequests::default(),
            progress: ProgressFilter::default(),
            to_client: VecDeque::new(),
            to_server: VecDeque::new(),
        }
    }

    /// Whether a request waits for its answer, so that a connection is needed.
    pub fn needs_server(&self) -> bool {
        !self.held.is_empty()
    }

    /// How many requests wait for their answers.
    pub fn waiting(&self) -> usize {
        self.held.iter().count()
    }

    /// Whether neither side waits for an answer, and nothing is to be sent.
    pub fn is_idle(&self) -> bool {
        self.held.is_empty() && self.server_requests.is_empty() && self.to_server.is_empty()
    }

    /// Whether another message may be read from the server.
    pub fn takes_from_server(&self) -> bool {
        self.to_client.len() < CLIENT_QUEUE_MAX
    }

    /// Whether another line may be read from the client.
    pub fn takes_from_client(&self) -> bool {
        self.takes_from_server() && self.to_server.len() < SERVER_QUEUE_MAX
    }

    /// Whether there is a message for the client.
    pub fn has_for_client(&self) -> bool {
        !self.to_client.is_empty()
    }

    /// The next message for the client.
    pub fn take_for_client(&mut self) -> Option<Utf8Bytes> {
        self.to_client.pop_front()
    }

    /// Whether there may be a message for the server.
    pub fn has_for_server(&self) -> bool {
        !self.to_server.is_empty()
    }

    /// The next message for the server. From here on it counts as sent.
    pub fn take_for_server(&mut self) -> Option<Utf8Bytes> {
        loop {
            let id = match self.to_server.pop_front()? {
                Outgoing::Text(text) => return Some(text),
                Outgoing::Request(id) => id,
            };
            let Some(held) = self.held.get_mut(&id) else {
                continue;
            };
            let Err(refusal) = check(&held.text, self.limits) else {
                held.is_sent = true;
                return Some(held.text.clone());
            };
            self.held.remove(&id);
            let refused = replies::error(Some(&id), LIMIT_EXCEEDED, &refusal);
            self.to_client.push_back(refused);
            self.skip_opening_of(&id);
        }
    }

    /// The connection is there.
    pub fn on_connected(&mut self, limits: MessageLimits) {
        self.limits = limits;
        self.to_server.clear();
        self.to_server
            .extend(self.caller.clone().map(Outgoing::Text));
        if let Some((id, text)) = self.opening.initialize.clone() {
            self.to_server.push_back(Outgoing::Text(text));
            self.link = LinkState::Opening {
                id,
                is_replay: true,
            };
            return;
        }
        let first = self.held.iter().find(|held| held.method == INITIALIZE);
        match first.map(|held| held.id.clone()) {
            Some(id) => {
                self.to_server.push_back(Outgoing::Request(id.clone()));
                self.link = LinkState::Opening {
                    id,
                    is_replay: false,
                };
            }
            None => self.go_up(),
        }
    }

    /// The connection is lost after this time; `why` says how.
    pub fn on_lost(&mut self, lived: Duration, why: &str) {
        self.drop_connection();
        for held in self
            .held
            .take_if(|held| held.is_sent && !held.is_repeatable)
        {
            self.to_client.push_back(failures::not_repeated(&held));
        }
        for held in self.held.iter_mut() {
            held.was_sent |= std::mem::take(&mut held.is_sent);
            held.lost_at_once = match lived < AT_ONCE {
                true => held.lost_at_once + 1,
                false => 0,
            };
        }
        let why = format!(
            "the server ended {LOST_AT_ONCE_MAX} connections right after they were made (the last one: \
             {why}); its log may say why"
        );
        for held in self
            .held
            .take_if(|held| held.lost_at_once == LOST_AT_ONCE_MAX)
        {
            self.to_client.push_back(failures::unreachable(&held, &why));
        }
    }

    /// No connection can be made, or the server cannot go on with the session: nothing waits any longer.
    pub fn on_unreachable(&mut self, why: &str) {
        self.drop_connection();
        for held in self.held.take_if(|_| true) {
            self.to_client.push_back(failures::unreachable(&held, why));
        }
    }

    /// The session is open: sends what the server has not got on this connection.
    fn go_up(&mut self) {
        self.link = LinkState::Up;
        let initialized = self.opening.initialized.clone();
        let initialized = initialized.filter(|_| self.opening.initialize.is_some());
        self.to_server.extend(initialized.map(Outgoing::Text));
        let held = self.held.iter().filter(|held| !held.is_sent);
        let held = held.map(|held| Outgoing::Request(held.id.clone()));
        self.to_server.extend(held);
    }

    /// The `initialize` that was awaited is not sent: goes on without it.
    fn skip_opening_of(&mut self, refused: &MessageId) {
        if matches!(&self.link, LinkState::Opening { id, .. } if id == refused) {
            self.go_up();
        }
    }

    fn drop_connection(&mut self) {
        self.link = LinkState::Down;
        self.to_server.clear();
        let cancels = self.server_requests.take_all();
        self.to_client
            .extend(cancels.map(|ours| replies::cancel(&ours)));
        self.progress.restart();
    }
}
