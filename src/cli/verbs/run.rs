//! `run`: a job that behaves like the command itself: its bytes, its exit code, its Ctrl-C.
//!
//! The job is the server's; this process may come and go. Whatever it has to say of its own is at
//! most one line where stderr is not a terminal.

use std::{cell::Cell, process::ExitCode, time::Duration};

use anyhow::Context;
use serde_json::{Map, Value, json};
use tokio::{
    pin, select,
    time::{Instant, sleep_until},
};

use super::submit::{self, HandIn};
use crate::{
    cli::{
        connect::{
            follow::{Follow, FollowEncoding, FollowEvent, FollowFrom, FollowOptions},
            forward::Forward,
            link::{Link, Tell},
            signals::{SignalRequest, Signals},
            stdin::Stdin,
            target::Connect,
        },
        new_job::options::JobOptions,
        render::{
            describe, duration, exit_code,
            job::ShownJob,
            outputs::{Broken, Outputs},
            print,
        },
    },
    job::NewJob,
};

/// Options of `run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code: the job's own; 128+N when signal N ended it; 124 timeout or stalled; 127 not found; \
126 not executable; 130 cancelled; 125 when cc-executor itself failed, and for every other end. \
When run detaches and the job goes on (unless --on-disconnect cancel was given): 129 after a \
hang-up of the terminal, 141 after the reader of the output has left, 130 after a third Ctrl-C.

The first Ctrl-C or SIGTERM cancels the job, the second one kills it, the third one detaches.")]
pub struct RunArgs {
    #[command(flatten)]
    connect: Connect,

    /// Print the job's id and return; the job goes on
    #[arg(long)]
    detach: bool,

    /// What the server does when this process ends or loses its connection: let the job go on, or
    /// cancel it. A restart of the server does not count; a client that follows the job in time
    /// keeps it
    #[arg(long, value_enum, default_value_t, conflicts_with = "detach")]
    on_disconnect: OnDisconnectOption,

    /// Time between that loss and the cancel [default: 10]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    disconnect_delay: Option<f64>,

    #[command(flatten)]
    job: JobOptions,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum OnDisconnectOption {
    #[default]
    Continue,
    Cancel,
}

impl RunArgs {
    /// Adds what the loss of this connection shall mean.
    fn tie(&self, new_job: &mut Map<String, Value>) {
        if self.on_disconnect == OnDisconnectOption::Cancel {
            new_job.insert("on_disconnect".to_owned(), json!("cancel"));
        }
        if let Some(delay) = self.disconnect_delay {
            new_job.insert("disconnect_delay_s".to_owned(), json!(delay));
        }
    }
}

/// After so long a person is told what is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs the job and ends as it ends.
pub async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let mut new_job = submit::describe(&args.job, &target, NewJob::INTERACTIVE_QUEUE)?;
    args.tie(&mut new_job);
    let tail = FollowOptions {
        from: FollowFrom::Offset(0),
        follow: true,
        stream: None,
        encoding: FollowEncoding::Binary,
    };
    if !args.detach {
        new_job.insert("tail".to_owned(), Value::Object(tail.params()));
    }
    let mut signals = Signals::watch()?;
    let hand_in = HandIn::default();
    let handing_in = hand_in.hand_in(target, new_job, Tell::Person);
    let (asked, submitted) = patiently(handing_in, &hand_in.sent, &mut signals).await;
    let Some(submitted) = submitted else {
        return Ok(ExitCode::from(left_by(asked)));
    };
    let (link, reply) = submitted?;
    if args.detach {
        return detach(&ShownJob::read(&reply["job"])?);
    }
    let number = reply["job"]["number"].clone();
    let watched = watch(args.job.interactive, link, &reply, tail, signals, asked).await;
    // From here on there is a job, and whatever fails here does not end it.
    watched.with_context(|| {
        format!("job {number} was submitted; `cc-executor tail {number}` follows it")
    })
}

async fn watch(
    interactive: bool,
    link: Link,
    reply: &Value,
    tail: FollowOptions,
    signals: Signals,
    asked: Option<SignalRequest>,
) -> anyhow::Result<ExitCode> {
    let forward = match interactive {
        true => Forward::of(Stdin::start()?),
        false => Forward::nothing(),
    };
    RunningJob::new(link, reply, tail, signals, forward)?
        .watch(asked)
        .await
}

/// Hands the job in. A signal before it was sent leaves (`None`); behind that the first one is
/// remembered, because the job may exist already, and a second one leaves.
async fn patiently<T>(
    handing_in: impl Future<Output = T>,
    sent: &Cell<bool>,
    signals: &mut Signals,
) -> (Option<SignalRequest>, Option<T>) {
    pin!(handing_in);
    let mut asked = None;
    loop {
        select! {
            done = &mut handing_in => return (asked, Some(done)),
            ask = signals.next() => {
                if asked.is_some() || !sent.get() {
                    return (Some(ask), None);
                }
                asked = Some(ask);
            }
        }
    }
}

fn left_by(asked: Option<SignalRequest>) -> u8 {
    match asked {
        Some(SignalRequest::HangUp) => exit_code::HUNG_UP,
        Some(SignalRequest::Interrupt | SignalRequest::Terminate) | None => exit_code::CANCELLED,
    }
}

fn detach(job: &ShownJob) -> anyhow::Result<ExitCode> {
    print::page(&format!("{}\n", job.id))?;
    print::to_person(&format!(
        "job {0} goes on; `cc-executor tail {0}` follows it",
        job.number
    ));
    Ok(ExitCode::SUCCESS)
}

/// A job that is being watched.
struct RunningJob {
    follow: Follow,
    outputs: Outputs,
    signals: Signals,
    forward: Forward,
    /// How often somebody asked for its end.
    asked: u32,
    /// What a person will be told if it takes long.
    note: Option<(Instant, String)>,
    waits: String,
}

/// What happened.
enum RunStep {
    Event(anyhow::Result<FollowEvent>),
    Asked(SignalRequest),
    Broken(Broken),
    Input(Value),
    Long,
}

impl RunningJob {
    fn new(
        link: Link,
        reply: &Value,
        tail: FollowOptions,
        signals: Signals,
        forward: Forward,
    ) -> anyhow::Result<Self> {
        let job = ShownJob::read(&reply["job"])?;
        let mut running = Self {
            follow: Follow::submitted(link, reply, tail)?,
            outputs: Outputs::start()?,
            signals,
            forward,
            asked: 0,
            note: None,
            waits: format!("job {} {}", job.number, describe::waiting(&job)),
        };
        running.entered(&job.state);
        Ok(running)
    }

    async fn watch(mut self, asked: Option<SignalRequest>) -> anyhow::Result<ExitCode> {
        if let Some(ask) = asked
            && let Some(code) = self.heed(ask).await
        {
            return Ok(ExitCode::from(code));
        }
        loop {
            match self.step().await {
                RunStep::Event(event) => {
                    if let Some(job) = self.take(event?)? {
                        return self.ended(&job).await;
                    }
                }
                RunStep::Asked(ask) => {
                    if let Some(code) = self.heed(ask).await {
                        return Ok(ExitCode::from(code));
                    }
                }
                RunStep::Broken(broken) => return Ok(ExitCode::from(self.cut_off(&broken))),
                RunStep::Input(input) => self.follow.input(input).await,
                RunStep::Long => {
                    if let Some((_, text)) = self.note.take() {
                        print::to_person(&text);
                    }
                }
            }
        }
    }

    /// Waits for whatever comes first. Output is only fetched when there is room for it.
    async fn step(&mut self) -> RunStep {
        let at = self.note.as_ref().map_or_else(Instant::now, |(at, _)| *at);
        let room = self.outputs.room();
        let fetch = async {
            let room = room.await;
            match self.follow.next().await {
                Ok(FollowEvent::Output(frame)) => {
                    room.send(frame);
                    Ok(FollowEvent::Flowing)
                }
                other => other,
            }
        };
        select! {
            biased;
            ask = self.signals.next() => RunStep::Asked(ask),
            broken = self.outputs.broken() => RunStep::Broken(broken),
            // Never twice without an event in between, so that output is not kept waiting.
            input = self.forward.next() => RunStep::Input(input),
            event = fetch => RunStep::Event(event),
            () = sleep_until(at), if self.note.is_some() => RunStep::Long,
        }
    }

    /// Notes what happened; the job, once it is final.
    fn take(&mut self, event: FollowEvent) -> anyhow::Result<Option<ShownJob>> {
        match event {
            FollowEvent::End(job) => return Ok(Some(*job)),
            FollowEvent::State(state) => self.entered(&state),
            FollowEvent::Away => {
                self.remind("the server is gone; the job goes on; waiting for a server")
            }
            FollowEvent::Flowing | FollowEvent::Back => self.note = None,
            FollowEvent::Refused(error) => print::to_person(&error.message),
            FollowEvent::Answered(answer) => {
                if let Some(error) = self.forward.answered(answer) {
                    print::to_person(&error.message);
                }
            }
            FollowEvent::Gap(gap) => print::to_person(&format!(
                "bytes {} to {} are missing ({})",
                gap["from"],
                gap["to"],
                gap["reason"].as_str().unwrap_or("unknown")
            )),
            FollowEvent::Output(_) | FollowEvent::CaughtUp | FollowEvent::Notice(_) => {}
        }
        Ok(None)
    }

    fn entered(&mut self, state: &str) {
        self.note = None;
        if matches!(state, "queued" | "scheduled" | "blocked") {
            let waits = self.waits.clone();
            self.remind(&waits);
        }
    }

    fn remind(&mut self, text: &str) {
        self.note = Some((Instant::now() + PATIENCE, text.to_owned()));
    }

    /// Does what a signal asks; the exit code, where that is to leave.
    async fn heed(&mut self, ask: SignalRequest) -> Option<u8> {
        let number = self.follow.number();
        if ask == SignalRequest::HangUp {
            print::line(&gone_on("the terminal hung up", number));
            return Some(exit_code::HUNG_UP);
        }
        self.asked += 1;
        match (self.asked, ask) {
            (1, _) => {
                print::to_person(&format!(
                    "cancelling job {number}; press Ctrl-C again to kill it"
                ));
                self.follow.wish("cancel").await;
            }
            (2, _) => {
                print::to_person(&format!(
                    "killing job {number}; press Ctrl-C again to detach"
                ));
                self.follow.wish("kill").await;
            }
            _ => {
                print::line(&gone_on("third signal", number));
                return Some(exit_code::CANCELLED);
            }
        }
        None
    }

    /// Nobody takes the bytes any more: the job goes on without us.
    fn cut_off(&self, broken: &Broken) -> u8 {
        let number = self.follow.number();
        if broken.nobody_reads() {
            print::line(&gone_on(
                &format!("the reader of {} has left", broken.what()),
                number,
            ));
            return exit_code::BROKEN_PIPE;
        }
        print::line(&gone_on(&broken.to_string(), number));
        exit_code::OURS
    }

    /// The job is final: the last bytes go out, then we leave as it did.
    async fn ended(self, job: &ShownJob) -> anyhow::Result<ExitCode> {
        let code = exit_code::of(job);
        let Self {
            outputs,
            mut signals,
            ..
        } = self;
        select! {
            biased;
            written = outputs.finish() => match written {
                Err(broken) if !broken.nobody_reads() => {
                    print::line(&gone_on(&broken.to_string(), job.number));
                    return Ok(ExitCode::from(exit_code::OURS));
                }
                _ => {}
            },
            ask = signals.next() => return Ok(ExitCode::from(left_by(Some(ask)))),
        }
        tell_end(job, code);
        Ok(ExitCode::from(code))
    }
}

fn gone_on(why: &str, number: i64) -> String {
    format!("{why}: detached from job {number}; `cc-executor tail {number}` shows its output")
}

/// The line for ends that the job's own bytes cannot explain.
fn tell_end(job: &ShownJob, code: u8) {
    let spawn = job
        .spawn_error
        .as_ref()
        .filter(|_| job.reason.as_deref() == Some("spawn"));
    match (spawn, job.reason.as_deref()) {
        (Some(error), _) => print::line(&describe::spawn(error)),
        (None, Some("timeout" | "stalled")) => {
            print::to_person(&format!("job {} {}", job.number, describe::of(job)));
        }
        (None, Some("exit_code" | "signal") | None) => {}
        (None, Some(_)) if code == exit_code::OURS => print::line(&format!(
            "job {0} {1}; `cc-executor show {0}` shows more",
            job.number,
            describe::of(job)
        )),
        _ => {}
    }
}
