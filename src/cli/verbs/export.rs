//! `export`: a job's recording as bytes, as JSON or as an asciicast, to a file or to stdout.
//!
//! It is written while it is read, so that an output of any length needs little memory.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    cli::{
        connect::{
            find_job,
            link::{self, StartPolicy, VersionNotice},
            signals::Signals,
            target::Connect,
        },
        render::{
            asciicast::Asciicast,
            duration, exit_code,
            export_output::ExportOutput,
            job::ShownJob,
            print,
            recording::{RecordedChunk, RecordedGap, RecordedItem, Recording},
        },
    },
    escape::visible_json,
};

/// Options of `export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
text is what the job wrote, byte for byte, both streams in the order in which they were captured. json \
is one object: the job, `chunks` as in a reply of `job.read`, and `gaps`. asciicast (version 2) plays in \
asciinema's player, with the recorded times; bytes that are not UTF-8 are replaced there.

A job that still runs is exported up to its present end. No format contains values of the \
environment or the job's stdin.

FILE gets its name when it is complete, and only its owner can read it. An existing FILE is replaced \
only with --force.

Exit code: 0, or 1 when bytes are missing: text and asciicast go on after them, and each gap is a \
line on stderr.")]
pub struct ExportArgs {
    #[command(flatten)]
    connect: Connect,

    /// The job: a number, an id, a name (the newest of it), or `last` for the newest of all
    #[arg(default_value = "last")]
    job: String,

    /// Format to write
    #[arg(long, value_enum)]
    format: ExportFormat,

    /// Write to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Replace FILE if it exists
    #[arg(long, requires = "output")]
    force: bool,

    /// Export only this stream
    #[arg(long, value_parser = ["stdout", "stderr", "pty"])]
    stream: Option<String>,

    /// Shorten longer pauses to this time (2, 500ms); asciicast only
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    idle_limit: Option<f64>,
}

/// The format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ExportFormat {
    /// One JSON object
    Json,
    /// Asciicast version 2
    Asciicast,
    /// The output's bytes
    Text,
}

/// Writes the recording. A signal ends it and removes the unfinished file.
pub async fn export(args: ExportArgs) -> anyhow::Result<ExitCode> {
    if args.output.is_none() {
        return write(args).await;
    }
    let mut signals = Signals::watch()?;
    tokio::select! {
        done = write(args) => done,
        asked = signals.next() => Ok(ExitCode::from(asked.exit_code())),
    }
}

async fn write(args: ExportArgs) -> anyhow::Result<ExitCode> {
    let idle_max = idle_max(args.idle_limit)?;
    let target = args.connect.target()?;
    let Some(mut link) = link::open(target, StartPolicy::IfData, VersionNotice::Always).await?
    else {
        return find_job::no_jobs();
    };
    let job = find_job::resolve(&mut link, &args.job).await?;
    let mut recording = Recording::begin(link, &job, args.stream).await?;
    let described = ShownJob::read(&recording.job)?;
    let mut formatter = ExportFormatter::new(args.format, &described, idle_max);
    let mut out = ExportOutput::open(args.output.as_deref(), args.force)?;
    out.write(formatter.begin(&described, &recording.job).as_bytes())?;
    while let Some(items) = recording.next().await? {
        for item in items {
            match item {
                RecordedItem::Chunk(chunk) => out.write(&formatter.chunk(chunk))?,
                RecordedItem::Gap(gap) => formatter.gap(gap),
            }
        }
    }
    out.write(formatter.end(recording.next_offset()).as_bytes())?;
    out.finish()?;
    Ok(match formatter.gaps.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(exit_code::FAILURE),
    })
}

/// The value as JSON in which nothing acts on a terminal.
fn json_text(value: &Value) -> String {
    visible_json(&value.to_string())
}

/// The value of `--idle-limit`, given in seconds.
pub fn idle_max(seconds: Option<f64>) -> anyhow::Result<Option<Duration>> {
    let length = seconds.map(Duration::try_from_secs_f64).transpose();
    length.context("--idle-limit is too long; leave it out for none")
}

/// Makes the bytes of a format from the items of a recording.
struct ExportFormatter {
    format: ExportFormat,
    asciicast: Asciicast,
    /// Whether a chunk was written: the next one then needs a comma in JSON.
    begun: bool,
    gaps: Vec<Value>,
}

impl ExportFormatter {
    fn new(format: ExportFormat, job: &ShownJob, idle_max: Option<Duration>) -> Self {
        Self {
            format,
            asciicast: Asciicast::new(job, idle_max),
            begun: false,
            gaps: Vec::new(),
        }
    }

    fn begin(&self, job: &ShownJob, value: &Value) -> String {
        match self.format {
            ExportFormat::Text => String::new(),
            ExportFormat::Asciicast => Asciicast::header(job, value),
            ExportFormat::Json => format!("{{\"job\":{},\n\"chunks\":[", json_text(value)),
        }
    }

    fn chunk(&mut self, chunk: RecordedChunk) -> Vec<u8> {
        match self.format {
            ExportFormat::Text => chunk.data,
            ExportFormat::Asciicast => self.asciicast.lines(&chunk).into_bytes(),
            ExportFormat::Json => {
                let comma = if self.begun { "," } else { "" };
                self.begun = true;
                format!("{comma}\n{}", json_text(&chunk.json)).into_bytes()
            }
        }
    }

    fn gap(&mut self, gap: RecordedGap) {
        if self.format != ExportFormat::Json {
            print::line(&gap.message());
        }
        self.gaps.push(gap.0);
    }

    fn end(&mut self, next_offset: u64) -> String {
        match self.format {
            ExportFormat::Text => String::new(),
            ExportFormat::Asciicast => self.asciicast.flush(),
            ExportFormat::Json => {
                let gaps = json_text(&json!(self.gaps));
                format!("],\n\"gaps\":{gaps},\"next_offset\":{next_offset}}}\n")
            }
        }
    }
}
