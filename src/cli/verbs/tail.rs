//! `tail`: shows a job's output and follows it. Does not affect the job.
//!
//! All streams go to stdout, in the order in which they were captured, so that
//! `tail JOB | sha256sum` agrees with the job's digest.

use std::process::ExitCode;

use serde_json::Value;

use crate::{
    cli::{
        connect::{
            find_job,
            follow::{Follow, FollowEncoding, FollowEvent, FollowFrom, FollowOptions},
            link::{self, Link, StartPolicy, VersionNotice},
            target::Connect,
            wire::OutputFrame,
        },
        render::{
            print,
            times::{self, Clock},
        },
    },
    job::Stream,
};

/// Options of `tail`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
All streams go to stdout in the order in which they were captured; --stream chooses one. \
Exit code: 0 when everything was shown, however the job ended. Ctrl-C does not affect the job.")]
pub struct TailArgs {
    #[command(flatten)]
    connect: Connect,

    /// The job: a number, an id, a name (the newest of it), or `last` for the newest of all
    #[arg(default_value = "last")]
    job: String,

    /// Begin this many lines before the end
    #[arg(short = 'n', long, value_name = "LINES", conflicts_with = "from")]
    lines: Option<u64>,

    /// Begin at this offset of the output, bytes
    #[arg(
        long,
        value_name = "OFFSET",
        default_value_t = 0,
        hide_default_value = true
    )]
    from: u64,

    /// Stop at the present end of the output
    #[arg(long)]
    no_follow: bool,

    /// Show only this stream
    #[arg(long, value_parser = ["stdout", "stderr", "pty"])]
    stream: Option<String>,

    /// Begin each line with the time of its capture
    #[arg(long, conflicts_with = "json")]
    timestamps: bool,

    /// Show times in UTC
    #[arg(long)]
    utc: bool,

    /// Print every notification as one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Shows the job's output.
pub async fn tail(args: TailArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let Some(mut link) = link::open(target, StartPolicy::IfData, VersionNotice::Always).await?
    else {
        return find_job::no_jobs();
    };
    let job = find_job::resolve(&mut link, &args.job).await?;
    let follow = Follow::begin(link, job, args.options()).await?;
    let timestamps = args.timestamps.then(|| LineTimestamps::new(args.clock()));
    show(follow, timestamps, args.json).await
}

/// Shows a job's output from its first byte to its end.
pub async fn whole(link: Link, job: Value) -> anyhow::Result<ExitCode> {
    let options = FollowOptions {
        from: FollowFrom::Offset(0),
        follow: true,
        stream: None,
        encoding: FollowEncoding::Binary,
    };
    show(Follow::begin(link, job, options).await?, None, false).await
}

async fn show(
    mut follow: Follow,
    mut timestamps: Option<LineTimestamps>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut told_of_loss = false;
    loop {
        match follow.next().await? {
            FollowEvent::Output(frame) => {
                told_of_loss = false;
                match &mut timestamps {
                    Some(timestamps) => print::out(&timestamps.prefix_lines(&frame))?,
                    None => print::out(&frame.data)?,
                }
            }
            FollowEvent::Notification(params) => print::json(&params)?,
            FollowEvent::Gap(gap) if !json => print::line(&format!(
                "bytes {} to {} are missing ({})",
                gap["from"],
                gap["to"],
                gap["reason"].as_str().unwrap_or("unknown")
            )),
            FollowEvent::End(_) => return Ok(ExitCode::SUCCESS),
            FollowEvent::CaughtUp if !follow.will_end() => return Ok(ExitCode::SUCCESS),
            // Once, however often connections are made and lost again.
            FollowEvent::Disconnected if !told_of_loss => {
                told_of_loss = true;
                print::line_on_terminal("the server is gone; waiting for it");
            }
            _ => {}
        }
    }
}

impl TailArgs {
    fn options(&self) -> FollowOptions {
        FollowOptions {
            from: self
                .lines
                .map_or(FollowFrom::Offset(self.from), FollowFrom::LastLines),
            follow: !self.no_follow,
            stream: self.stream.clone(),
            encoding: if self.json {
                FollowEncoding::Json
            } else {
                FollowEncoding::Binary
            },
        }
    }

    fn clock(&self) -> Clock {
        if self.utc { Clock::Utc } else { Clock::Local }
    }
}

/// Puts the time of capture before each line.
struct LineTimestamps {
    clock: Clock,
    /// The stream whose line has begun and not ended.
    open: Option<Stream>,
}

impl LineTimestamps {
    fn new(clock: Clock) -> Self {
        Self { clock, open: None }
    }

    /// The bytes of a chunk with the time before each line that begins in it. If the unfinished
    /// line belongs to another stream, a newline ends it first.
    fn prefix_lines(&mut self, frame: &OutputFrame) -> Vec<u8> {
        let prefix = format!("{} ", times::timestamp(frame.at, self.clock));
        let mut out = Vec::with_capacity(frame.data.len() + prefix.len());
        if self.open.is_some_and(|stream| stream != frame.stream) {
            out.push(b'\n');
            self.open = None;
        }
        for line in frame.data.split_inclusive(|byte| *byte == b'\n') {
            if self.open.is_none() {
                out.extend_from_slice(prefix.as_bytes());
            }
            out.extend_from_slice(line);
            self.open = (!line.ends_with(b"\n")).then_some(frame.stream);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_stamped_once() {
        let mut timestamps = LineTimestamps::new(Clock::Utc);
        let mut stamp = |stream, data: &'static str| {
            let frame = OutputFrame {
                subscription: 1,
                stream,
                at: chrono::DateTime::default(),
                offset: 0,
                data: data.into(),
            };
            let text = String::from_utf8(timestamps.prefix_lines(&frame)).expect("UTF-8");
            text.replace("1970-01-01T00:00:00.000Z ", "@")
        };
        assert_eq!(stamp(Stream::Stdout, "one\ntw"), "@one\n@tw");
        assert_eq!(stamp(Stream::Stdout, "o\n"), "o\n");
        assert_eq!(stamp(Stream::Stdout, "prompt> "), "@prompt> ");
        assert_eq!(stamp(Stream::Stderr, "\nerr\n"), "\n@\n@err\n");
        assert_eq!(stamp(Stream::Stdout, "x"), "@x");
    }
}
