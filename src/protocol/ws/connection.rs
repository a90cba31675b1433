//! The life of a session: its tasks, what ends it, and its orderly end.
//!
//! One task reads frames (here), one writes them (`outbox`), one executes requests in order (`dispatch`);
//! waits and tails run beside them.

use std::{
    sync::{Arc, atomic::AtomicBool},
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
        Message, Utf8Bytes,
        protocol::{Role, WebSocketConfig},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    Opened,
    close::SessionEnd,
    dispatch::{QueuedRequest, execute_in_order},
    mcp::{self, QueuedMessage},
    outbox::{CloseMessage, PingCount, SessionClosed, WriterConfig, Written, outbox},
    session::Session,
};
use crate::protocol::{
    ServerState,
    limits::{counted_io::CountingIo, memory_budget::SessionUsage},
    sub_protocol::Dialect,
};

/// Buffer for reading, bytes; longer frames grow it, up to `message_bytes_max`.
const READ_BUFFER_BYTES: usize = 8 << 10;
/// Bytes before the data of a ping or pong: kind, length and mask.
const CONTROL_HEAD_BYTES: usize = 6;
/// How long requests that were accepted may still take when the server stops.
const FINISH_TIMEOUT: Duration = Duration::from_millis(800);
/// How long the close message may take to reach a client that is slow to read.
const CLOSE_MESSAGE_TIMEOUT: Duration = Duration::from_millis(1500);
/// The same for a client that is displaced, and for that client to close its side: there may be many at a
/// time.
const DISPLACED_TIMEOUT: Duration = Duration::from_millis(200);
/// How long the client may take to close its side, so that nothing on its way is lost.
const LINGER: Duration = Duration::from_millis(500);
/// The same for an evicted client: one that does not close its side can reconnect only later.
const LINGER_EVICTED: Duration = Duration::from_secs(15);
/// What is read from an evicted client meanwhile, bytes: more than may be on its way.
const DRAINED_EVICTED_BYTES_MAX: u64 = 4 << 20;

type Socket = WebSocketStream<CountingIo<TokioIo<Upgraded>>>;

/// Runs a session until its connection is closed.
pub async fn run(upgraded: Upgraded, server: Arc<ServerState>, opened: Opened) {
    let bytes_max = server.settings.message_len_max();
    let write_buffer = usize::try_from(server.settings.write_buffer_bytes).unwrap_or(bytes_max);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(write_buffer)
        .max_write_buffer_size(write_buffer + 2 * bytes_max)
        .max_message_size(Some(bytes_max))
        .max_frame_size(Some(bytes_max));
    let authenticated = Arc::new(AtomicBool::new(opened.principal.is_some()));
    let unauthenticated_bytes_max = server.settings.unauthenticated_bytes_max;
    let usage = server.memory_budget.session_usage();
    let io = CountingIo::new(
        TokioIo::new(upgraded),
        authenticated.clone(),
        unauthenticated_bytes_max,
        usage.clone(),
    );
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    SessionTasks::start(socket, server, opened, authenticated, usage)
        .finish()
        .await;
}

/// Where a session's messages wait, by what it speaks.
enum Inbox {
    Requests(mpsc::Sender<QueuedRequest>),
    Mcp(mpsc::Sender<QueuedMessage>),
}

impl Inbox {
    /// Starts the task that takes from it.
    fn start(dialect: Dialect, session: &Arc<Session>, len_max: usize) -> (Self, JoinHandle<()>) {
        match dialect {
            Dialect::Native => {
                let (sender, requests) = mpsc::channel(len_max);
                let worker = tokio::spawn(execute_in_order(session.clone(), requests));
                (Self::Requests(sender), worker)
            }
            Dialect::Mcp => {
                let (sender, messages) = mpsc::channel(len_max);
                let worker = tokio::spawn(mcp::answer(session.clone(), messages));
                (Self::Mcp(sender), worker)
            }
        }
    }

    async fn take(&self, session: &Session, text: Utf8Bytes) -> Result<(), SessionClosed> {
        session.wait_for_room(text.len()).await;
        match self {
            Self::Requests(requests) => session.on_text(text, requests).await,
            Self::Mcp(messages) => session.on_mcp_text(text, messages).await,
        }
    }
}

/// A running session: its tasks and the ends of their channels.
struct SessionTasks {
    session: Arc<Session>,
    stream: SplitStream<Socket>,
    writer: JoinHandle<(SplitSink<Socket, Message>, Written)>,
    /// Cancelled when the writer has ended.
    written: CancellationToken,
    /// Cancelled when another client has taken the session slot.
    displaced: CancellationToken,
    worker: JoinHandle<()>,
    work: Inbox,
    close_message: oneshot::Sender<CloseMessage>,
    pings: Arc<PingCount>,
}

impl SessionTasks {
    fn start(
        socket: Socket,
        server: Arc<ServerState>,
        opened: Opened,
        authenticated: Arc<AtomicBool>,
        usage: Arc<SessionUsage>,
    ) -> Self {
        let (displaced, dialect) = (opened.slot.displaced(), opened.dialect);
        let pings = Arc::<PingCount>::default();
        let in_flight_max = usize::try_from(server.settings.in_flight_max).unwrap_or(1);
        let (outbox, writer, close_message) =
            outbox(writer_config(&server), pings.clone(), usage.clone());
        let (mut sink, stream) = socket.split();
        let written = CancellationToken::new();
        let session = Arc::new(Session::new(server, opened, authenticated, outbox, usage));
        let writer = tokio::spawn({
            let ended = written.clone().drop_guard();
            async move {
                let written = writer.run(&mut sink).await;
                drop(ended);
                (sink, written)
            }
        });
        let (work, worker) = Inbox::start(dialect, &session, in_flight_max);
        Self {
            session,
            stream,
            writer,
            written,
            displaced,
            worker,
            work,
            close_message,
            pings,
        }
    }

    async fn finish(mut self) {
        let end = self.wait_for_end().await;
        self.session.log_end(end);
        if let Some(reason) = end.reason() {
            let server = &self.session.caller.server;
            server.refused(self.session.connection.peer, reason);
        }
        self.session.release_unauthenticated_slot();
        if end == SessionEnd::Evicted {
            self.session.caller.server.fair_queue.record_eviction();
        }
        let is_mcp = matches!(self.work, Inbox::Mcp(_));
        drop(self.work);
        if end == SessionEnd::Stopping {
            // Accepted requests are executed and answered, if that can be done soon.
            let _ = timeout(FINISH_TIMEOUT, &mut self.worker).await;
        } else {
            let tasks = &self.session.caller.server.tasks;
            tasks.spawn(report_disconnect(self.session.clone(), self.worker));
        }
        // From here on no wait runs and no tail queues output. Requests that were accepted before the
        // client left are still executed.
        self.session.over.cancel();
        self.session.tails.end_all();
        if end == SessionEnd::TokenEnded {
            // The request that has ended the token may be one of this session, whose client would not learn
            // the new one. Those behind it are refused.
            let _ = timeout(FINISH_TIMEOUT, self.session.answering()).await;
        }
        match end.close_message() {
            // A writer that has ended already writes no close message.
            Some(mut message) => {
                if is_mcp {
                    // MCP has no such notification; the close frame says the same.
                    message.notification = None;
                }
                drop(self.close_message.send(message));
            }
            None => drop(self.close_message),
        }
        let abort = self.writer.abort_handle();
        let close_timeout = match end {
            SessionEnd::SlotDisplaced => DISPLACED_TIMEOUT,
            _ => CLOSE_MESSAGE_TIMEOUT,
        };
        let closing = async {
            if let Ok(Ok((sink, Written::Closed | Written::Abandoned))) =
                timeout(close_timeout, self.writer).await
            {
                drain_and_close(&self.session, end, self.stream, sink).await;
            }
        };
        tokio::select! {
            biased;
            () = self.session.connection.slot.displaced() => {}
            () = closing => {}
        }
        // A writer that still runs is stuck with a client that does not read.
        abort.abort();
    }

    async fn wait_for_end(&mut self) -> SessionEnd {
        let session = &self.session;
        // The greeting is the first message, even when the server stops already. MCP has none.
        let greeted = match &self.work {
            Inbox::Requests(_) => session.send(session.greeting()).await,
            Inbox::Mcp(_) => Ok(()),
        };
        if greeted.is_err() {
            return SessionEnd::Broken;
        }
        tokio::select! {
            biased;
            () = session.caller.server.stopping.cancelled() => SessionEnd::Stopping,
            () = session.usage.evicted() => SessionEnd::Evicted,
            () = session.token_ended() => SessionEnd::TokenEnded,
            () = session.over.cancelled() => SessionEnd::McpEnded,
            () = session.connection.slot.displaced() => SessionEnd::ConnectionDisplaced,
            () = self.displaced.cancelled() => SessionEnd::SlotDisplaced,
            () = self.written.cancelled() => SessionEnd::Broken,
            () = auth_deadline(session) => SessionEnd::AuthTimeout,
            end = read(session, &mut self.stream, &self.work, &self.pings) => end,
        }
    }
}

/// Reports that the client is gone, after its accepted requests have been executed.
async fn report_disconnect(session: Arc<Session>, worker: JoinHandle<()>) {
    // A worker that panicked executes nothing more.
    let _ = worker.await;
    let executor = &session.caller.server.executor;
    executor.disconnected(&session.caller.id, session.last_received_at());
}

fn writer_config(server: &ServerState) -> WriterConfig {
    WriterConfig {
        notifications_max: usize::try_from(server.settings.notifications_queued_max).unwrap_or(1),
        reply_bytes_max: server.settings.replies_queued_bytes_max,
        ping_interval: server.settings.ping_interval(),
        unanswered_max: server.settings.pings_unanswered_max,
    }
}

/// Closes our side, and drains the client's until it has closed too or its time is over: to close a socket
/// with unread bytes would discard what is still on its way to the client. What is drained does not count
/// as held.
async fn drain_and_close(
    session: &Session,
    end: SessionEnd,
    stream: SplitStream<Socket>,
    sink: SplitSink<Socket, Message>,
) {
    let Ok(socket) = stream.reunite(sink) else {
        return;
    };
    let mut io = socket.into_inner();
    io.stop_counting();
    let (bytes_max, linger) = match session.usage.is_evicted() {
        true => (DRAINED_EVICTED_BYTES_MAX, LINGER_EVICTED),
        false if end == SessionEnd::SlotDisplaced => (u64::MAX, DISPLACED_TIMEOUT),
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
    if session.usage.is_evicted() {
        // A stop of the server does not wait for an evicted client.
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

/// Returns when the time to authenticate is over and the session is not authenticated.
async fn auth_deadline(session: &Session) {
    if !session.is_authenticated() {
        #[expect(clippy::disallowed_methods, reason = "this is the deadline itself")]
        tokio::time::sleep(session.caller.server.settings.auth_timeout()).await;
    }
    if session.is_authenticated() {
        std::future::pending::<()>().await;
    }
}

/// Reads frames until the session has to end.
async fn read(
    session: &Session,
    stream: &mut SplitStream<Socket>,
    work: &Inbox,
    pings: &PingCount,
) -> SessionEnd {
    loop {
        session.rate_limiter.wait_until_allowed().await;
        pings.reading();
        let frame = stream.next().await;
        pings.received();
        session.record_received();
        if let Some(Ok(message)) = &frame {
            session.rate_limiter.charge_request(message.len());
        }
        let handled = match frame {
            None => return SessionEnd::Broken,
            Some(Err(error)) => return SessionEnd::of(&error),
            Some(Ok(Message::Close(_))) => {
                // The WebSocket library sends the answer to the close frame during this read.
                let _ = timeout(LINGER, stream.next()).await;
                return SessionEnd::Left;
            }
            Some(Ok(Message::Text(text))) => work.take(session, text).await,
            Some(Ok(Message::Binary(_))) => {
                session.usage.message_complete();
                session.refuse_binary().await
            }
            // A ping or pong may come between the fragments of a message, so the message is not complete.
            Some(Ok(Message::Ping(data))) => {
                session.usage.discard(CONTROL_HEAD_BYTES + data.len());
                session.outbox.flush().await
            }
            Some(Ok(Message::Pong(data))) => {
                session.usage.discard(CONTROL_HEAD_BYTES + data.len());
                Ok(())
            }
            Some(Ok(Message::Frame(_))) => Ok(()),
        };
        if handled.is_err() {
            return SessionEnd::Broken;
        }
    }
}
