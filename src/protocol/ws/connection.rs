//! The life of a session: its tasks, what ends it, and an orderly end.
//!
//! One task reads (here), one writes (`outbox`), one executes requests in order (`work`); waits and
//! tails run beside them. What the requests are is not known here.

use std::{
    sync::{
        Arc,
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
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{Role, WebSocketConfig},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    close::SessionEnd,
    dispatch::{QueuedRequest, execute_in_order},
    outbox::{CloseMessage, WriterConfig, Written, outbox},
    session::Session,
};
use crate::protocol::{
    ServerState, SessionSlot,
    limits::{counted_io::CountingIo, memory_budget::SessionUsage},
    peer::Connection,
};

/// Buffer for reading; frames that are longer grow it, up to `message_bytes_max`.
const READ_BUFFER_BYTES: usize = 8 << 10;
/// In front of the data of a ping, bytes: its kind, its length, its mask.
const CONTROL_HEAD_BYTES: usize = 6;
/// How long requests that were taken may still need when the server stops.
const FINISH: Duration = Duration::from_millis(800);
/// How long the last words may need to reach a client that is slow to read.
const FAREWELL: Duration = Duration::from_millis(1500);
/// The same for one that has to make room, and for its client to close its side: many may have to at a
/// time.
const FAREWELL_DISPLACED: Duration = Duration::from_millis(200);
/// How long the client may need to close its side, so that nothing in flight is torn away.
const LINGER: Duration = Duration::from_millis(500);
/// The same for one who was evicted: whoever does not close comes back the later for it.
const LINGER_EVICTED: Duration = Duration::from_secs(15);
/// What is read from such a one meanwhile, bytes: more than may be on its way.
const DRAINED_EVICTED_BYTES_MAX: u64 = 4 << 20;

type Socket = WebSocketStream<CountingIo<TokioIo<Upgraded>>>;

/// Runs a session until it is over.
pub async fn run(
    upgraded: Upgraded,
    door: Arc<ServerState>,
    seat: SessionSlot,
    connection: Arc<Connection>,
    authenticated: bool,
) {
    let bytes_max = door.settings.message_len_max();
    let write_buffer = usize::try_from(door.settings.write_buffer_bytes).unwrap_or(bytes_max);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(write_buffer)
        .max_write_buffer_size(write_buffer + 2 * bytes_max)
        .max_message_size(Some(bytes_max))
        .max_frame_size(Some(bytes_max));
    let known = Arc::new(AtomicBool::new(authenticated));
    let stranger_bytes_max = door.settings.unauthenticated_bytes_max;
    let share = door.hoard.share();
    let io = CountingIo::new(
        TokioIo::new(upgraded),
        known.clone(),
        stranger_bytes_max,
        share.clone(),
    );
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    SessionTasks::start(socket, door, seat, connection, known, share)
        .finish()
        .await;
}

/// A session's tasks.
struct SessionTasks {
    session: Arc<Session>,
    stream: SplitStream<Socket>,
    writer: JoinHandle<(SplitSink<Socket, Message>, Written)>,
    /// Set when the writer has ended.
    written: CancellationToken,
    /// Set when another client has got the seat.
    given_away: CancellationToken,
    worker: JoinHandle<()>,
    work: mpsc::Sender<QueuedRequest>,
    farewell: oneshot::Sender<CloseMessage>,
    unanswered: Arc<AtomicU64>,
}

impl SessionTasks {
    fn start(
        socket: Socket,
        door: Arc<ServerState>,
        seat: SessionSlot,
        connection: Arc<Connection>,
        known: Arc<AtomicBool>,
        share: Arc<SessionUsage>,
    ) -> Self {
        let given_away = seat.given_away();
        let unanswered = Arc::<AtomicU64>::default();
        let in_flight_max = usize::try_from(door.settings.in_flight_max).unwrap_or(1);
        let (outbox, writer, farewell) = outbox(care(&door), unanswered.clone(), share.clone());
        let (mut sink, stream) = socket.split();
        let written = CancellationToken::new();
        let session = Arc::new(Session::new(door, seat, connection, known, outbox, share));
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
            given_away,
            worker,
            work,
            farewell,
            unanswered,
        }
    }

    async fn finish(mut self) {
        let ending = self.until_it_ends().await;
        tracing::debug!(session = self.session.caller.id, ?ending, "a session ends");
        if let Some(reason) = ending.reason() {
            let door = &self.session.caller.server;
            door.refusals.tell(self.session.connection.peer, reason);
        }
        self.session.leave_strangers_seat();
        if ending == SessionEnd::Evicted {
            self.session.caller.server.floods.press();
        }
        drop(self.work);
        if ending == SessionEnd::Stopping {
            // What was taken is done and answered, if it can be done soon.
            let _ = timeout(FINISH, &mut self.worker).await;
        } else {
            let tasks = &self.session.caller.server.tasks;
            tasks.spawn(tell_loss(self.session.clone(), self.worker));
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
        let patience = match ending {
            SessionEnd::Displaced => FAREWELL_DISPLACED,
            _ => FAREWELL,
        };
        let goodbye = async {
            if let Ok(Ok((sink, Written::Farewell | Written::Abandoned))) =
                timeout(patience, self.writer).await
            {
                part(&self.session, ending, self.stream, sink).await;
            }
        };
        tokio::select! {
            biased;
            () = self.session.connection.place.given_away() => {}
            () = goodbye => {}
        }
        // One that has not ended is stuck with a client that does not read.
        abort.abort();
    }

    async fn until_it_ends(&mut self) -> SessionEnd {
        let session = &self.session;
        // Whatever else there is to say comes behind it, that the server stops included.
        if session.say(session.greeting()).await.is_err() {
            return SessionEnd::Broken;
        }
        tokio::select! {
            biased;
            () = session.caller.server.stopping.cancelled() => SessionEnd::Stopping,
            () = session.share.evicted() => SessionEnd::Evicted,
            () = session.over.cancelled() => SessionEnd::Failed,
            () = session.connection.place.given_away() => SessionEnd::Crowded,
            () = self.given_away.cancelled() => SessionEnd::Displaced,
            () = self.written.cancelled() => SessionEnd::Broken,
            () = auth_deadline(session) => SessionEnd::Stranger,
            ending = read(session, &mut self.stream, &self.work, &self.unanswered) => ending,
        }
    }
}

/// Says that the client is gone, once what it asked for before has been done.
async fn tell_loss(session: Arc<Session>, worker: JoinHandle<()>) {
    // A worker that panicked has done all that it will.
    let _ = worker.await;
    let executor = &session.caller.server.executor;
    executor.disconnected(&session.caller.id, session.heard_at());
}

fn care(door: &ServerState) -> WriterConfig {
    WriterConfig {
        notes_max: usize::try_from(door.settings.notifications_queued_max).unwrap_or(1),
        reply_bytes_max: door.settings.replies_queued_bytes_max,
        ping_interval: door.settings.ping_interval(),
        unanswered_max: door.settings.pings_unanswered_max,
    }
}

/// Closes our side, and drains the client's until it has closed too or has had its time: closing
/// over unread bytes would tear away what is still on its way to it. Nothing is held meanwhile.
async fn part(
    session: &Session,
    ending: SessionEnd,
    stream: SplitStream<Socket>,
    sink: SplitSink<Socket, Message>,
) {
    let Ok(socket) = stream.reunite(sink) else {
        return;
    };
    let mut io = socket.into_inner();
    io.let_through();
    let (bytes_max, linger) = match session.share.is_evicted() {
        true => (DRAINED_EVICTED_BYTES_MAX, LINGER_EVICTED),
        false if ending == SessionEnd::Displaced => (u64::MAX, FAREWELL_DISPLACED),
        false => (u64::MAX, LINGER),
    };
    let drained = async {
        io.shutdown().await?;
        let mut rest = (&mut io).take(bytes_max);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        if rest.limit() == 0 {
            std::future::pending::<()>().await;
        }
        Ok::<_, std::io::Error>(())
    };
    let lingering = timeout(linger, drained);
    if session.share.is_evicted() {
        // A stop does not wait for it.
        let _ = session
            .caller
            .server
            .stopping
            .run_until_cancelled(lingering)
            .await;
    } else {
        let _ = lingering.await;
    }
}

/// Returns when the time to authenticate is over and nobody has.
async fn auth_deadline(session: &Session) {
    if !session.is_authenticated() {
        #[expect(clippy::disallowed_methods, reason = "this is the deadline itself")]
        tokio::time::sleep(session.caller.server.settings.auth_timeout()).await;
    }
    if session.is_authenticated() {
        std::future::pending::<()>().await;
    }
}

/// Takes frames until the client stops sending them.
async fn read(
    session: &Session,
    stream: &mut SplitStream<Socket>,
    work: &mpsc::Sender<QueuedRequest>,
    unanswered: &AtomicU64,
) -> SessionEnd {
    loop {
        // Whoever sends more than we get done is not read from for a while.
        session.queued.light().await;
        session.pace.settle().await;
        let frame = stream.next().await;
        unanswered.store(0, Ordering::SeqCst);
        session.heard();
        if let Some(Ok(message)) = &frame {
            session.pace.asked(message.len());
        }
        let taken = match frame {
            None => return SessionEnd::Broken,
            Some(Err(error)) => return SessionEnd::of(&error),
            Some(Ok(Message::Close(_))) => {
                // Reading on sends the answer to it.
                let _ = timeout(LINGER, stream.next()).await;
                return SessionEnd::Left;
            }
            Some(Ok(Message::Text(text))) => session.take(text, work).await,
            Some(Ok(Message::Binary(_))) => {
                session.share.arrived();
                session.refuse_binary().await
            }
            // They may come between the fragments of a message, which is not whole then.
            Some(Ok(Message::Ping(data))) => {
                session.share.pass(CONTROL_HEAD_BYTES + data.len());
                session.outbox.settle().await
            }
            Some(Ok(Message::Pong(data))) => {
                session.share.pass(CONTROL_HEAD_BYTES + data.len());
                Ok(())
            }
            Some(Ok(Message::Frame(_))) => Ok(()),
        };
        if taken.is_err() {
            return SessionEnd::Broken;
        }
    }
}
