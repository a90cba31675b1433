//! What one job of the run does, from its seed, and how it ends if nobody meddles.
//! Knows nothing of who submits it.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    harness::emit,
    random::Random,
    waiting::{Retry, Waiting},
};

/// Names a job within a run: the how-manieth it is.
pub type Key = u32;

/// How often a job is run at most that runs again after a loss.
pub const RUNS_MAX: u32 = 4;

/// Executes the rest of its words, and fails up to an attempt.
const FAILS_BEFORE: &str = r#"[ "$CC_EXECUTOR_ATTEMPT" -ge "$0" ] && exec "$@"; exec "$@" "#;

/// The queue that a run makes for itself, beside `default` and `interactive`.
pub const QUEUE: &str = "chaos";

/// A job that writes what can be computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub key: Key,
    pub seed: u64,
    pub kind: Kind,
    pub raw: bool,
    pub stdout_bytes: u64,
    pub stderr_bytes: u64,
    pub end: End,
    /// Controllers may pause, signal and cancel it.
    pub meddle: bool,
    /// Runs again where an attempt is lost.
    pub again: bool,
    /// Deleted once it is final.
    pub delete: bool,
    /// What it waits for.
    pub waiting: Waiting,
    /// Which failures are tried again.
    pub retry: Option<Retry>,
    /// The states that its receiver is told of.
    pub notify: Vec<&'static str>,
    chunk_max: u64,
    pause_us: u64,
    burst: u64,
    queue: &'static str,
    ignore_term: bool,
}

/// What sort of job it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Writes its bytes and ends.
    Writes,
    /// Writes them slowly, over several servers.
    Trickles,
    /// Echoes what `job.input` sends it.
    Echoes,
    /// Echoes its `stdin`.
    Fed,
    /// Leaves a process behind that has a session of its own.
    Orphans,
    /// Goes on until it is cancelled.
    Endless,
    /// Goes on until its timeout.
    TimesOut,
    /// Writes more than `output.max_bytes`.
    Overflows(u64),
    /// Names a program that does not exist.
    Missing,
}

/// How it ends if nobody meddles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Code(i64),
    Signal(&'static str),
    Timeout,
    OutputLimit,
    Spawn,
    /// Only by a cancel.
    Never,
}

impl End {
    /// The reason of a job that failed like this.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Code(0) | Self::Never => None,
            Self::Code(_) => Some("exit_code"),
            Self::Signal(_) => Some("signal"),
            Self::Timeout => Some("timeout"),
            Self::OutputLimit => Some("output_limit"),
            Self::Spawn => Some("spawn"),
        }
    }

    /// Its exit code.
    pub fn code(self) -> Option<i64> {
        match self {
            Self::Code(code) => Some(code),
            _ => None,
        }
    }
}

impl Plan {
    /// The plan of the job `key` of a run. `small`: no output of megabytes.
    pub fn new(run_seed: u64, key: Key, small: bool) -> Self {
        let mut random = Random::new(run_seed, u64::from(key) | 1 << 40);
        // 53 bits: the seed passes through JSON and a command line unchanged.
        let seed = random.number() >> 11;
        let kind = kind(&mut random);
        let (stdout_bytes, stderr_bytes) = sizes(kind, &mut random, small);
        let total = stdout_bytes + stderr_bytes;
        let end = end(kind, &mut random);
        let kind = match kind {
            Kind::Overflows(_) => Kind::Overflows(1 + random.below(total)),
            kind => kind,
        };
        let chunk_max = *random.one_of(&[1, 100, 4096, 65_536]).expect("some");
        let chunk_max = u64::max(chunk_max, total / 800 + 1);
        let (pause_us, burst) = pace(kind, &mut random, total / (chunk_max / 2 + 1) + 1);
        let waiting = Waiting::draw(&mut random);
        let slow = matches!(kind, Kind::Trickles | Kind::TimesOut);
        // What was said to one attempt is not said again to the next one.
        let retry = match kind {
            Kind::Echoes => None,
            _ => Retry::draw(end, slow, &mut random),
        };
        Self {
            key,
            seed,
            kind,
            raw: random.percent(35),
            stdout_bytes,
            stderr_bytes,
            end,
            again: kind != Kind::Echoes && random.percent(35),
            delete: random.percent(8),
            meddle: kind == Kind::Endless || random.percent(30),
            // A job that never ends would hold up all others of its key.
            waiting: Waiting {
                exclusive: waiting.exclusive.filter(|_| kind != Kind::Endless),
                ..waiting
            },
            retry,
            notify: notify(&mut random),
            chunk_max,
            pause_us,
            burst,
            queue: random.weighted(&[(3, "default"), (2, "interactive"), (5, QUEUE)]),
            ignore_term: kind == Kind::Endless && random.percent(30),
        }
    }

    /// The key under which it is submitted as often as needed.
    pub fn idempotency_key(&self) -> String {
        format!("chaos-{}", self.key)
    }

    /// All bytes that it writes, over both streams, if nobody meddles.
    pub fn total_bytes(&self) -> u64 {
        match self.kind {
            Kind::Overflows(limit) => limit,
            _ => self.stdout_bytes + self.stderr_bytes,
        }
    }

    /// How this attempt ends if nobody meddles.
    pub fn end_of(&self, attempt: u32) -> End {
        let succeeds_at = self.retry.as_ref().and_then(|retry| retry.succeeds_at);
        match succeeds_at.is_some_and(|first| first <= attempt) {
            true => End::Code(0),
            false => self.end,
        }
    }

    /// How many attempts may fail, lost ones aside.
    pub fn failures_max(&self) -> u32 {
        self.retry.as_ref().map_or(1, |retry| retry.max_attempts)
    }

    /// Whether this failure, the how-manieth it is, is followed by another attempt.
    pub fn is_tried_again(&self, reason: &str, exit_code: Option<i64>, failures: u32) -> bool {
        let retry = self.retry.as_ref();
        retry.is_some_and(|it| failures < it.max_attempts && it.covers(reason, exit_code))
    }

    /// The same if nobody meddles with this attempt.
    pub fn is_tried_again_after(&self, attempt: u32, failures: u32) -> bool {
        let end = self.end_of(attempt);
        let reason = end.reason();
        reason.is_some_and(|reason| self.is_tried_again(reason, end.code(), failures))
    }

    /// The job as it is submitted; `env` has the mark of the run.
    pub fn new_job(&self, ledger: &Path, env: &Value, url: &str) -> Value {
        let mut job = json!({
            "argv": self.argv(ledger),
            "env": env,
            "queue": self.queue,
            "idempotency_key": self.idempotency_key(),
            "grace_s": 0.3,
        });
        if self.again {
            job["on_lost"] = json!("retry");
        }
        self.waiting.write(&mut job);
        if !self.notify.is_empty() {
            job["notify"] = json!([{"on": self.notify, "url": url}]);
        }
        if let Some(retry) = &self.retry {
            job["retry"] = retry.json();
        }
        match self.kind {
            Kind::Echoes => job["interactive"] = json!(true),
            Kind::Fed => job["stdin"] = json!(self.stdin()),
            Kind::TimesOut => job["timeout_s"] = json!(1.5),
            Kind::Overflows(limit) => job["output"] = json!({"max_bytes": limit}),
            _ => {}
        }
        job
    }

    /// A part of what it echoes, as `job.input` takes it.
    pub fn input(&self, from: u64, to: u64) -> String {
        let bytes = crate::oracle::bytes(self.seed, 0, to, self.raw);
        STANDARD.encode(&bytes[from as usize..])
    }

    fn stdin(&self) -> String {
        let bytes = crate::oracle::bytes(self.seed, 0, self.stdout_bytes, false);
        String::from_utf8(bytes).expect("printable")
    }

    fn argv(&self, ledger: &Path) -> Vec<String> {
        if self.kind == Kind::Missing {
            return vec!["/nowhere/at/all".to_owned()];
        }
        let ledger = ledger.to_str().expect("a UTF-8 path");
        let mut argv: Vec<String> = [emit(), "--ledger", ledger].map(str::to_owned).into();
        let mut option = |name: &str, value: String| argv.extend([name.to_owned(), value]);
        option("--seed", self.seed.to_string());
        if !matches!(self.kind, Kind::Echoes | Kind::Fed) {
            option("--bytes", self.stdout_bytes.to_string());
            option("--err-bytes", self.stderr_bytes.to_string());
            option("--pause-us", self.pause_us.to_string());
            option("--burst", self.burst.to_string());
            option("--chunk", format!("1:{}", self.chunk_max));
        }
        if self.kind == Kind::Orphans {
            option("--grandchild", "100000".to_owned());
        }
        argv.extend(self.raw.then(|| "--raw".to_owned()));
        argv.extend(self.ignore_term.then(|| "--ignore-term".to_owned()));
        if matches!(self.kind, Kind::Echoes | Kind::Fed) {
            argv.push("--cat".to_owned());
        }
        let end = match self.end {
            End::Code(code) => vec!["--exit".to_owned(), code.to_string()],
            End::Signal(name) => vec!["--signal".to_owned(), name.replace("SIG", "")],
            End::Timeout | End::Never => vec!["--hold".to_owned(), "100000".to_owned()],
            End::OutputLimit | End::Spawn => Vec::new(),
        };
        let succeeds_at = self.retry.as_ref().and_then(|retry| retry.succeeds_at);
        match succeeds_at {
            None => [argv, end].concat(),
            Some(first) => {
                let line = format!("{FAILS_BEFORE}{}", end.join(" "));
                let shell = ["/bin/sh", "-c", &line, &first.to_string()].map(str::to_owned);
                [shell.to_vec(), argv].concat()
            }
        }
    }
}

fn kind(random: &mut Random) -> Kind {
    random.weighted(&[
        (56, Kind::Writes),
        (20, Kind::Trickles),
        (8, Kind::Echoes),
        (3, Kind::Fed),
        (4, Kind::Orphans),
        (2, Kind::Endless),
        (2, Kind::TimesOut),
        (3, Kind::Overflows(0)),
        (2, Kind::Missing),
    ])
}

fn notify(random: &mut Random) -> Vec<&'static str> {
    let share = if random.percent(30) { 40 } else { 0 };
    let mut states = vec![
        "scheduled",
        "blocked",
        "queued",
        "running",
        "paused",
        "succeeded",
        "failed",
        "cancelled",
    ];
    states.retain(|_| random.percent(share));
    states
}

fn sizes(kind: Kind, random: &mut Random, small: bool) -> (u64, u64) {
    let stdout = match kind {
        Kind::Writes => match random.below(100) {
            0..5 => 0,
            5..8 => random.below(if small { 900_000 } else { 5_000_000 }),
            8..25 => random.below(if small { 100_000 } else { 200_000 }),
            _ => random.below(8000),
        },
        Kind::Trickles => random.within(100, 40_000),
        Kind::Echoes | Kind::Fed => random.within(1, 20_000),
        Kind::Overflows(_) => random.within(10, 60_000),
        Kind::Missing => 0,
        Kind::Orphans | Kind::Endless | Kind::TimesOut => random.below(3000),
    };
    match kind {
        Kind::Echoes | Kind::Fed | Kind::Missing => (stdout, 0),
        _ => (stdout, random.below(2500)),
    }
}

fn end(kind: Kind, random: &mut Random) -> End {
    match kind {
        Kind::Endless => End::Never,
        Kind::TimesOut => End::Timeout,
        Kind::Overflows(_) => End::OutputLimit,
        Kind::Missing => End::Spawn,
        _ => match random.below(10) {
            0..2 => End::Code(random.within(1, 255) as i64),
            2 => End::Signal(
                random
                    .one_of(&["SIGKILL", "SIGTERM", "SIGUSR1"])
                    .expect("some"),
            ),
            _ => End::Code(0),
        },
    }
}

/// Microseconds between two bursts, and how many of about `chunks` chunks make one.
fn pace(kind: Kind, random: &mut Random, chunks: u64) -> (u64, u64) {
    if kind != Kind::Trickles {
        return (*random.one_of(&[0, 0, 0, 200]).expect("some"), 1);
    }
    let burst = *random.one_of(&[1, 1, 7, 50]).expect("some");
    let length_us = random.within(300_000, 6_000_000);
    (length_us / (chunks / burst + 1), burst)
}
