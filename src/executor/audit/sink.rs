//! Where checkpoints go: a file, the journal, or a command.

use std::{
    collections::BTreeMap, fs::OpenOptions, io, io::Write, os::unix::fs::OpenOptionsExt,
    os::unix::net::UnixDatagram, path::Path, time::Duration,
};

use crate::{
    audit::Checkpoint, config::CheckpointSink, notices, supervisor::base_environment,
    sys::threads::blocking,
};

/// The socket of the journal (systemd.journal-fields(7), its native protocol).
const JOURNAL: &str = "/run/systemd/journal/socket";
/// By which name the journal finds checkpoints.
const IDENTIFIER: &str = "cc-executor-audit";
/// How long a command may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(30);

/// Hands a checkpoint over; an error is a sentence without its end.
pub async fn deliver(sink: &CheckpointSink, checkpoint: &Checkpoint) -> Result<(), String> {
    let text = checkpoint.to_string();
    match sink {
        CheckpointSink::None => Ok(()),
        CheckpointSink::File(path) => {
            let (file, shown) = (path.clone(), path.display().to_string());
            let appended = blocking(move || append(&file, &text)).await;
            appended.map_err(|error| format!("{shown}: {error}"))
        }
        CheckpointSink::Journald => {
            let sent = blocking(move || send_to_journal(Path::new(JOURNAL), &text)).await;
            sent.map_err(|error| format!("{JOURNAL}: {error}"))
        }
        CheckpointSink::Command(argv) => {
            let env = BTreeMap::from(base_environment());
            let run = notices::run_command(argv, &env, &text);
            match tokio::time::timeout(COMMAND_WITHIN, run).await {
                Ok(ran) => ran.map_err(|failure| failure.error),
                Err(_) => Err(format!(
                    "the command took longer than {} s",
                    COMMAND_WITHIN.as_secs()
                )),
            }
        }
    }
}

/// Appends a note after an empty line, so that one that was cut off ends before it.
fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)?;
    file.write_all(format!("\n{text}").as_bytes())?;
    file.sync_data()
}

fn send_to_journal(socket: &Path, text: &str) -> io::Result<()> {
    let mut message = format!("PRIORITY=5\nSYSLOG_IDENTIFIER={IDENTIFIER}\nMESSAGE\n").into_bytes();
    // A value with line ends has its length before it.
    message.extend((text.len() as u64).to_le_bytes());
    message.extend(text.as_bytes());
    message.push(b'\n');
    let sender = UnixDatagram::unbound()?;
    sender.send_to(&message, socket).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_gets_a_note_as_one_message() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let journal = UnixDatagram::bind(&path).expect("bound");
        send_to_journal(&path, "a\n\nb\n").expect("sent");
        let mut message = [0; 1024];
        let length = journal.recv(&mut message).expect("received");
        let expected = b"PRIORITY=5\nSYSLOG_IDENTIFIER=cc-executor-audit\nMESSAGE\n\
                         \x05\0\0\0\0\0\0\0a\n\nb\n\n";
        assert_eq!(&message[..length], expected);
    }

    #[test]
    fn a_file_is_only_appended_to() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("checkpoints");
        std::fs::write(&path, "cut of").expect("written");
        append(&path, "a\n").expect("appended");
        append(&path, "b\n").expect("appended");
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(text, "cut of\na\n\nb\n");
    }
}
