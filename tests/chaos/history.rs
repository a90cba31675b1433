//! What the clients of a run asked and were told, and who was killed when. Only records: what it
//! means is for the checkers to say.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    facts::Facts,
    plan::Key,
    schedules::{Account, Definition},
};

/// One line of the history.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Microseconds since 1970, by a clock that does not jump.
    pub at_us: u64,
    /// The job concerned.
    pub job: Option<Key>,
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A call was sent.
    Asked {
        call: u32,
        method: &'static str,
        note: String,
    },
    /// It was answered.
    Answered { call: u32 },
    /// It was refused.
    Refused { call: u32, code: i64, why: String },
    /// Nobody knows what became of it.
    Broken { call: u32 },
    /// A submit was acknowledged with this job.
    Acknowledged {
        call: u32,
        id: String,
        number: u64,
        created: bool,
    },
    /// A reader began, at this offset; of this stream only, if it names one.
    Began {
        reader: u32,
        from: u64,
        how: How,
        stream: Option<u8>,
    },
    /// It was shown these bytes.
    Shown { reader: u32, span: Span },
    /// It was told of a gap.
    Gap {
        reader: u32,
        from: u64,
        to: u64,
        reason: String,
    },
    /// It was told to go on here: up to here there is nothing more of its stream.
    Passed { reader: u32, to: u64 },
    /// It has caught up.
    CaughtUp { reader: u32, next_offset: u64 },
    /// It was told of a state.
    Told { reader: u32, state: String },
    /// It was told the end.
    Ended { reader: u32, facts: Facts },
    /// Something came behind its last word.
    Behind { reader: u32, what: String },
    /// The final job, as some other call told it.
    Final { facts: Facts },
    /// It was deleted.
    Deleted,
    /// A schedule was set since `asked_us`, or deleted.
    Scheduled {
        name: String,
        asked_us: u64,
        definition: Option<Definition>,
    },
    /// A run of a schedule was asked for; its job, if it was not refused.
    RunAtOnce {
        name: String,
        key: String,
        job: Option<String>,
    },
    /// What a paused schedule told of itself.
    Accounted { name: String, account: Account },
    /// A blow of the killer, just before it falls.
    Blow {
        target: Target,
        signal: &'static str,
    },
    /// A server was launched.
    Launched,
    /// It was ready after so long.
    Ready { after_us: u64 },
    /// A client of this server was first told something, so long after its launch.
    Progress { after_us: u64 },
    /// What must never be, whoever noticed it.
    Wrong { what: String },
}

/// How a reader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Tail,
    Read,
}

/// Bytes in one piece, of one stream and attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub offset: u64,
    pub length: u64,
    /// 0 stdout, 1 stderr.
    pub stream: u8,
    pub attempt: u32,
    pub crc32c: u32,
}

impl Span {
    /// Adds bytes that follow, if they are of the same stream and attempt.
    pub fn extend(&mut self, offset: u64, stream: u8, attempt: u32, data: &[u8]) -> bool {
        let follows = self.offset + self.length == offset;
        if !follows || (self.stream, self.attempt) != (stream, attempt) {
            return false;
        }
        self.length += data.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, data);
        true
    }
}

/// Who is hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Server,
    /// The shim with this id.
    Shim(String),
}

/// Takes the entries of all threads.
#[derive(Debug)]
pub struct History {
    began: Instant,
    began_us: u64,
    entries: Mutex<Vec<Entry>>,
    next: AtomicU32,
    wrong: AtomicBool,
}

impl History {
    /// An empty one, beginning now.
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            began: Instant::now(),
            began_us: since.expect("after 1970").as_micros() as u64,
            entries: Mutex::default(),
            next: AtomicU32::new(0),
            wrong: AtomicBool::new(false),
        }
    }

    /// Enters what happened just now.
    pub fn note(&self, job: Option<Key>, what: What) {
        if let What::Wrong { what } = &what {
            eprintln!("wrong: {job:?}: {what}");
            self.wrong.store(true, Ordering::Relaxed);
        }
        let mut entries = self.entries.lock().expect("the history");
        let at_us = self.now_us();
        entries.push(Entry { at_us, job, what });
    }

    /// The moment, by the clock of the entries.
    pub fn now_us(&self) -> u64 {
        self.began_us + self.began.elapsed().as_micros() as u64
    }

    /// Enters what must never be.
    pub fn wrong(&self, job: Option<Key>, what: impl Into<String>) {
        self.note(job, What::Wrong { what: what.into() });
    }

    /// Whether something was wrong already.
    pub fn is_wrong(&self) -> bool {
        self.wrong.load(Ordering::Relaxed)
    }

    /// A name for a call or a reader, never used before.
    pub fn name(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// All entries, in order.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries.into_inner().expect("the history")
    }
}
