//! A job's output as one sequence, whether its bytes are in rows or in segments. A reader keeps only
//! a cursor; no file stays open between two reads.
//!
//! `tail` waits for more output.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::Semaphore;

use super::{
    find::{ByteLocation, OpenEnd, find, find_end},
    item::{Item, ReadBatch, ReadError, lost},
    segments::{SegmentPiece, SegmentRead, read_records, unreadable},
};
use crate::{
    job::{JobNumber, Offset},
    spool::{
        Position, SegmentName, dropped_range,
        reader::{DiskWait, is_no_segment, needs_disk},
    },
    store::{Store, Stored, StoredItem},
    sys::{descriptors::is_shortage, threads::blocking},
};

/// How often a read looks for moved bytes again before it gives up. Between two looks a segment can
/// turn into rows once, or its job be deleted, so more than a few tries mean that something is wrong.
const RELOCATIONS_MAX: u32 = 8;

/// Reads that may wait for the disk at the same time. More would not be faster, and a thousand
/// readers would need a thousand threads.
const READS_MAX: usize = 16;

/// A reader's position in a job's output.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    /// The next byte to read.
    pub offset: Offset,
    location: CursorLocation,
}

impl Cursor {
    /// A reader that begins at `offset`.
    pub fn new(offset: Offset) -> Self {
        Self {
            offset,
            location: CursorLocation::Unknown,
        }
    }

    /// Call this when the job's row has changed: the next byte may be elsewhere, for example in
    /// another attempt's segments.
    pub fn look_again(&mut self) {
        self.location = CursorLocation::Unknown;
    }
}

/// Where the next byte is, as far as it is known.
#[derive(Debug, Clone, Copy)]
enum CursorLocation {
    /// The store must be asked.
    Unknown,
    /// In this segment, from this record on. `end` is set where the segment is complete.
    Segment {
        position: Position,
        end: Option<Offset>,
    },
}

/// What a look into the store has found out about the next byte.
enum Located {
    /// The cursor has its location now, or the caller must look again.
    At,
    /// What the look itself has read: rows, a dropped range, or the end.
    Read(ReadBatch),
    /// The byte should be in a segment with this end, which is not there.
    Missing(Offset),
}

impl Located {
    /// Nothing is there, for now.
    fn at_end() -> Self {
        Self::Read(ReadBatch {
            at_end: true,
            ..ReadBatch::default()
        })
    }
}

/// Reads the output of all jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    store: Store,
    spool: Arc<PathBuf>,
    /// Permits for reads that wait for the disk, each on a thread of its own.
    reads: Arc<Semaphore>,
}

impl Log {
    /// A reader of the rows in `store` and the segments in the directory `spool`.
    pub fn new(store: Store, spool: PathBuf) -> Self {
        Self {
            store,
            spool: Arc::new(spool),
            reads: Arc::new(Semaphore::new(READS_MAX)),
        }
    }

    pub(in crate::output) fn store(&self) -> &Store {
        &self.store
    }

    /// Runs `work` on the spool directory in a thread, as one of `READS_MAX` reads at a time.
    pub(in crate::output) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let spool = Arc::clone(&self.spool);
        let _permit = self.reads.acquire().await;
        blocking(move || work(&spool)).await
    }

    /// Reads on from `cursor`: about `max_bytes` bytes, and at least one item if there is any.
    ///
    /// # Errors
    ///
    /// [`ReadError::Missing`] where the store still says that the bytes are there after
    /// `RELOCATIONS_MAX` looks, and their end is unknown. Where it is known, they are a gap.
    pub async fn read(
        &self,
        job: JobNumber,
        cursor: &mut Cursor,
        max_bytes: usize,
    ) -> Result<ReadBatch, ReadError> {
        let (mut lost_to, mut relocations) = (None, 0);
        // Only looks into the store count: a chain of seals is as long as there are segments.
        while relocations < RELOCATIONS_MAX {
            let CursorLocation::Segment { position, end } = cursor.location else {
                relocations += 1;
                match self.locate(job, cursor, max_bytes).await? {
                    Located::Read(batch) => return Ok(batch),
                    Located::At => {}
                    Located::Missing(end) => lost_to = Some(end),
                }
                continue;
            };
            let piece = self.read_segment(position, end, cursor.offset, max_bytes);
            match piece.await? {
                SegmentPiece::Gone => {
                    lost_to = end;
                    cursor.location = CursorLocation::Unknown;
                }
                SegmentPiece::Over(batch) => {
                    advance(cursor, &batch);
                    cursor.location = CursorLocation::Unknown;
                    if batch.at_end || !batch.items.is_empty() {
                        return Ok(batch);
                    }
                }
                SegmentPiece::More(batch, position, end) => {
                    advance(cursor, &batch);
                    cursor.location = CursorLocation::Segment { position, end };
                    // A seal alone is no progress: the segment that it names may not be there.
                    if batch.at_end || !batch.items.is_empty() {
                        return Ok(batch);
                    }
                }
            }
        }
        // The store still says that the byte is there, and it is not.
        let Some(end) = lost_to else {
            return Err(ReadError::Missing(job, cursor.offset));
        };
        let batch = ReadBatch {
            items: vec![lost(cursor.offset, end)],
            ..ReadBatch::default()
        };
        tracing::error!(job, from = cursor.offset, to = end, "a segment is missing");
        advance(cursor, &batch);
        Ok(batch)
    }

    /// The current end of the output of `job`'s open attempt, whose row says `stored_to`. `None`
    /// where no attempt is open or it has written nothing that can be found (it may just have ended).
    pub async fn open_end(
        &self,
        job: JobNumber,
        stored_to: Offset,
    ) -> Result<Option<OpenEnd>, ReadError> {
        let mut stored_to = stored_to;
        let open = loop {
            match self.store.stored(job, stored_to, 0).await? {
                Stored::Open(Some(open)) => break open,
                // The hasher has entered this segment since the job's row was read. The client may
                // have seen later bytes, so go on after it.
                Stored::Segment(row) => stored_to = row.end_offset,
                Stored::Open(None) | Stored::Rows(_) => return Ok(None),
            }
        };
        let first = SegmentName {
            job,
            attempt: open.attempt,
            first_offset: open.first_offset,
        };
        let spool = Arc::clone(&self.spool);
        match blocking(move || find_end(&spool, first)).await {
            Ok(end) => Ok(Some(end)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Finds where the cursor's byte is; rows are read at once.
    async fn locate(
        &self,
        job: JobNumber,
        cursor: &mut Cursor,
        max_bytes: usize,
    ) -> Result<Located, ReadError> {
        let (name, end) = match self
            .store
            .stored(job, cursor.offset, max_bytes as u64)
            .await?
        {
            Stored::Rows(rows) => {
                let batch = batch_of_rows(rows, cursor.offset);
                if batch.items.is_empty() {
                    // Deleted between two statements.
                    return Ok(Located::At);
                }
                advance(cursor, &batch);
                return Ok(Located::Read(batch));
            }
            Stored::Segment(row) => (
                SegmentName {
                    job,
                    attempt: row.attempt,
                    first_offset: row.first_offset,
                },
                Some(row.end_offset),
            ),
            Stored::Open(Some(open)) => (
                SegmentName {
                    job,
                    attempt: open.attempt,
                    first_offset: open.first_offset,
                },
                None,
            ),
            Stored::Open(None) => return Ok(Located::at_end()),
        };
        self.locate_in_segment(name, end, cursor).await
    }

    /// Finds the cursor's place in this segment or one after it. `end`: where the segment ends, if it
    /// is complete.
    async fn locate_in_segment(
        &self,
        name: SegmentName,
        end: Option<Offset>,
        cursor: &mut Cursor,
    ) -> Result<Located, ReadError> {
        let offset = cursor.offset;
        let spool = Arc::clone(&self.spool);
        let permit = self.reads.acquire().await;
        let found = match blocking(move || find(&spool, name, offset)).await {
            Err(error) if is_no_segment(&error) => ByteLocation::Missing,
            Err(error) if let (false, Some(end)) = (is_shortage(&error), end) => {
                let batch = ReadBatch {
                    items: vec![unreadable(name, (offset, end), &error)],
                    ..ReadBatch::default()
                };
                advance(cursor, &batch);
                return Ok(Located::Read(batch));
            }
            found => found?,
        };
        drop(permit);
        match found {
            ByteLocation::At(position) => {
                let end = end.filter(|_| position.segment == name);
                cursor.location = CursorLocation::Segment { position, end };
                Ok(Located::At)
            }
            ByteLocation::Dropped(gap, next) => {
                cursor.offset = gap.to;
                let position = Position::first(next);
                cursor.location = CursorLocation::Segment {
                    position,
                    end: None,
                };
                Ok(Located::Read(ReadBatch {
                    items: vec![Item::Gap(gap)],
                    ..ReadBatch::default()
                }))
            }
            // Without an end: the attempt has not begun, or has just become rows, and the caller
            // looks again when woken. With one: a dropped range may just have become a row, or the
            // job is being deleted, and the next look finds out.
            ByteLocation::Missing => Ok(end.map_or_else(Located::at_end, Located::Missing)),
        }
    }

    /// Where the gap begins that holds the byte at `offset`; `None` where that byte is there.
    pub async fn gap_start(
        &self,
        job: JobNumber,
        offset: Offset,
    ) -> Result<Option<Offset>, ReadError> {
        let attempt = match self.store.stored(job, offset, 1).await? {
            Stored::Rows(rows) => {
                return Ok(rows.first().and_then(|row| match row {
                    StoredItem::Gap(gap) => Some(gap.from),
                    StoredItem::Chunk(_) => None,
                }));
            }
            Stored::Segment(row) => row.attempt,
            Stored::Open(Some(open)) => open.attempt,
            Stored::Open(None) => return Ok(None),
        };
        let spool = Arc::clone(&self.spool);
        let dropped = blocking(move || dropped_range::read(&spool, job, attempt)).await?;
        let range = dropped.filter(|range| range.skip_past(offset) > offset);
        Ok(range.map(|range| range.gap.from))
    }

    async fn read_segment(
        &self,
        position: Position,
        end: Option<Offset>,
        offset: Offset,
        max_bytes: usize,
    ) -> Result<SegmentPiece, ReadError> {
        let read = SegmentRead {
            position,
            end,
            offset,
            max_bytes,
        };
        // The end of a live segment was written a moment ago and is in the page cache. Read it on
        // this thread, and use another one only if the read would wait for the disk.
        if end.is_none() {
            match read_records(&self.spool, read, DiskWait::CachedOnly) {
                Err(ReadError::Segment(error)) if needs_disk(&error) => {}
                result => return result,
            }
        }
        let spool = Arc::clone(&self.spool);
        let _permit = self.reads.acquire().await;
        tokio::task::spawn_blocking(move || read_records(&spool, read, DiskWait::Waits))
            .await
            .map_err(|e| ReadError::Segment(io::Error::other(e)))?
    }
}

fn batch_of_rows(rows: Vec<StoredItem>, offset: Offset) -> ReadBatch {
    let items = rows
        .into_iter()
        .map(|row| match row {
            StoredItem::Chunk(chunk) => Item::Chunk(chunk),
            StoredItem::Gap(gap) => Item::Gap(gap),
        })
        .filter_map(|item| item.from(offset))
        .collect();
    ReadBatch {
        items,
        ..ReadBatch::default()
    }
}

fn advance(cursor: &mut Cursor, batch: &ReadBatch) {
    if let Some(last) = batch.items.last() {
        cursor.offset = last.next_offset();
    }
}
