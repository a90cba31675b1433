//! Walks through everything that is stored of a job's output, from its first byte to its last, and
//! says what it meets: bytes, gaps, ends of segments, and what is not as the ledger says.
//!
//! Whether the bytes are the right ones is `audit`'s business.

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
        Position, RecordKind, SegmentName, SegmentReader, hole,
        reader::{NextRecord, is_no_segment},
    },
    store::{SegmentRow, Stored, StoredItem},
};

/// How much is read at once where nothing speaks against it, bytes.
pub const PIECE_BYTES: usize = 256 << 10;

/// What a walk meets, in offset order.
#[derive(Debug, PartialEq)]
pub enum Met {
    /// Bytes, or a gap that the record itself tells of.
    Item(Item),
    /// A segment has been read to its end.
    SegmentEnd(SegmentRow),
    /// Something is not as the ledger says.
    Problem(VerificationProblem),
    /// Bytes that should be there are not: the output goes on here.
    Lost(Offset),
}

/// A walk as far as it has come.
#[derive(Debug)]
pub struct OutputWalk {
    job: JobNumber,
    piece_bytes: usize,
    offset: Offset,
    /// As far as the output reached when the walk began.
    end: Offset,
    /// Whether nothing is written any more.
    is_final: bool,
    reading: Option<SegmentReading>,
    /// Where a running attempt is read.
    live: Option<Cursor>,
    over: bool,
}

/// A segment with a row, as far as it was read.
#[derive(Debug, Clone)]
struct SegmentReading {
    row: SegmentRow,
    position: Position,
    /// Where the next record must stand.
    due: Offset,
    /// Nothing before this one is wanted.
    from: Offset,
}

/// How far a piece of a segment goes.
enum PieceEnd {
    /// Read on.
    More(SegmentReading),
    /// To the end of the segment.
    Through,
    /// To something that cannot be read; the record's place in the file, where it has one.
    Broken(Fault, Option<u64>, String),
}

impl OutputWalk {
    /// A walk through the output of a job that reaches to `end`, in steps of about `piece_bytes`.
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

    /// Whether it has come to the end.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// How far it has come.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// What comes next.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read. A file that cannot be is something that is met.
    pub async fn step(&mut self, log: &Log) -> Result<Vec<Met>, ReadError> {
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
                let met = self.take_rows(rows);
                match self.offset > before {
                    true => Ok(met),
                    // A row that is shorter than it says.
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

    fn take_rows(&mut self, rows: Vec<StoredItem>) -> Vec<Met> {
        let mut met = Vec::new();
        for row in rows {
            let item = match row {
                StoredItem::Chunk(chunk) => Item::Chunk(chunk),
                StoredItem::Gap(gap) => Item::Gap(gap),
            };
            let begin = item.begin();
            if begin < self.offset {
                let message = format!("the row at offset {begin} overlaps the one before it");
                met.push(Met::Problem(VerificationProblem {
                    row: Some(begin),
                    ..VerificationProblem::new(Fault::Length, message).of_bytes(begin, self.offset)
                }));
            } else if begin > self.offset {
                // What is between them is asked for by itself.
                break;
            }
            if let Some(item) = item.from(self.offset) {
                self.offset = item.next_offset();
                met.push(Met::Item(item));
            }
        }
        met
    }

    /// No row has the next byte: the end, or a hole.
    async fn nothing_here(&mut self, log: &Log) -> Result<Vec<Met>, ReadError> {
        let next = log.store().next_row(self.job, self.offset).await?;
        let Some(to) = next.or((self.offset < self.end).then_some(self.end)) else {
            self.over = true;
            return Ok(Vec::new());
        };
        let message = format!("no row has the bytes from {} to {to}", self.offset);
        let problem = VerificationProblem::new(Fault::Missing, message).of_bytes(self.offset, to);
        self.offset = to;
        Ok(vec![Met::Problem(problem), Met::Lost(to)])
    }

    async fn read_segment(
        &mut self,
        log: &Log,
        reading: SegmentReading,
    ) -> Result<Vec<Met>, ReadError> {
        let name = reading.name();
        let row = reading.row.clone();
        let budget = self.piece_bytes;
        let piece = log.on_disk(move |spool| Ok(reading.piece(spool, budget)));
        let (items, stop) = piece.await?;
        if let Some(last) = items.last() {
            self.offset = last.next_offset();
        }
        let mut met: Vec<Met> = items.into_iter().map(Met::Item).collect();
        let (what, byte, message) = match stop {
            PieceEnd::More(reading) => {
                self.reading = Some(reading);
                return Ok(met);
            }
            PieceEnd::Through => {
                met.push(Met::SegmentEnd(row));
                return Ok(met);
            }
            PieceEnd::Broken(what, byte, message) => (what, byte, message),
        };
        let to = row.end_offset.max(self.offset);
        met.push(Met::Problem(VerificationProblem {
            attempt: Some(row.attempt),
            segment: Some(name.to_string()),
            byte,
            ..VerificationProblem::new(what, format!("segment {name}: {message}"))
                .of_bytes(self.offset, to)
        }));
        if to > self.offset {
            self.offset = to;
            met.push(Met::Lost(to));
        }
        // Nobody knows to which offset the digest of a segment belongs that ends elsewhere.
        if what != Fault::Length {
            met.push(Met::SegmentEnd(row));
        }
        Ok(met)
    }

    async fn read_live(&mut self, log: &Log, mut cursor: Cursor) -> Result<Vec<Met>, ReadError> {
        let batch = log.read(self.job, &mut cursor, self.piece_bytes).await?;
        let mut met = Vec::new();
        for item in batch.items {
            self.offset = item.next_offset();
            match item {
                Item::Gap(gap) if gap.reason == GapReason::Damaged => {
                    let message = "the file that has these bytes is missing or damaged";
                    let problem = VerificationProblem::new(Fault::Damaged, message);
                    met.push(Met::Problem(problem.of_bytes(gap.from, gap.to)));
                    met.push(Met::Lost(gap.to));
                }
                item => met.push(Met::Item(item)),
            }
        }
        if !batch.at_end || (self.offset < self.end && !met.is_empty()) {
            self.live = (self.offset < self.end).then_some(cursor);
            return Ok(met);
        }
        met.extend(self.end_of_live(log).await?);
        Ok(met)
    }

    /// A running attempt is read as far as it goes. What cannot be read may be being written,
    /// unless more is known to be behind it.
    async fn end_of_live(&mut self, log: &Log) -> Result<Vec<Met>, ReadError> {
        self.over = true;
        let job = self.job;
        let attempt = match log.store().stored(job, self.offset, 1).await? {
            Stored::Open(Some(open)) => open.attempt,
            _ => return Ok(Vec::new()),
        };
        let later = log
            .on_disk(move |spool| hole::segments(spool, job, attempt))
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
        Ok(vec![Met::Problem(problem), Met::Lost(to)])
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

    /// Reads a piece, with every checksum in it. Blocking.
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
                    return Ok(Some(broken(at, "a checksum is wrong in the record")));
                }
            };
            let stands = matches!(
                header.kind,
                RecordKind::Output | RecordKind::Gap | RecordKind::Seal
            );
            if stands && header.offset != self.due {
                return Ok(Some(broken(at, "another offset is due at the record")));
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

    /// Whether there is nothing more that the ledger knows of.
    fn has_all(&self) -> bool {
        self.row.file_bytes == 0 && self.due >= self.row.end_offset
    }

    fn end(&self, at: u64) -> PieceEnd {
        if self.due == self.row.end_offset {
            return PieceEnd::Through;
        }
        let (due, end) = (self.due, self.row.end_offset);
        let message = format!("it ends at offset {due}, and the ledger says {end}");
        PieceEnd::Broken(Fault::Length, Some(at), message)
    }
}

fn broken(at: u64, why: &str) -> PieceEnd {
    let message = format!("{why} at byte {at}");
    PieceEnd::Broken(Fault::Damaged, Some(at), message)
}
