//! Moves messages between our stdin and stdout and the server, as `relay` decides, until the client
//! leaves.

use std::time::Duration;

use tokio::{
    select,
    sync::mpsc::OwnedPermit,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::{
    lines::{InputLine, InputLines},
    reach::{Connecting, Reached, ServerReach},
    relay::Relay,
    socket::{McpSocket, SocketEnd},
    stdout::ClientWriter,
};
use crate::cli::{
    connect::{signals::Signals, stdin::Stdin},
    render::print,
};

/// How long answers are still passed on after the end of stdin.
const LEAVE_MAX: Duration = Duration::from_secs(1);
/// A connection without a message for this time is closed, so that a server without work can end itself.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// Between a client and a server.
pub struct Bridge {
    relay: Relay,
    reach: ServerReach,
    input: ClientInput,
    output: ClientWriter,
    signals: Signals,
    socket: Option<McpSocket>,
    connecting: Option<Connecting>,
    /// The last time when a message came from either side.
    active_at: Instant,
    /// When to leave, whatever waits; set at the end of stdin.
    leave_at: Option<Instant>,
}

/// What happens next.
enum BridgeEvent {
    /// A signal asks to end, the client has closed stdout, or time is over.
    Leave,
    /// The client takes a message.
    ClientReady(OwnedPermit<Utf8Bytes>),
    /// The server takes a message.
    ServerReady(OwnedPermit<Message>),
    /// The client has sent a line; `None`: the end of stdin.
    Line(Option<InputLine>),
    /// The server has sent a message, or the connection is lost.
    Server(Result<Utf8Bytes, SocketEnd>),
    /// Connecting has ended.
    Reached(Result<Reached, String>),
    /// Nothing has happened for a long time.
    Idle,
}

impl Bridge {
    /// Begins to connect, and to read stdin. Each connection begins with `caller`, if there is one.
    pub fn start(mut reach: ServerReach, caller: Option<Utf8Bytes>) -> anyhow::Result<Self> {
        Ok(Self {
            relay: Relay::new(caller),
            input: ClientInput {
                stdin: Stdin::start()?,
                lines: InputLines::default(),
            },
            output: ClientWriter::start()?,
            signals: Signals::watch()?,
            socket: None,
            // At once, so that what is wrong is known before the first request.
            connecting: Some(reach.begin()),
            reach,
            active_at: Instant::now(),
            leave_at: None,
        })
    }

    /// Runs until the client leaves. Returns whether there was a server, as far as is known by then.
    pub async fn run(mut self) -> bool {
        loop {
            match self.next_event().await {
                BridgeEvent::Leave => break,
                BridgeEvent::ClientReady(permit) => {
                    if let Some(message) = self.relay.take_for_client() {
                        permit.send(message);
                    }
                }
                BridgeEvent::ServerReady(permit) => {
                    if let Some(message) = self.relay.take_for_server() {
                        permit.send(Message::Text(message));
                    }
                }
                BridgeEvent::Line(line) => self.on_line(line),
                BridgeEvent::Server(message) => self.on_server(message),
                BridgeEvent::Reached(reached) => self.on_reached(reached),
                BridgeEvent::Idle => self.disconnect().await,
            }
            if self.leave_at.is_some() && self.has_nothing_to_do() {
                break;
            }
            self.connect_if_needed();
        }
        let is_well = self.reach.was_reached() || self.connecting.is_some();
        self.leave().await;
        is_well
    }

    async fn next_event(&mut self) -> BridgeEvent {
        let to_client = self.output.permit();
        let to_server = self.socket.as_ref().map(McpSocket::permit);
        let idle_at = self.active_at + IDLE_MAX;
        let is_idle = self.socket.is_some() && self.relay.is_idle();
        let leave_at = self.leave_at.unwrap_or(idle_at);
        select! {
            _ = self.signals.next() => BridgeEvent::Leave,
            () = self.output.broken() => BridgeEvent::Leave,
            () = sleep_until(leave_at), if self.leave_at.is_some() => BridgeEvent::Leave,
            permit = to_client, if self.relay.has_for_client() => BridgeEvent::ClientReady(permit),
            permit = if_some(to_server), if self.relay.has_for_server() => {
                BridgeEvent::ServerReady(permit)
            }
            reached = if_some(self.connecting.as_mut()) => BridgeEvent::Reached(reached),
            message = if_some(self.socket.as_mut().map(McpSocket::next)),
                if self.relay.takes_from_server() => BridgeEvent::Server(message),
            line = self.input.next(), if self.leave_at.is_none() && self.relay.takes_from_client() => {
                BridgeEvent::Line(line)
            }
            () = sleep_until(idle_at), if is_idle => BridgeEvent::Idle,
        }
    }

    fn on_line(&mut self, line: Option<InputLine>) {
        self.active_at = Instant::now();
        match line {
            Some(InputLine::Whole(line)) => self.relay.on_line(line),
            Some(InputLine::Overlong { head, tail }) => self.relay.on_overlong_line(&head, &tail),
            None => self.leave_at = Some(Instant::now() + LEAVE_MAX),
        }
    }

    fn on_server(&mut self, message: Result<Utf8Bytes, SocketEnd>) {
        self.active_at = Instant::now();
        match message {
            Ok(message) => {
                let waiting = self.relay.waiting();
                if let Err(why) = self.relay.on_server_message(message) {
                    self.give_up(&why);
                } else if self.relay.waiting() < waiting {
                    self.reach.on_progress();
                }
            }
            Err(end) => {
                let age = self
                    .socket
                    .take()
                    .map_or(Duration::ZERO, |socket| socket.age());
                self.reach.on_lost(end.is_planned);
                self.relay.on_lost(age, &end.why);
            }
        }
    }

    fn on_reached(&mut self, reached: Result<Reached, String>) {
        self.connecting = None;
        match reached {
            Ok(reached) => {
                self.active_at = Instant::now();
                self.reach.on_reached(&reached);
                self.relay.on_connected(reached.limits);
                self.socket = Some(reached.socket);
            }
            Err(why) => self.give_up(&why),
        }
    }

    /// There is no session with the server: all that waits is answered. The next request tries again.
    fn give_up(&mut self, why: &str) {
        print::line(why);
        if self.socket.take().is_some() {
            self.reach.on_lost(false);
        }
        self.relay.on_unreachable(why);
    }

    /// Closes a connection that nothing needs.
    async fn disconnect(&mut self) {
        if let Some(socket) = self.socket.take() {
            let age = socket.age();
            socket.close().await;
            self.reach.on_lost(false);
            self.relay.on_lost(age, "it was idle");
        }
    }

    /// Connects if a request waits, and stops to connect if none waits any more: then no server is started
    /// for nothing. The first connection is made in any case.
    fn connect_if_needed(&mut self) {
        let is_needed = self.relay.needs_server();
        if is_needed && self.socket.is_none() && self.connecting.is_none() {
            self.connecting = Some(self.reach.begin());
        }
        if !is_needed && self.reach.was_reached() {
            self.connecting = None;
        }
    }

    /// Whether nothing is to be passed on, and it is known whether there is a server.
    fn has_nothing_to_do(&self) -> bool {
        self.relay.is_idle() && !self.relay.has_for_client() && self.connecting.is_none()
    }

    /// Writes what is left, as far as the client reads it soon.
    async fn leave(self) {
        let Self { output, socket, .. } = self;
        let soon = Instant::now() + LEAVE_MAX;
        let _ = timeout_at(self.leave_at.unwrap_or(soon), output.finish()).await;
        if let Some(socket) = socket {
            socket.close().await;
        }
    }
}

/// The value of a future that may not be there; without it, never.
async fn if_some<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The lines on our stdin.
struct ClientInput {
    stdin: Stdin,
    lines: InputLines,
}

impl ClientInput {
    /// The next line; `None` at the end. Cancel-safe.
    async fn next(&mut self) -> Option<InputLine> {
        loop {
            if let Some(line) = self.lines.next() {
                return Some(line);
            }
            match self.stdin.next().await {
                Some(piece) => self.lines.push(piece),
                None => return self.lines.rest(),
            }
        }
    }
}
