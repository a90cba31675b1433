//! A session whose calls are entered into the history, and which is opened anew when it breaks.
//! Does not know what the calls mean.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    harness::{Client, Frame},
    history::What,
    plan::Key,
    random::Random,
    world::World,
};

/// The server is stopping, the disk is full, a shim does not answer: try again later.
pub const UNAVAILABLE: i64 = -32006;
/// The state of things does not allow it.
pub const CONFLICT: i64 = -32004;
/// There is no such job.
pub const NOT_FOUND: i64 = -32003;
/// A limit is reached.
pub const LIMIT_EXCEEDED: i64 = -32005;

/// What the client says when a living server does not answer.
const TOO_LATE: &str = "the ceiling is reached";

/// How much later than after its own time a wait may be answered, on a machine that is busy with everything else.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

/// Before something is tried again that was refused for now.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// A session of one client.
pub struct Link<'w> {
    pub world: &'w World,
    pub random: Random,
    client: Option<Client>,
    launch: u32,
}

/// What came of a call.
#[derive(Debug)]
pub enum Reply {
    Done(u32, Value),
    Refused(i64, Value),
    /// The connection broke: nobody knows.
    Broken,
}

impl<'w> Link<'w> {
    /// One that connects when it is first used; its decisions follow from `salt`.
    pub fn new(world: &'w World, salt: u64) -> Self {
        Self {
            world,
            random: Random::new(world.settings.seed, salt),
            client: None,
            launch: 0,
        }
    }

    /// Calls once.
    pub fn call(
        &mut self,
        job: Option<Key>,
        method: &'static str,
        note: &str,
        params: Value,
    ) -> Reply {
        let history = &self.world.history;
        let call = history.name();
        if !self.connect() {
            return Reply::Broken;
        }
        let note = note.to_owned();
        history.note(job, What::Asked { call, method, note });
        let answer = self.client.as_mut().map(|it| it.try_call(method, params));
        match answer {
            Some(Ok(Ok(result))) => {
                history.note(job, What::Answered { call });
                Reply::Done(call, result)
            }
            Some(Ok(Err(error))) => {
                let code = error["code"].as_i64().unwrap_or_default();
                let why = error["message"].as_str().unwrap_or_default().to_owned();
                history.note(job, What::Refused { call, code, why });
                Reply::Refused(code, error)
            }
            Some(Err(why)) if why == TOO_LATE => {
                history.wrong(job, format!("{method} was not answered for a minute"));
                self.hang_up();
                Reply::Broken
            }
            Some(Err(_)) | None => {
                history.note(job, What::Broken { call });
                self.hang_up();
                Reply::Broken
            }
        }
    }

    /// Calls once, with what says itself how long it may wait: a living server must answer within that time and
    /// what a busy machine may add.
    pub fn call_within(
        &mut self,
        wait: Duration,
        job: Option<Key>,
        method: &'static str,
        note: &str,
        params: Value,
    ) -> Reply {
        if !self.connect() {
            return Reply::Broken;
        }
        let asked = Instant::now();
        let reply = self.call(job, method, note, params);
        let took = asked.elapsed();
        if !matches!(reply, Reply::Broken) && took > wait + ANSWERED_WITHIN {
            let what = format!("{method} {note} with {wait:?} was answered after {took:?}");
            self.world.history.wrong(job, what);
        }
        reply
    }

    /// Calls until somebody knows what came of it: a result, or a refusal that is not for now.
    /// `None` when the run is over.
    pub fn insist(
        &mut self,
        job: Option<Key>,
        method: &'static str,
        note: &str,
        params: &Value,
    ) -> Option<Result<(u32, Value), (i64, Value)>> {
        while !self.world.is_over() {
            match self.call(job, method, note, params.clone()) {
                Reply::Done(call, result) => return Some(Ok((call, result))),
                Reply::Refused(UNAVAILABLE, _) => thread::sleep(AGAIN_AFTER),
                Reply::Refused(code, error) => return Some(Err((code, error))),
                Reply::Broken => {}
            }
        }
        None
    }

    /// The next notification, `None` when nothing comes for so long.
    pub fn frame(&mut self, limit: Duration) -> Option<Frame> {
        let frame = match &mut self.client {
            Some(client) => client.frame_or_closed_within(limit),
            None => Some(Frame::Closed(None)),
        };
        match frame {
            Some(Frame::Closed(_)) => self.hang_up(),
            Some(_) => self.world.progressed(self.launch),
            None => {}
        }
        frame
    }

    /// Closes the connection without a word.
    pub fn hang_up(&mut self) {
        self.client = None;
    }

    fn connect(&mut self) -> bool {
        if self.client.is_none()
            && let Some((client, launch)) = self.world.connect(&mut self.random)
        {
            self.client = Some(client);
            self.launch = launch;
        }
        self.client.is_some()
    }
}
