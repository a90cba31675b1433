//! The log: text on a terminal, JSON elsewhere, to stderr or to a file that is rotated.
//!
//! A thread of its own writes the lines. If they cannot be written fast enough, lines are dropped and
//! counted: a full pipe at stderr must not stop the server. Whatever a field contains, a line stays one
//! line and has no effect on a terminal.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    time::{Duration, Instant},
};

use tracing_subscriber::{
    EnvFilter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::{
    config::{LogFormat, Settings},
    data_dir::OwnDir,
    escape,
    sys::waiting_io::WaitingIo,
};

mod line_limiter;
mod rotated;
pub use line_limiter::EVENTS;
use line_limiter::{LineLimiter, REPORT_EVERY};
use rotated::RotatedFile;

/// The SDK of MCP, which tells every message at the level info.
const SDK: &str = "rmcp";
/// What of it is logged, unless `log_level` names it.
const SDK_LEVEL: &str = "rmcp=error";
/// Lines that may wait for the thread that writes them.
const LINES_QUEUED_MAX: usize = 4096;
/// How long [`Telemetry::flush`] waits.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(300);

/// Why the log cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log_level` is neither a level nor a filter.
    #[error("log_level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The file cannot be opened or created.
    #[error("cannot write the log file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system reports.
        source: io::Error,
    },
    /// The kernel allows no further thread.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(io::Error),
}

/// The running log.
#[derive(Debug)]
pub struct Telemetry {
    queue: SyncSender<Message>,
}

impl Telemetry {
    /// Begins to log, for the whole process. A second call changes nothing but the target of
    /// [`Self::flush`].
    pub fn start(settings: &Settings, data_dir: &OwnDir) -> Result<Self, LogError> {
        let filter = EnvFilter::try_new(&settings.log_level)?;
        let filter = match settings.log_level.contains(SDK) {
            true => filter,
            false => filter.add_directive(SDK_LEVEL.parse()?),
        };
        let sink = Sink::open(settings, data_dir)?;
        let json = match settings.log_format {
            LogFormat::Json => true,
            LogFormat::Text => false,
            LogFormat::Auto => !sink.is_terminal(),
        };
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colours = sink.is_terminal() && !no_color;
        let (queue, messages) = sync_channel(LINES_QUEUED_MAX);
        let dropped = Arc::<AtomicU64>::default();
        let lines = Lines {
            queue: queue.clone(),
            dropped: dropped.clone(),
            shape: match (json, colours) {
                (true, _) => LineShape::Json,
                (false, true) => LineShape::Coloured,
                (false, false) => LineShape::Plain,
            },
        };
        let limiter = LineLimiter::default();
        let reporting = limiter.clone();
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&messages, sink, &dropped, &reporting))
            .map_err(LogError::Thread)?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(lines);
        // Only a process that starts twice (a test) has a subscriber already; the first one stays.
        let _ = if json {
            let lines = builder.json().flatten_event(true).finish();
            lines.with(limiter).try_init()
        } else {
            let lines = builder.with_ansi(false).finish();
            lines.with(limiter).try_init()
        };
        Ok(Self { queue })
    }

    /// Waits until the lines logged so far are written, up to 300 ms.
    pub fn flush(&self) {
        let (done, flushed) = channel();
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            // No answer comes if stderr is stuck: then the wait ends at the timeout.
            let _ = flushed.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Flush(Sender<()>),
}

/// Hands lines to the thread that writes them.
#[derive(Debug, Clone)]
struct Lines {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    shape: LineShape,
}

/// The shape of a line, which decides what has to be escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineShape {
    Json,
    Plain,
    Coloured,
}

impl LineShape {
    /// The line as it is written: its end is the only control character in it, except for colours. This is
    /// the only place where fields from outside are escaped.
    fn escaped(self, line: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(line);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let mut shown = match self {
            // JSON has escaped its line ends already.
            Self::Json => escape::visible_json(text),
            Self::Plain => escape::visible(text),
            Self::Coloured => coloured(&escape::visible(text)),
        };
        shown.push('\n');
        shown.into_bytes()
    }
}

/// Levels as the formatter writes them, and their colours (ECMA-48, SGR).
const LEVELS: [(&str, u8); 5] = [
    ("ERROR", 31),
    ("WARN", 33),
    ("INFO", 32),
    ("DEBUG", 34),
    ("TRACE", 35),
];

/// The line with its level, which is the second word, in colour.
fn coloured(line: &str) -> String {
    let Some((time, rest)) = line.split_once(' ') else {
        return line.to_owned();
    };
    let rest = rest.trim_start();
    let level = LEVELS.iter().find(|(name, _)| rest.starts_with(name));
    match level {
        Some((name, colour)) => {
            let message = &rest[name.len()..];
            format!("\x1b[2m{time}\x1b[0m \x1b[{colour}m{name:>5}\x1b[0m{message}")
        }
        None => line.to_owned(),
    }
}

impl Write for Lines {
    /// The formatter passes one whole event at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let shown = self.shape.escaped(line);
        if self.queue.try_send(Message::Line(shown)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn write_lines(
    messages: &Receiver<Message>,
    mut sink: Sink,
    dropped: &AtomicU64,
    limiter: &LineLimiter,
) {
    let mut reported_at = Instant::now();
    loop {
        match messages.recv_timeout(REPORT_EVERY) {
            Ok(Message::Line(line)) => sink.write(&line),
            // `flush` may have timed out already.
            Ok(Message::Flush(done)) => drop(done.send(())),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if reported_at.elapsed() >= REPORT_EVERY {
            limiter.report();
            reported_at = Instant::now();
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            sink.write(
                format!(
                    "({lost} log lines were dropped: they came faster than they could be written)\n"
                )
                .as_bytes(),
            );
        }
    }
}

/// Where lines are written.
#[derive(Debug)]
enum Sink {
    Stderr,
    File(RotatedFile),
}

impl Sink {
    fn open(settings: &Settings, data_dir: &OwnDir) -> Result<Self, LogError> {
        match &settings.log_file {
            None => Ok(Self::Stderr),
            Some(path) => RotatedFile::open(path, settings.log_file_bytes_max, data_dir)
                .map(Self::File)
                .map_err(|source| LogError::File {
                    path: path.clone(),
                    source,
                }),
        }
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Self::Stderr) && io::stderr().is_terminal()
    }

    /// A line that cannot be written is lost: there is no place left to report it.
    fn write(&mut self, line: &[u8]) {
        let _ = match self {
            Self::Stderr => WaitingIo(io::stderr()).write_all(line),
            Self::File(file) => file.write(line),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_makes_a_line_of_its_own_or_acts_on_a_terminal() {
        let text = |shape: LineShape, line: &str| {
            String::from_utf8(shape.escaped(line.as_bytes())).expect("UTF-8")
        };
        let line = "2026-11-29T10:00:00Z  INFO x: told to=/a\n2026 ERROR \x1b[2J\u{9b}\u{200f}\n";
        assert_eq!(
            text(LineShape::Plain, line),
            "2026-11-29T10:00:00Z  INFO x: told to=/a\\n2026 ERROR \\x1b[2J\\u{9b}\\u{200f}\n"
        );
        let coloured = text(LineShape::Coloured, line);
        assert!(
            coloured.starts_with("\x1b[2m2026-11-29T10:00:00Z\x1b[0m \x1b[32m INFO\x1b[0m x: told"),
            "{coloured:?}"
        );
        assert_eq!(coloured.matches(['\x1b', '\n']).count(), 5);
        let json = "{\"to\":\"a\\n\u{7f}\u{e0041}\"}\n";
        assert_eq!(
            text(LineShape::Json, json),
            "{\"to\":\"a\\n\\u007f\\udb40\\udc41\"}\n"
        );
    }

    #[test]
    fn a_queue_that_nobody_empties_drops_lines_instead_of_waiting() {
        let (queue, messages) = sync_channel(2);
        let mut lines = Lines {
            queue,
            dropped: Arc::default(),
            shape: LineShape::Plain,
        };
        for _ in 0..5 {
            lines.write_all(b"line\n").expect("never fails");
        }
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 3);
        assert_eq!(messages.try_iter().count(), 2);
    }
}
