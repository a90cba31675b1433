//! Where an export goes: stdout, or a file that gets its name when it is complete.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::Context;

use super::{
    new_file::{self, NewFile},
    print,
};
use crate::sys::waiting_io::WaitingIo;

/// Size of the write buffer, bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// The file or stdout that the export goes to.
pub struct ExportOutput {
    writer: BufWriter<Box<dyn Write>>,
    name: String,
    /// `None`: stdout.
    file: Option<NewFile>,
}

impl ExportOutput {
    /// Opens it; an existing file is replaced only with `replaces`.
    pub fn open(path: Option<&Path>, replaces: bool) -> anyhow::Result<Self> {
        let (sink, name, file): (Box<dyn Write>, _, _) = match path {
            None => (Box::new(WaitingIo(io::stdout())), "stdout".to_owned(), None),
            Some(path) => {
                let (new, file) = new_file::begin(path, replaces)?;
                (Box::new(file), path.display().to_string(), Some(new))
            }
        };
        let writer = BufWriter::with_capacity(BUFFER_BYTES, sink);
        Ok(Self { writer, name, file })
    }

    /// Writes bytes.
    pub fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let written = self.writer.write_all(bytes);
        self.check(written)
    }

    /// Writes the rest, and gives a file its name.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let flushed = self.writer.flush();
        self.check(flushed)?;
        match self.file {
            Some(file) => file.finish(),
            None => Ok(()),
        }
    }

    fn check(&self, result: io::Result<()>) -> anyhow::Result<()> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(print::ReaderLeft.into())
            }
            result => result.with_context(|| format!("cannot write to {}", self.name)),
        }
    }
}
