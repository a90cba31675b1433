//! A session: reads frames, keeps the order of requests, and ends in an orderly way.
//!
//! Three tasks: this one reads, one writes (`outbox`), one executes requests in order; waits and
//! tails run beside them. What the requests do is the methods' business.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{
    StreamExt,
    stream::{SplitSink, SplitStream},
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{json, value::RawValue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WsError, Message,
        error::ProtocolError,
        protocol::{Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{Door, Kind, Seat},
    envelope::{self, Incoming, Request, to_raw},
    methods::{self, Method},
    notify::notification,
    outbox::{Care, Closed, Farewell, Outbox, Reply, Written, outbox},
    refusal::Refusal,
    tails::{Granted, Tails},
};

/// Buffer for reading; frames that are longer grow it, up to `message_bytes_max`.
const READ_BUFFER_BYTES: usize = 8 << 10;
/// How long requests that were taken may still need when the server stops.
const FINISH: Duration = Duration::from_millis(800);
/// How long the last words may need to reach a client that is slow to read.
const FAREWELL: Duration = Duration::from_millis(1500);
/// How long the client may need to close its side, so that nothing in flight is torn away.
const LINGER: Duration = Duration::from_millis(500);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What the requests of a session share.
#[derive(Debug)]
pub struct Session {
    /// The server.
    pub door: Arc<Door>,
    /// Names the session.
    pub id: String,
    /// Its tails.
    pub tails: Tails,
    outbox: Outbox,
    authenticated: AtomicBool,
    seat: Mutex<Seat>,
    in_flight: Arc<Semaphore>,
    over: CancellationToken,
}

/// A request with its place among those in flight.
#[derive(Debug)]
struct Work {
    request: Request,
    method: Method,
    place: tokio::sync::OwnedSemaphorePermit,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The server stops.
    Stopping,
    /// The client said goodbye.
    Left,
    /// The connection broke, or its client answers nothing any more.
    Broken,
    /// A message was too long.
    TooLong,
    /// Text that is not UTF-8.
    NotText,
    /// A frame that the protocol does not allow.
    NotAllowed,
    /// The time to authenticate is over.
    Stranger,
    /// A tail failed.
    Failed,
}

/// Runs a session until it is over.
pub async fn run(upgraded: Upgraded, door: Arc<Door>, seat: Seat, authenticated: bool) {
    let bytes_max = door.settings.message_len_max();
    let write_buffer = usize::try_from(door.settings.write_buffer_bytes).unwrap_or(bytes_max);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(write_buffer)
        .max_write_buffer_size(write_buffer + 2 * bytes_max)
        .max_message_size(Some(bytes_max))
        .max_frame_size(Some(bytes_max));
    let io = TokioIo::new(upgraded);
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    Running::start(socket, door, seat, authenticated)
        .finish()
        .await;
}

/// A session's tasks.
struct Running {
    session: Arc<Session>,
    stream: SplitStream<Socket>,
    writer: JoinHandle<(SplitSink<Socket, Message>, Written)>,
    /// Set when the writer has ended.
    written: CancellationToken,
    worker: JoinHandle<()>,
    work: mpsc::Sender<Work>,
    farewell: oneshot::Sender<Farewell>,
    unanswered: Arc<AtomicU64>,
}

impl Running {
    fn start(socket: Socket, door: Arc<Door>, seat: Seat, authenticated: bool) -> Self {
        let unanswered = Arc::<AtomicU64>::default();
        let in_flight_max = usize::try_from(door.settings.in_flight_max).unwrap_or(1);
        let (outbox, writer, farewell) = outbox(care(&door), unanswered.clone());
        let (mut sink, stream) = socket.split();
        let written = CancellationToken::new();
        let session = Arc::new(Session::new(door, seat, authenticated, outbox));
        let writer = tokio::spawn({
            let ended = written.clone().drop_guard();
            async move {
                let written = writer.run(&mut sink).await;
                drop(ended);
                (sink, written)
            }
        });
        let (work, taken) = mpsc::channel(in_flight_max);
        let worker = tokio::spawn(execute_in_order(session.clone(), taken));
        Self {
            session,
            stream,
            writer,
            written,
            worker,
            work,
            farewell,
            unanswered,
        }
    }

    async fn finish(mut self) {
        let ending = self.until_it_ends().await;
        tracing::debug!(session = self.session.id, ?ending, "a session ends");
        drop(self.work);
        if ending == Ending::Stopping {
            // What was taken is done and answered, if it can be done soon.
            let _ = timeout(FINISH, &mut self.worker).await;
        }
        // From here on nobody waits beside, and no tail hands in more. Requests that were taken
        // before the client left are still executed.
        self.session.over.cancel();
        self.session.tails.end_all();
        match ending.farewell() {
            // A writer that has ended already takes no last words.
            Some(words) => drop(self.farewell.send(words)),
            None => drop(self.farewell),
        }
        let abort = self.writer.abort_handle();
        match timeout(FAREWELL, self.writer).await {
            Ok(Ok((sink, Written::Farewell))) => part(self.stream, sink).await,
            Ok(_) => {}
            Err(_) => abort.abort(),
        }
    }

    async fn until_it_ends(&mut self) -> Ending {
        let session = &self.session;
        tokio::select! {
            biased;
            () = session.door.stopping.cancelled() => Ending::Stopping,
            () = session.over.cancelled() => Ending::Failed,
            () = self.written.cancelled() => Ending::Broken,
            () = auth_deadline(session) => Ending::Stranger,
            ending = read(session, &mut self.stream, &self.work, &self.unanswered) => ending,
        }
    }
}

fn care(door: &Door) -> Care {
    Care {
        notes_max: usize::try_from(door.settings.notifications_queued_max).unwrap_or(1),
        ping_interval: door.settings.ping_interval(),
        unanswered_max: door.settings.pings_unanswered_max,
    }
}

impl Ending {
    /// The last words, where there is somebody to hear them.
    fn farewell(self) -> Option<Farewell> {
        let (code, reason) = match self {
            Self::Left | Self::Broken => return None,
            Self::Stopping => (CloseCode::Away, "the server stops: reconnect and resume"),
            Self::TooLong => (CloseCode::Size, "a message was too long"),
            Self::NotText => (CloseCode::Invalid, "text must be UTF-8"),
            Self::NotAllowed => (CloseCode::Protocol, "the frame broke the protocol"),
            Self::Stranger => (CloseCode::Policy, "not authenticated in time"),
            Self::Failed => (CloseCode::Error, "a tail failed: reconnect and resume"),
        };
        let away = json!({"reason": "the server stops; reconnect and resume"});
        let note = (self == Self::Stopping).then(|| notification("server.going_away", away));
        Some(Farewell { note, code, reason })
    }

    /// What a failed read means.
    fn of(error: &WsError) -> Self {
        match error {
            WsError::Capacity(_) => Self::TooLong,
            WsError::Utf8(_) => Self::NotText,
            WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Broken,
            WsError::Protocol(_) => Self::NotAllowed,
            _ => Self::Broken,
        }
    }
}

/// Closes our side, and drains the client's until it has closed too or has had its time: closing
/// over unread bytes would tear away what is still on its way to it.
async fn part(stream: SplitStream<Socket>, sink: SplitSink<Socket, Message>) {
    let Ok(mut socket) = stream.reunite(sink) else {
        return;
    };
    let io = socket.get_mut();
    let drained = async {
        io.shutdown().await?;
        let mut scratch = [0; 4096];
        while io.read(&mut scratch).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    let _ = timeout(LINGER, drained).await;
}

/// Returns when the time to authenticate is over and nobody has.
async fn auth_deadline(session: &Session) {
    if !session.is_authenticated() {
        tokio::time::sleep(session.door.settings.auth_timeout()).await;
    }
    if session.is_authenticated() {
        std::future::pending::<()>().await;
    }
}

/// Greets, then takes frames until the client stops sending them.
async fn read(
    session: &Session,
    stream: &mut SplitStream<Socket>,
    work: &mpsc::Sender<Work>,
    unanswered: &AtomicU64,
) -> Ending {
    if session.say(session.greeting()).await.is_err() {
        return Ending::Broken;
    }
    loop {
        let frame = stream.next().await;
        unanswered.store(0, Ordering::SeqCst);
        let taken = match frame {
            None => return Ending::Broken,
            Some(Err(error)) => return Ending::of(&error),
            Some(Ok(Message::Close(_))) => {
                // Reading on sends the answer to it.
                let _ = timeout(LINGER, stream.next()).await;
                return Ending::Left;
            }
            Some(Ok(Message::Text(text))) => session.take(&text, work).await,
            Some(Ok(Message::Binary(_))) => session.refuse_binary().await,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
        };
        if taken.is_err() {
            return Ending::Broken;
        }
    }
}

impl Session {
    fn new(door: Arc<Door>, seat: Seat, authenticated: bool, outbox: Outbox) -> Self {
        let over = CancellationToken::new();
        let in_flight_max = usize::try_from(door.settings.in_flight_max).unwrap_or(1);
        Self {
            id: uuid::Uuid::now_v7().simple().to_string(),
            tails: Tails::new(door.settings.subscriptions_max, over.clone()),
            outbox,
            authenticated: AtomicBool::new(authenticated),
            seat: Mutex::new(seat),
            in_flight: Arc::new(Semaphore::new(in_flight_max)),
            over,
            door,
        }
    }

    /// Who asked, in the ledger.
    pub fn actor(&self) -> String {
        format!("ws:{}", self.id)
    }

    fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::SeqCst)
    }

    fn greeting(&self) -> String {
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
            "limits": methods::limits(&self.door.settings),
        });
        notification("server.hello", params)
    }

    /// Sends a message that has no place among the requests in flight.
    async fn say(&self, text: String) -> Result<(), Closed> {
        self.outbox.reply(Reply { text, place: None }).await
    }

    async fn refuse(&self, id: Option<&RawValue>, refusal: &Refusal) -> Result<(), Closed> {
        self.say(envelope::error(id, refusal)).await
    }

    async fn refuse_binary(&self) -> Result<(), Closed> {
        let message = "binary frames are not taken; send requests as text";
        self.refuse(None, &Refusal::new(Kind::InvalidRequest, message))
            .await
    }

    /// Takes one text frame: hands a request on, or refuses it at once.
    async fn take(&self, text: &str, work: &mpsc::Sender<Work>) -> Result<(), Closed> {
        let request = match envelope::read(text, self.door.settings.json_depth_max) {
            Incoming::Notification => return Ok(()),
            Incoming::Refused(id, refusal) => return self.refuse(id.as_deref(), &refusal).await,
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
        })
        .await
        .map_err(|_| Closed)
    }

    /// Whether a request may be executed, and as what; `None`: it was the token, and right.
    fn admit(&self, request: &Request) -> Result<Option<Method>, Refusal> {
        if request.method == methods::AUTHENTICATE {
            methods::authenticate::check(&self.door.token, &request.params)?;
            self.authenticated.store(true, Ordering::SeqCst);
            self.seat
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .authenticated();
            return Ok(None);
        }
        if !self.is_authenticated() {
            let message = "call session.authenticate {token} first; the token is in the file \
                           `token` of the server's data directory";
            return Err(Refusal::new(Kind::Unauthenticated, message));
        }
        Method::named(&request.method).map(Some)
    }
}

/// The result of a method that has nothing to tell.
fn nothing() -> Box<RawValue> {
    to_raw(&json!({}))
}

/// Executes requests in the order in which they came; those that may take long run beside.
async fn execute_in_order(session: Arc<Session>, mut taken: mpsc::Receiver<Work>) {
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

impl Session {
    /// The reply, never longer than a message may be, and the tail that begins behind it.
    fn answer(
        &self,
        request: &Request,
        outcome: Result<methods::Outcome, Refusal>,
    ) -> (String, Option<Granted>) {
        let (result, granted) = match outcome {
            Ok(outcome) => (Ok(outcome.result), outcome.granted),
            Err(refusal) => (Err(refusal), None),
        };
        let text = envelope::reply(&request.id, result.as_deref());
        if text.len() <= self.door.settings.message_len_max() {
            return (text, granted);
        }
        let message = "the reply would be longer than a message may be; ask for less";
        let refusal = Refusal::limit("message_bytes_max", message);
        (envelope::error(Some(&request.id), &refusal), None)
    }
}
