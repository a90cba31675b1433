//! Log lines: for people on a terminal, JSON elsewhere, to stderr or to a file that is replaced
//! when it has grown.
//!
//! Lines go through a thread of their own and are dropped (and counted) where nobody takes them:
//! a full pipe behind stderr must not stop the server. What is logged is not known here.

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
};

mod floods;
mod rotated;
use floods::{Floods, TELL_EVERY};
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
        };
        let floods = Floods::default();
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
            let lines = builder.with_ansi(colours).finish();
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
}

impl Write for Lines {
    /// The formatter hands in one whole event at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Message::Line(line.to_vec())).is_err() {
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

fn write_lines(taken: &Receiver<Message>, mut sink: Sink, dropped: &AtomicU64, floods: &Floods) {
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
    fn a_queue_that_nobody_empties_drops_lines_instead_of_waiting() {
        let (queue, taken) = sync_channel(2);
        let mut lines = Lines {
            queue,
            dropped: Arc::default(),
        };
        for _ in 0..5 {
            lines.write_all(b"line\n").expect("never fails");
        }
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 3);
        assert_eq!(taken.try_iter().count(), 2);
    }
}
