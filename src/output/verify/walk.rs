//! Walks through everything that is stored of a job's output, from its first byte to its last, and
//! returns what it finds: bytes, gaps, ends of segments, and what is not as the store says.
//!
//! `audit` checks whether the bytes are the right ones.

use std::{io, path::Path};

use crate::{
    job::{Fault, GapReason, JobNumber, Offset, VerificationProblem},
    output::{
        Item, ReadError,
        read::{
            log::{Cursor, Log},
            segments::item,
        },
    },
    spool::{
        Position, RecordKind, SegmentName, SegmentReader, dropped_range,
        reader::{NextRecord, is_no_segment},
    },
    store::{SegmentRow, Stored, StoredItem},
};

/// How much a walk reads in one step unless its caller wants less, bytes.
pub const PIECE_BYTES: usize = 256 << 10;

/// What a walk finds, in offset order.
#[derive(Debug, PartialEq)]
pub enum WalkEvent {
    /// Bytes, or a gap that is itself stored.
    Item(Item),
    /// A segment has been read to its end.
    SegmentEnd(SegmentRow),
    /// Something is not as the store says.
    Problem(VerificationProblem),
    /// Bytes that should be there are not. The output goes on at this offset.
    Lost(Offset),
}

/// A walk in progress.
#[derive(Debug)]
pub struct OutputWalk {
    job: JobNumber,
    piece_bytes: usize,
    offset: Offset,
    /// The end of the output when the walk began.
    end: Offset,
    /// The job is final: its output does not grow.
    is_final: bool,
    reading: Option<SegmentReading>,
    /// Set while the walk reads a running attempt.
    live: Option<Cursor>,
    over: bool,
}

/// A segment with a row that is partly read.
#[derive(Debug, Clone)]
struct SegmentReading {
    row: SegmentRow,
    position: Position,
    /// The offset that the next record must have.
    due: Offset,
    /// The first byte that is wanted.
    from: Offset,
}

/// Why reading a piece of a segment ended.
enum PieceEnd {
    /// The piece is long enough: read on.
    More(SegmentReading),
    /// The end of the segment.
    Through,
    /// A fault, the byte in the file where the record begins (if it has one), and a message.
    Broken(Fault, Option<u64>, String),
}

impl OutputWalk {
    /// A walk through the output of a job that ends at `end`, in steps of about `piece_bytes` bytes.
    pub fn new(job: JobNumber, end: Offset, is_final: bool, piece_bytes: usize) -> Self {
        Self {
            job,
            piece_bytes,
            offset: 0,
            end,
            is_final,
            reading: None,
            live: None,
            over: false,
        }
    }

    /// Whether it has reached the end.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// How far it has come.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// Reads on, and returns what it finds.
    ///
    /// # Errors
    ///
    /// The store cannot be read. A file that cannot be read is a [`WalkEvent::Problem`].
    pub async fn step(&mut self, log: &Log) -> Result<Vec<WalkEvent>, ReadError> {
        if let Some(reading) = self.reading.take() {
            return self.read_segment(log, reading).await;
        }
        if let Some(cursor) = self.live.take() {
            return self.read_live(log, cursor).await;
        }
        if !self.is_final && self.offset >= self.end {
            self.over = true;
            return Ok(Vec::new());
        }
        let stored = log
            .store()
            .stored(self.job, self.offset, self.piece_bytes as u64);
        match stored.await? {
            Stored::Rows(rows) => {
                let before = self.offset;
                let events = self.take_rows(rows);
                match self.offset > before {
                    true => Ok(events),
                    // The row has fewer bytes than its length says.
                    false => self.nothing_here(log).await,
                }
            }
            Stored::Segment(row) => {
                let reading = SegmentReading::new(row, self.offset);
                self.read_segment(log, reading).await
            }
            Stored::Open(Some(_)) if !self.is_final => {
                self.read_live(log, Cursor::new(self.offset)).await
            }
            Stored::Open(_) => self.nothing_here(log).await,
        }
    }

    fn take_rows(&mut self, rows: Vec<StoredItem>) -> Vec<WalkEvent> {
        let mut events = Vec::new();
        for row in rows {
            let item = match row {
                StoredItem::Chunk(chunk) => Item::Chunk(chunk),
                StoredItem::Gap(gap) => Item::Gap(gap),
            };
            let begin = item.begin();
            if begin < self.offset {
                let message = format!("the row at offset {begin} overlaps the one before it");
                events.push(WalkEvent::Problem(VerificationProblem {
                    row: Some(begin),
                    ..VerificationProblem::new(Fault::Length, message).of_bytes(begin, self.offset)
                }));
            } else if begin > self.offset {
                // The next step asks the store for what is in between.
                break;
            }
            if let Some(item) = item.from(self.offset) {
                self.offset = item.next_offset();
                events.push(WalkEvent::Item(item));
            }
        }
        events
    }

    /// No row has the next byte: this is the end, or bytes are missing.
    async fn nothing_here(&mut self, log: &Log) -> Result<Vec<WalkEvent>, ReadError> {
        let next = log.store().next_row(self.job, self.offset).await?;
        let Some(to) = next.or((self.offset < self.end).then_some(self.end)) else {
            self.over = true;
            return Ok(Vec::new());
        };
        let message = format!("no row has the bytes from {} to {to}", self.offset);
        let problem = VerificationProblem::new(Fault::Missing, message).of_bytes(self.offset, to);
        self.offset = to;
        Ok(vec![WalkEvent::Problem(problem), WalkEvent::Lost(to)])
    }

    async fn read_segment(
        &mut self,
        log: &Log,
        reading: SegmentReading,
    ) -> Result<Vec<WalkEvent>, ReadError> {
        let name = reading.name();
        let row = reading.row.clone();
        let budget = self.piece_bytes;
        let piece = log.on_disk(move |spool| Ok(reading.piece(spool, budget)));
        let (items, stop) = piece.await?;
        if let Some(last) = items.last() {
            self.offset = last.next_offset();
        }
        let mut events: Vec<WalkEvent> = items.into_iter().map(WalkEvent::Item).collect();
        let (what, byte, message) = match stop {
            PieceEnd::More(reading) => {
                self.reading = Some(reading);
                return Ok(events);
            }
            PieceEnd::Through => {
                events.push(WalkEvent::SegmentEnd(row));
                return Ok(events);
            }
            PieceEnd::Broken(what, byte, message) => (what, byte, message),
        };
        let to = row.end_offset.max(self.offset);
        events.push(WalkEvent::Problem(VerificationProblem {
            attempt: Some(row.attempt),
            segment: Some(name.to_string()),
            byte,
            ..VerificationProblem::new(what, format!("segment {name}: {message}"))
                .of_bytes(self.offset, to)
        }));
        if to > self.offset {
            self.offset = to;
            events.push(WalkEvent::Lost(to));
        }
        // If the segment ends at another offset than its row says, it is unknown to which offset its
        // digest belongs.
        if what != Fault::Length {
            events.push(WalkEvent::SegmentEnd(row));
        }
        Ok(events)
    }

    async fn read_live(
        &mut self,
        log: &Log,
        mut cursor: Cursor,
    ) -> Result<Vec<WalkEvent>, ReadError> {
        let batch = log.read(self.job, &mut cursor, self.piece_bytes).await?;
        let mut events = Vec::new();
        for item in batch.items {
            self.offset = item.next_offset();
            match item {
                Item::Gap(gap) if gap.reason == GapReason::Damaged => {
                    let message = "the file that should have these bytes is missing or damaged";
                    let problem = VerificationProblem::new(Fault::Damaged, message);
                    events.push(WalkEvent::Problem(problem.of_bytes(gap.from, gap.to)));
                    events.push(WalkEvent::Lost(gap.to));
                }
                item => events.push(WalkEvent::Item(item)),
            }
        }
        if !batch.at_end || (self.offset < self.end && !events.is_empty()) {
            self.live = (self.offset < self.end).then_some(cursor);
            return Ok(events);
        }
        events.extend(self.end_of_live(log).await?);
        Ok(events)
    }

    /// A running attempt is read as far as possible. Bytes that cannot be read may be half-written,
    /// unless later bytes are known to exist.
    async fn end_of_live(&mut self, log: &Log) -> Result<Vec<WalkEvent>, ReadError> {
        self.over = true;
        let job = self.job;
        let attempt = match log.store().stored(job, self.offset, 1).await? {
            Stored::Open(Some(open)) => open.attempt,
            _ => return Ok(Vec::new()),
        };
        let later = log
            .on_disk(move |spool| dropped_range::segments(spool, job, attempt))
            .await?;
        let later = later.iter().map(|name| name.first_offset);
        let known = later.filter(|first| *first > self.offset).min();
        let Some(to) = known.or((self.end > self.offset).then_some(self.end)) else {
            return Ok(Vec::new());
        };
        let from = std::mem::replace(&mut self.offset, to);
        let message = "the files of the running attempt do not have these bytes";
        let problem = VerificationProblem {
            attempt: Some(attempt),
            ..VerificationProblem::new(Fault::Damaged, message).of_bytes(from, to)
        };
        Ok(vec![WalkEvent::Problem(problem), WalkEvent::Lost(to)])
    }
}

impl SegmentReading {
    fn new(row: SegmentRow, from: Offset) -> Self {
        let name = SegmentName {
            job: row.number,
            attempt: row.attempt,
            first_offset: row.first_offset,
        };
        Self {
            position: Position::first(name),
            due: row.first_offset,
            from,
            row,
        }
    }

    fn name(&self) -> SegmentName {
        self.position.segment
    }

    /// Reads a piece and checks every checksum in it. Blocking.
    fn piece(mut self, spool: &Path, budget: usize) -> (Vec<Item>, PieceEnd) {
        let mut items = Vec::new();
        let stop = match self.read(spool, budget, &mut items) {
            Ok(Some(stop)) => stop,
            Ok(None) => PieceEnd::More(self),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                PieceEnd::Broken(Fault::Missing, None, "the file is not there".to_owned())
            }
            Err(error) if is_no_segment(&error) => {
                let message = "the file does not begin like this segment";
                PieceEnd::Broken(Fault::Damaged, Some(0), message.to_owned())
            }
            Err(error) => {
                let message = format!("the file cannot be read: {error}");
                PieceEnd::Broken(Fault::Damaged, None, message)
            }
        };
        (items, stop)
    }

    fn read(
        &mut self,
        spool: &Path,
        mut budget: usize,
        items: &mut Vec<Item>,
    ) -> io::Result<Option<PieceEnd>> {
        let mut reader = SegmentReader::open(spool, self.position)?;
        while budget > 0 {
            let at = reader.position().at;
            if self.row.file_bytes > 0 && at >= self.row.file_bytes {
                return Ok(Some(self.end(at)));
            }
            let (header, payload) = match reader.next_record()? {
                NextRecord::Record(header, payload) => (header, payload),
                NextRecord::End if self.has_all() => return Ok(Some(self.end(at))),
                NextRecord::End => return Ok(Some(broken(at, "the file is cut off"))),
                NextRecord::Damaged => {
                    return Ok(Some(broken(at, "a checksum is wrong")));
                }
            };
            let has_offset = matches!(
                header.kind,
                RecordKind::Output | RecordKind::Gap | RecordKind::Seal
            );
            if has_offset && header.offset != self.due {
                return Ok(Some(broken(
                    at,
                    "the record does not continue the one before it",
                )));
            }
            budget = budget.saturating_sub(payload.len() + 1);
            if let Some(item) = item(self.name(), &header, payload) {
                self.due = item.next_offset();
                items.extend(item.from(self.from));
            }
            let ends = matches!(header.kind, RecordKind::Seal | RecordKind::Exit);
            self.position = reader.position();
            if ends {
                return Ok(Some(self.end(at)));
            }
        }
        Ok(None)
    }

    /// Whether everything that the row promises was read. A row without a file length promises only
    /// an end.
    fn has_all(&self) -> bool {
        self.row.file_bytes == 0 && self.due >= self.row.end_offset
    }

    fn end(&self, at: u64) -> PieceEnd {
        if self.due == self.row.end_offset {
            return PieceEnd::Through;
        }
        let (due, end) = (self.due, self.row.end_offset);
        let message = format!("it ends at offset {due}; its row says {end}");
        PieceEnd::Broken(Fault::Length, Some(at), message)
    }
}

fn broken(at: u64, why: &str) -> PieceEnd {
    let message = format!("{why} at byte {at}");
    PieceEnd::Broken(Fault::Damaged, Some(at), message)
}
