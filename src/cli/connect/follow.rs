//! A tail that survives its connection: after a loss it subscribes again at its next offset. It
//! checks that no byte is missing or comes twice.

use anyhow::bail;
use serde_json::{Map, Value, json};

use super::{
    link::Link,
    wire::{OutputFrame, ServerMessage, WireError},
};
use crate::cli::render::job::ShownJob;

/// How the server encodes the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowEncoding {
    /// As binary frames: [`FollowEvent::Output`].
    Binary,
    /// As JSON: [`FollowEvent::Notification`].
    Json,
}

/// Where a tail begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowFrom {
    /// At this offset.
    Offset(u64),
    /// This many lines before the present end.
    LastLines(u64),
}

/// The parameters of a tail.
#[derive(Debug, Clone)]
pub struct FollowOptions {
    /// Where it begins.
    pub from: FollowFrom,
    /// Whether it goes on after the present end.
    pub follow: bool,
    /// Only this stream; `None`: all.
    pub stream: Option<String>,
    /// How the server encodes the output.
    pub encoding: FollowEncoding,
}

/// What happens on a tail.
#[derive(Debug)]
pub enum FollowEvent {
    /// Output, if the encoding is binary.
    Output(OutputFrame),
    /// Output that the caller has written already; [`Follow::next`] never returns it.
    OutputSent,
    /// Output that is missing: the parameters of `job.gap`.
    Gap(Value),
    /// The job has another state now, one that is not final.
    State(String),
    /// The output up to its present end has come.
    CaughtUp,
    /// The job is final and all its output has come.
    End(Box<ShownJob>),
    /// The connection is lost; the next call waits for another one.
    Disconnected,
    /// The connection is back.
    Reconnected,
    /// A control was refused.
    Refused(WireError),
    /// The reply to the input that was sent.
    InputReply(Result<Value, WireError>),
    /// The parameters of a notification, with `event` for its method; only if the encoding is JSON.
    Notification(Value),
}

/// An input without a reply.
struct Sent {
    params: Value,
    /// Its request id on the present connection; `None` if it is not sent there yet.
    request: Option<u64>,
}

/// A tail of one job.
pub struct Follow {
    link: Link,
    job: Value,
    number: i64,
    options: FollowOptions,
    next_offset: u64,
    begun: bool,
    /// The job was final when the tail began (again): an end will come in any case.
    is_final: bool,
    /// A `job.tail` was sent and has no reply yet.
    subscribing: bool,
    subscription: Option<Value>,
    stop_request: Option<&'static str>,
    /// The last input, until its reply comes.
    input: Option<Sent>,
    /// The event of a notification that `next` has returned as JSON; it comes next.
    pending: Option<FollowEvent>,
}

impl FollowOptions {
    /// The parameters of `job.tail` besides the job, or the `tail` of `job.submit`.
    pub fn params(&self) -> Map<String, Value> {
        let mut params = Map::new();
        match self.from {
            FollowFrom::Offset(from) => params.insert("from".into(), json!(from)),
            FollowFrom::LastLines(lines) => params.insert("last_lines".into(), json!(lines)),
        };
        params.insert("follow".into(), json!(self.follow));
        if let Some(stream) = &self.stream {
            params.insert("streams".into(), json!([stream]));
        }
        if self.encoding == FollowEncoding::Binary {
            params.insert("encoding".into(), json!("binary"));
        }
        params
    }
}

impl Follow {
    /// Takes over the tail that a `job.submit` on this link has begun; `reply` is its result.
    pub fn submitted(link: Link, reply: &Value, options: FollowOptions) -> anyhow::Result<Self> {
        let job = ShownJob::read(&reply["job"])?;
        let mut follow = Self::new(link, json!(job.id), options);
        follow.number = job.number;
        follow.begun = true;
        follow.subscription = subscription(reply);
        Ok(follow)
    }

    /// Begins a tail.
    pub async fn begin(link: Link, job: Value, options: FollowOptions) -> anyhow::Result<Self> {
        let mut follow = Self::new(link, job, options);
        loop {
            if follow.subscribe().await? {
                return Ok(follow);
            }
        }
    }

    fn new(link: Link, job: Value, options: FollowOptions) -> Self {
        Self {
            link,
            job,
            number: 0,
            next_offset: 0,
            begun: false,
            is_final: false,
            subscribing: false,
            subscription: None,
            stop_request: None,
            input: None,
            pending: None,
            options,
        }
    }

    /// The job's number.
    pub fn number(&self) -> i64 {
        self.number
    }

    /// Whether a [`FollowEvent::End`] comes: the tail follows, or the job is final already.
    pub fn will_end(&self) -> bool {
        self.options.follow || self.is_final
    }

    /// Asks the server to `cancel` or `kill` the job: now, and again after every loss of the
    /// connection, until the job ends. A refusal comes as [`FollowEvent::Refused`].
    pub async fn request_stop(&mut self, action: &'static str) {
        self.stop_request = Some(action);
        self.send_stop_request().await;
    }

    /// Sends an input (the parameters of `job.input` without the job): now, and again after every
    /// loss of the connection, until a [`FollowEvent::InputReply`]. It must have a `write_id`.
    pub async fn input(&mut self, mut params: Value) {
        params["job"] = self.job.clone();
        let request = None;
        self.input = Some(Sent { params, request });
        self.send_input().await;
    }

    /// The next event. Cancel-safe: a dropped call loses nothing.
    pub async fn next(&mut self) -> anyhow::Result<FollowEvent> {
        loop {
            if let Some(event) = self.pending.take() {
                return Ok(event);
            }
            if self.subscription.is_none() {
                match self.subscribe().await? {
                    true => return Ok(FollowEvent::Reconnected),
                    false => continue,
                }
            }
            let Some(client) = self.link.connected() else {
                self.subscription = None;
                continue;
            };
            match client.next().await {
                Ok(incoming) => {
                    if let Some(event) = self.on_message(incoming)? {
                        return Ok(event);
                    }
                }
                Err(_) => {
                    self.drop_link();
                    return Ok(FollowEvent::Disconnected);
                }
            }
        }
    }

    fn drop_link(&mut self) {
        self.link.mark_lost();
        self.subscription = None;
    }

    /// Begins the tail on the present connection, or on the next one. False: it was lost again.
    async fn subscribe(&mut self) -> anyhow::Result<bool> {
        let mut params = self.options.params();
        if self.begun {
            params.remove("last_lines");
            params.insert("from".into(), json!(self.next_offset));
        }
        params.insert("job".into(), self.job.clone());
        if self.subscribing {
            // A dropped call left a reply to come on that connection: use a new one.
            self.link.mark_lost();
        }
        self.link.client().await?;
        self.subscribing = true;
        let reply = self
            .link
            .try_subscribe("job.tail", &Value::Object(params))
            .await;
        self.subscribing = false;
        let Some(mut reply) = reply? else {
            return Ok(false);
        };
        let job = reply["job"].take();
        self.subscribed(&reply, &job)?;
        self.send_stop_request().await;
        self.send_input().await;
        Ok(true)
    }

    fn subscribed(&mut self, reply: &Value, job: &Value) -> anyhow::Result<()> {
        let described = ShownJob::read(job)?;
        self.number = described.number;
        self.is_final = described.is_final();
        // From now on by id: if the data directory is replaced, the number could be another job's.
        self.job = json!(described.id);
        if let (false, Some(from)) = (self.begun, reply["from"].as_u64()) {
            self.next_offset = from;
        }
        self.begun = true;
        self.subscription = subscription(reply);
        Ok(())
    }

    async fn send_stop_request(&mut self) {
        let Some(action) = self.stop_request else {
            return;
        };
        let params = json!({"job": self.job, "action": action, "actor": "cli"});
        let Some(client) = self.link.connected() else {
            return;
        };
        // The next read notices a loss; the request is sent again on the next connection.
        let _ = client.send("job.control", &params).await;
    }

    async fn send_input(&mut self) {
        if let (Some(sent), Some(client)) = (&mut self.input, self.link.connected()) {
            sent.request = client.send("job.input", &sent.params).await.ok();
        }
    }

    fn on_message(&mut self, incoming: ServerMessage) -> anyhow::Result<Option<FollowEvent>> {
        match incoming {
            ServerMessage::Output(frame)
                if self.subscription != Some(json!(frame.subscription)) =>
            {
                Ok(None)
            }
            ServerMessage::Output(frame) => {
                self.advance(frame.offset, frame.offset + frame.data.len() as u64)?;
                Ok(Some(FollowEvent::Output(frame)))
            }
            ServerMessage::Reply { id, result }
                if self
                    .input
                    .take_if(|sent| sent.request == Some(id))
                    .is_some() =>
            {
                self.link.on_progress();
                Ok(Some(FollowEvent::InputReply(result)))
            }
            ServerMessage::Reply {
                result: Err(error), ..
            } => Ok(Some(FollowEvent::Refused(error))),
            ServerMessage::Reply { .. } => Ok(None),
            ServerMessage::Notification { params, .. }
                if Some(&params["subscription"]) != self.subscription.as_ref() =>
            {
                Ok(None)
            }
            ServerMessage::Notification { method, params } => self.on_notification(&method, params),
        }
    }

    fn on_notification(
        &mut self,
        method: &str,
        mut params: Value,
    ) -> anyhow::Result<Option<FollowEvent>> {
        let position = |key: &str| params[key].as_u64();
        match (method, position("offset"), position("next_offset")) {
            ("job.output", Some(from), Some(to)) => self.advance(from, to)?,
            ("job.caught_up", _, Some(to)) => self.next_offset = self.next_offset.max(to),
            _ => {}
        }
        if method == "job.error" {
            let why = params["error"]["message"].as_str().unwrap_or("no reason");
            bail!(
                "the output cannot be read from byte {} on: {why}",
                self.next_offset
            );
        }
        if let ("job.gap", Some(from), Some(to)) = (method, position("from"), position("to")) {
            self.advance(from, to)?;
        }
        if matches!(method, "job.state" | "job.end") {
            self.link.on_progress();
        }
        let event = match method {
            "job.gap" => Some(FollowEvent::Gap(params.clone())),
            "job.state" => params["state"]
                .as_str()
                .map(|s| FollowEvent::State(s.to_owned())),
            "job.caught_up" => Some(FollowEvent::CaughtUp),
            "job.end" => Some(FollowEvent::End(Box::new(ShownJob::read(&params["job"])?))),
            _ => None,
        };
        if self.options.encoding == FollowEncoding::Binary {
            return Ok(event);
        }
        if let Some(object) = params.as_object_mut() {
            object.remove("subscription");
            let name = method.strip_prefix("job.").unwrap_or(method);
            object.insert("event".to_owned(), json!(name));
        }
        self.pending = event;
        Ok(Some(FollowEvent::Notification(params)))
    }

    /// Moves to `to`. `from` must be the next offset; with a stream filter it may be greater,
    /// because the other streams' bytes are left out.
    fn advance(&mut self, from: u64, to: u64) -> anyhow::Result<()> {
        let filtered = self.options.stream.is_some();
        if to < from || from < self.next_offset || (!filtered && from != self.next_offset) {
            bail!(
                "the server sent bytes {from} to {to}, but byte {} was next; please report this with the server's log",
                self.next_offset
            );
        }
        self.next_offset = to;
        if to > from {
            self.link.on_progress();
        }
        Ok(())
    }
}

/// The subscription in a reply; `None` for a `job.submit` that began no tail.
fn subscription(reply: &Value) -> Option<Value> {
    reply
        .get("subscription")
        .filter(|id| !id.is_null())
        .cloned()
}
