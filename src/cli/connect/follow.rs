//! A tail that survives its connection: after a loss it goes on at its own next offset.
//!
//! It checks that no byte is missing or comes twice. What is done with the bytes is its user's
//! business.

use anyhow::bail;
use serde_json::{Map, Value, json};

use super::{
    link::Link,
    wire::{OutputFrame, ServerMessage, WireError},
};
use crate::cli::render::job::ShownJob;

/// How the bytes travel.
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
    /// So many lines before the end as it stands.
    LastLines(u64),
}

/// What a tail shall do.
#[derive(Debug, Clone)]
pub struct FollowOptions {
    /// Where it begins.
    pub from: FollowFrom,
    /// Whether it goes on behind the end as it stands.
    pub follow: bool,
    /// Only this stream; `None`: all.
    pub stream: Option<String>,
    /// How the bytes travel.
    pub encoding: FollowEncoding,
}

/// What a tail says.
#[derive(Debug)]
pub enum FollowEvent {
    /// Bytes, where the encoding is binary.
    Output(OutputFrame),
    /// Bytes that were passed on already; never told by [`Follow::next`] itself.
    OutputSent,
    /// Missing bytes.
    Gap(Value),
    /// The job has another state now, one that is not final.
    State(String),
    /// Everything that was there has been told.
    CaughtUp,
    /// The job is final and all is told.
    End(Box<ShownJob>),
    /// The connection is lost; the next call waits for another one.
    Disconnected,
    /// The connection is back.
    Reconnected,
    /// A control was refused.
    Refused(WireError),
    /// The answer to the input that was sent.
    InputReply(Result<Value, WireError>),
    /// A notification as it came: all of them, where the encoding is JSON.
    Notification(Value),
}

/// An input without an answer.
struct Sent {
    params: Value,
    /// The request that it is, on the present connection.
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
    /// A `job.tail` is on its way.
    subscribing: bool,
    subscription: Option<Value>,
    stop_request: Option<&'static str>,
    /// What was sent last to the job's stdin, until it is answered.
    input: Option<Sent>,
    /// The event behind a notification that was passed on as it came.
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
    /// Goes on with a tail that a `job.submit` over this link has begun. `reply` is its result.
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

    /// Whether an end comes although the tail does not follow.
    pub fn will_end(&self) -> bool {
        self.options.follow || self.is_final
    }

    /// Asks the server to `cancel` or `kill` the job: now, and again after every loss, until the
    /// job ends. The answer is the job's end, or [`FollowEvent::Refused`].
    pub async fn request_stop(&mut self, action: &'static str) {
        self.stop_request = Some(action);
        self.send_stop_request().await;
    }

    /// Sends an input (the parameters of `job.input`, the job aside): now, and again after every
    /// loss, until there is an [`FollowEvent::InputReply`]. It must have a `write_id`.
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
            // A dropped call has left an answer behind on that connection.
            self.link.mark_lost();
        }
        self.link.client().await?;
        self.subscribing = true;
        let reply = self
            .link
            .try_request("job.tail", &Value::Object(params))
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
        // From now on by its id: a number would name another job in another data directory.
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
        // A loss is seen by the next read; the wish is sent again on the next connection.
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
        if let ("job.gap", Some(from), Some(to)) = (method, position("from"), position("to")) {
            self.advance(from, to)?;
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

    /// Moves to `to`, where `from` is the next offset, or lies behind it because another stream's
    /// bytes were left out.
    fn advance(&mut self, from: u64, to: u64) -> anyhow::Result<()> {
        let filtered = self.options.stream.is_some();
        if to < from || from < self.next_offset || (!filtered && from != self.next_offset) {
            bail!(
                "the server sent bytes {from} to {to}, but byte {} was next; please report this with the server's log",
                self.next_offset
            );
        }
        self.next_offset = to;
        Ok(())
    }
}

/// The tail that a reply has begun. A `job.submit` may succeed without one.
fn subscription(reply: &Value) -> Option<Value> {
    reply
        .get("subscription")
        .filter(|id| !id.is_null())
        .cloned()
}
