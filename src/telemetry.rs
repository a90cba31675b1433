//! Log lines: for people on a terminal, JSON elsewhere, to stderr or to a file that is replaced
//! when it has grown.
//!
//! Lines go through a thread of their own and are dropped (and counted) where nobody takes them:
//! a full pipe behind stderr must not stop the server. What is logged is not known here, so whatever a
//! field holds, a line stays one line and does nothing to a terminal.

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
};

mod floods;
mod rotated;
use floods::{LineLimiter, TELL_EVERY};
use rotated::RotatedFile;

/// Lines that wait for a slow reader.
const LINES_QUEUED_MAX: usize = 4096;
/// How long the last lines may need to be written.
const FLUSH: Duration = Duration::from_millis(300);

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is wrong.
    #[error("log_level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The file cannot be written.
    #[error("cannot write the log file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no thread for it.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(io::Error),
}

/// The running log.
#[derive(Debug)]
pub struct Telemetry {
    queue: SyncSender<Message>,
}

impl Telemetry {
    /// Begins to log, for the whole process. A second call changes nothing but the flushing.
    pub fn start(settings: &Settings, data_dir: &OwnDir) -> Result<Self, LogError> {
        let filter = EnvFilter::try_new(&settings.log_level)?;
        let sink = Sink::open(settings, data_dir)?;
        let json = match settings.log_format {
            LogFormat::Json => true,
            LogFormat::Text => false,
            LogFormat::Auto => !sink.is_terminal(),
        };
        let colours = sink.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let (queue, taken) = sync_channel(LINES_QUEUED_MAX);
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
        let floods = LineLimiter::default();
        let told = floods.clone();
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&taken, sink, &dropped, &told))
            .map_err(LogError::Thread)?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(lines);
        // Only a process that tries twice (a test) has one already; the first one stays.
        let _ = if json {
            let lines = builder.json().flatten_event(true).finish();
            lines.with(floods).try_init()
        } else {
            let lines = builder.with_ansi(false).finish();
            lines.with(floods).try_init()
        };
        Ok(Self { queue })
    }

    /// Waits until what was logged is written, but not for ever.
    pub fn flush(&self) {
        let (done, heard) = channel();
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            // Nobody answers where stderr is stuck: then there is nothing to wait for.
            let _ = heard.recv_timeout(FLUSH);
        }
    }
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Flush(Sender<()>),
}

/// Hands lines to the thread.
#[derive(Debug, Clone)]
struct Lines {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    shape: LineShape,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineShape {
    Json,
    Plain,
    Coloured,
}

impl LineShape {
    /// The line as it is written: its end is the only character in it that acts, colours aside. The
    /// one place where fields from outside are made harmless.
    fn harmless(self, line: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(line);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let mut shown = match self {
            // Line ends in JSON are escaped already.
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

/// The level in its colour: the second word, behind the time.
fn coloured(line: &str) -> String {
    let Some((time, rest)) = line.split_once(' ') else {
        return line.to_owned();
    };
    let rest = rest.trim_start();
    let level = LEVELS.iter().find(|(name, _)| rest.starts_with(name));
    match level {
        Some((name, colour)) => {
            let behind = &rest[name.len()..];
            format!("\x1b[2m{time}\x1b[0m \x1b[{colour}m{name:>5}\x1b[0m{behind}")
        }
        None => line.to_owned(),
    }
}

impl Write for Lines {
    /// The formatter hands in one whole event at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let shown = self.shape.harmless(line);
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
    taken: &Receiver<Message>,
    mut sink: Sink,
    dropped: &AtomicU64,
    floods: &LineLimiter,
) {
    let mut told_at = Instant::now();
    loop {
        match taken.recv_timeout(TELL_EVERY) {
            Ok(Message::Line(line)) => sink.write(&line),
            // The asker may have given up.
            Ok(Message::Flush(done)) => drop(done.send(())),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if told_at.elapsed() >= TELL_EVERY {
            floods.tell();
            told_at = Instant::now();
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            sink.write(format!("({lost} log lines were dropped: nobody took them)\n").as_bytes());
        }
    }
}

/// Where lines end up.
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

    /// A line that cannot be written is gone: there is nowhere to say so.
    fn write(&mut self, line: &[u8]) {
        let _ = match self {
            Self::Stderr => io::stderr().write_all(line),
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
            String::from_utf8(shape.harmless(line.as_bytes())).expect("UTF-8")
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
        let (queue, taken) = sync_channel(2);
        let mut lines = Lines {
            queue,
            dropped: Arc::default(),
            shape: LineShape::Plain,
        };
        for _ in 0..5 {
            lines.write_all(b"line\n").expect("never fails");
        }
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 3);
        assert_eq!(taken.try_iter().count(), 2);
    }
}
