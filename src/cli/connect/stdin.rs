//! Reads our stdin in pieces, as the bytes come, in a thread of its own. A read from a terminal can
//! block for ever; the process can do other work meanwhile, and exit without the thread.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::fd::AsFd,
    thread,
};

use tokio::sync::mpsc;

use crate::sys::waiting_io::WaitingIo;

/// Longest piece, bytes: what a pipe holds.
pub const PIECE_BYTES_MAX: usize = 64 << 10;

/// Our stdin.
#[derive(Debug)]
pub struct Stdin {
    pieces: mpsc::Receiver<Vec<u8>>,
}

impl Stdin {
    /// Begins to read; one piece is read ahead.
    pub fn start() -> io::Result<Self> {
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let (sender, pieces) = mpsc::channel(1);
        thread::Builder::new()
            .name("stdin".into())
            .spawn(move || read_all(&stdin, &sender))?;
        Ok(Self { pieces })
    }

    /// The next piece, never empty; `None` at the end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        self.pieces.recv().await
    }
}

/// Reads until the end, or until the receiver is dropped. A read error counts as the end: a
/// terminal that is gone, a directory.
fn read_all(stdin: &File, pieces: &mpsc::Sender<Vec<u8>>) {
    let mut bytes = vec![0; PIECE_BYTES_MAX];
    loop {
        match WaitingIo(stdin).read(&mut bytes) {
            Ok(0) => return,
            Ok(n) if pieces.blocking_send(bytes[..n].to_vec()).is_err() => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
