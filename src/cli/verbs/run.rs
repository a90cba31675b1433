//! `run`: a job that behaves like the command itself: its bytes, its exit code, its Ctrl-C.
//!
//! The job belongs to the server and goes on without this process. Where stderr is not a terminal,
//! this process adds at most one line of its own.

use std::{cell::Cell, process::ExitCode, time::Duration};

use anyhow::Context;
use serde_json::{Map, Value, json};
use tokio::{
    pin, select,
    time::{Instant, sleep_until},
};

use super::submit::{self, SubmitInProgress};
use crate::{
    cli::{
        connect::{
            follow::{Follow, FollowEncoding, FollowEvent, FollowFrom, FollowOptions},
            forward::Forward,
            link::{Link, VersionNotice},
            signals::{SignalRequest, Signals},
            stdin::Stdin,
            target::Connect,
        },
        new_job::options::{JobOptions, keep_after_disconnect},
        render::{
            describe, duration, exit_code,
            job::ShownJob,
            outputs::{Broken, Outputs},
            print,
        },
    },
    job::JobSpec,
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
    /// Adds the keys that say what the server does when it loses this connection.
    fn add_on_disconnect(&self, new_job: &mut Map<String, Value>) {
        if self.on_disconnect == OnDisconnectOption::Cancel {
            new_job.insert("on_disconnect".to_owned(), json!("cancel"));
        }
        if let Some(delay) = self.disconnect_delay {
            new_job.insert("disconnect_delay_s".to_owned(), json!(delay));
        }
    }
}

/// After this time a line on the terminal says what the command waits for.
const NOTE_AFTER: Duration = Duration::from_secs(1);

/// Submits the job, follows it, and exits with its code.
pub async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let mut new_job = submit::describe(&args.job, &target, JobSpec::INTERACTIVE_QUEUE)?;
    args.add_on_disconnect(&mut new_job);
    let tail = FollowOptions {
        from: FollowFrom::Offset(0),
        follow: true,
        stream: None,
        encoding: FollowEncoding::Binary,
    };
    match args.detach {
        true => keep_after_disconnect(&mut new_job),
        false => drop(new_job.insert("tail".to_owned(), Value::Object(tail.params()))),
    }
    let mut signals = Signals::watch()?;
    let submission = SubmitInProgress::of(&new_job);
    let submitting = submission.submit(target, new_job, VersionNotice::OnTerminal);
    let (signal, submitted) =
        submit_unless_signalled(submitting, &submission.may_exist, &mut signals).await;
    let Some(submitted) = submitted else {
        submission.print_interrupted();
        return Ok(ExitCode::from(exit_code_of_signal(signal)));
    };
    let (link, reply) = submitted?;
    if args.detach {
        return detach(&ShownJob::read(&reply["job"])?);
    }
    let number = reply["job"]["number"].clone();
    let watched = watch(args.job.interactive, link, &reply, tail, signals, signal).await;
    // From here on the job exists, and a failure here does not end it.
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
    signal: Option<SignalRequest>,
) -> anyhow::Result<ExitCode> {
    let forward = match interactive {
        true => Forward::of(Stdin::start()?),
        false => Forward::nothing(),
    };
    RunningJob::new(link, reply, tail, signals, forward)?
        .watch(signal)
        .await
}

/// Submits the job. A signal while no job may exist ends the wait (`None`). Of one that may exist the first
/// signal is returned with the reply, and a second one ends the wait.
async fn submit_unless_signalled<T>(
    submitting: impl Future<Output = T>,
    may_exist: &Cell<bool>,
    signals: &mut Signals,
) -> (Option<SignalRequest>, Option<T>) {
    pin!(submitting);
    let mut first = None;
    loop {
        select! {
            done = &mut submitting => return (first, Some(done)),
            signal = signals.next() => {
                if first.is_some() || !may_exist.get() {
                    return (Some(signal), None);
                }
                first = Some(signal);
            }
        }
    }
}

fn exit_code_of_signal(signal: Option<SignalRequest>) -> u8 {
    match signal {
        Some(SignalRequest::HangUp) => exit_code::HUNG_UP,
        Some(SignalRequest::Interrupt | SignalRequest::Terminate) | None => exit_code::CANCELLED,
    }
}

fn detach(job: &ShownJob) -> anyhow::Result<ExitCode> {
    print::page(&format!("{}\n", job.id))?;
    print::line_on_terminal(&format!(
        "job {0} goes on; `cc-executor tail {0}` follows it",
        job.number
    ));
    Ok(ExitCode::SUCCESS)
}

/// A job that is followed.
struct RunningJob {
    follow: Follow,
    outputs: Outputs,
    signals: Signals,
    forward: Forward,
    /// How many Ctrl-C and SIGTERM have come: 1 cancels, 2 kills, 3 detaches.
    stop_signals: u32,
    /// A line for the terminal, and the time when it is printed unless something happens before.
    note: Option<(Instant, String)>,
    queue_note: String,
}

/// What happened next while a job is followed.
enum RunStep {
    Event(anyhow::Result<FollowEvent>),
    Signal(SignalRequest),
    Broken(Broken),
    Input(Value),
    NoteDue,
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
            stop_signals: 0,
            note: None,
            queue_note: format!("job {} {}", job.number, describe::waiting(&job)),
        };
        running.on_state(&job.state);
        Ok(running)
    }

    async fn watch(mut self, signal: Option<SignalRequest>) -> anyhow::Result<ExitCode> {
        if let Some(signal) = signal
            && let Some(code) = self.on_signal(signal).await
        {
            return Ok(ExitCode::from(code));
        }
        loop {
            match self.step().await {
                RunStep::Event(event) => {
                    if let Some(job) = self.on_event(event?)? {
                        return self.finish(&job).await;
                    }
                }
                RunStep::Signal(signal) => {
                    if let Some(code) = self.on_signal(signal).await {
                        return Ok(ExitCode::from(code));
                    }
                }
                RunStep::Broken(broken) => {
                    return Ok(ExitCode::from(self.on_broken_output(&broken)));
                }
                RunStep::Input(input) => self.follow.input(input).await,
                RunStep::NoteDue => {
                    if let Some((_, text)) = self.note.take() {
                        print::line_on_terminal(&text);
                    }
                }
            }
        }
    }

    /// Waits for whatever comes first. Output is only read when the writing thread can take it.
    async fn step(&mut self) -> RunStep {
        let at = self.note.as_ref().map_or_else(Instant::now, |(at, _)| *at);
        let permit = self.outputs.permit();
        let fetch = async {
            let permit = permit.await;
            match self.follow.next().await {
                Ok(FollowEvent::Output(frame)) => {
                    permit.send(frame);
                    Ok(FollowEvent::OutputSent)
                }
                other => other,
            }
        };
        select! {
            biased;
            signal = self.signals.next() => RunStep::Signal(signal),
            broken = self.outputs.broken() => RunStep::Broken(broken),
            // Before `fetch`, but it cannot starve it: there is no next input before a reply.
            input = self.forward.next() => RunStep::Input(input),
            event = fetch => RunStep::Event(event),
            () = sleep_until(at), if self.note.is_some() => RunStep::NoteDue,
        }
    }

    /// Handles an event; returns the job once it is final.
    fn on_event(&mut self, event: FollowEvent) -> anyhow::Result<Option<ShownJob>> {
        match event {
            FollowEvent::End(job) => return Ok(Some(*job)),
            FollowEvent::State(state) => self.on_state(&state),
            FollowEvent::Disconnected => {
                self.note_later("the server is gone; the job goes on; waiting for a server")
            }
            FollowEvent::OutputSent | FollowEvent::Reconnected => self.note = None,
            FollowEvent::Refused(error) => print::line_on_terminal(&error.message),
            FollowEvent::InputReply(reply) => {
                if let Some(error) = self.forward.on_reply(reply) {
                    print::line_on_terminal(&error.message);
                }
            }
            FollowEvent::Gap(gap) => print::line_on_terminal(&format!(
                "bytes {} to {} are missing ({})",
                gap["from"],
                gap["to"],
                gap["reason"].as_str().unwrap_or("unknown")
            )),
            FollowEvent::Output(_) | FollowEvent::CaughtUp | FollowEvent::Notification(_) => {}
        }
        Ok(None)
    }

    fn on_state(&mut self, state: &str) {
        self.note = None;
        if matches!(state, "queued" | "scheduled" | "blocked") {
            let waits = self.queue_note.clone();
            self.note_later(&waits);
        }
    }

    fn note_later(&mut self, text: &str) {
        self.note = Some((Instant::now() + NOTE_AFTER, text.to_owned()));
    }

    /// Acts on a signal; returns an exit code if this process is to leave.
    async fn on_signal(&mut self, signal: SignalRequest) -> Option<u8> {
        let number = self.follow.number();
        if signal == SignalRequest::HangUp {
            print::line(&detached_message("the terminal hung up", number));
            return Some(exit_code::HUNG_UP);
        }
        self.stop_signals += 1;
        match (self.stop_signals, signal) {
            (1, _) => {
                print::line_on_terminal(&format!(
                    "cancelling job {number}; press Ctrl-C again to kill it"
                ));
                self.follow.request_stop("cancel").await;
            }
            (2, _) => {
                print::line_on_terminal(&format!(
                    "killing job {number}; press Ctrl-C again to detach"
                ));
                self.follow.request_stop("kill").await;
            }
            _ => {
                print::line(&detached_message("third signal", number));
                return Some(exit_code::CANCELLED);
            }
        }
        None
    }

    /// The output cannot be written any more: detaches, and returns the exit code.
    fn on_broken_output(&self, broken: &Broken) -> u8 {
        let number = self.follow.number();
        if broken.reader_left() {
            print::line(&detached_message(
                &format!("the reader of {} has left", broken.what()),
                number,
            ));
            return exit_code::BROKEN_PIPE;
        }
        print::line(&detached_message(&broken.to_string(), number));
        exit_code::RUN_FAILED
    }

    /// The job is final: writes the last bytes and returns the job's exit code. A signal leaves at
    /// once, because the reader of the output may be blocked.
    async fn finish(self, job: &ShownJob) -> anyhow::Result<ExitCode> {
        let code = exit_code::of(job);
        let Self {
            outputs,
            mut signals,
            ..
        } = self;
        select! {
            biased;
            written = outputs.finish() => match written {
                Err(broken) if !broken.reader_left() => {
                    print::line(&detached_message(&broken.to_string(), job.number));
                    return Ok(ExitCode::from(exit_code::RUN_FAILED));
                }
                _ => {}
            },
            signal = signals.next() => return Ok(ExitCode::from(exit_code_of_signal(Some(signal)))),
        }
        print_end(job, code);
        Ok(ExitCode::from(code))
    }
}

fn detached_message(why: &str, number: i64) -> String {
    format!("{why}: detached from job {number}; `cc-executor tail {number}` shows its output")
}

/// Prints a line for ends that the job's own output does not explain.
fn print_end(job: &ShownJob, code: u8) {
    let spawn = job
        .spawn_error
        .as_ref()
        .filter(|_| job.reason.as_deref() == Some("spawn"));
    match (spawn, job.reason.as_deref()) {
        (Some(error), _) => print::line(&describe::spawn(error)),
        (None, Some("timeout" | "stalled")) => {
            print::line_on_terminal(&format!("job {} {}", job.number, describe::of(job)));
        }
        (None, Some("exit_code" | "signal") | None) => {}
        (None, Some(_)) if code == exit_code::RUN_FAILED => print::line(&format!(
            "job {0} {1}; `cc-executor show {0}` shows more",
            job.number,
            describe::of(job)
        )),
        _ => {}
    }
}
