//! A search in progress: reads outputs piece by piece, searches them in turns, and stops at its bounds.

use tokio::time::Instant;

use super::{SearchBound, SearchCursor, SearchHit, SearchOptions, SearchResult, SearchSettings};
use crate::{
    executor::{Error, Executor, LinePosition, SessionTurns},
    job::{Job, JobId, JobNumber, Offset},
    output::{
        Cursor, Item, ReadBatch, ReadError,
        line_search::{FoundLines, ItemProgress, LineSearch, Searched},
        search::TURN_VISITS,
        verify::walk::PIECE_BYTES,
    },
};

/// The job whose output is searched.
#[derive(Debug, Clone, Copy)]
pub(super) struct SearchedJob {
    id: JobId,
    number: JobNumber,
    /// Where its output ended when the search of it began.
    end: Offset,
    is_final: bool,
}

impl SearchedJob {
    pub(super) fn of(job: &Job) -> Self {
        Self {
            id: job.id,
            number: job.number,
            end: job.output_bytes,
            is_final: job.state.is_final(),
        }
    }
}

/// A search in progress.
#[derive(Debug)]
pub(super) struct SearchRun {
    search: LineSearch,
    found: FoundLines,
    hits: Vec<SearchHit>,
    began: Instant,
    deadline: Option<Instant>,
    bytes_max: u64,
    /// Why and where it has stopped.
    stopped: Option<(SearchBound, SearchCursor)>,
    /// Where it would go on now.
    reached: Option<SearchCursor>,
    /// Whether it would go on after the place where it began.
    has_advanced: bool,
    jobs: u64,
    bytes: u64,
    missing_bytes: u64,
    pub(super) unreadable: Vec<JobNumber>,
    /// Why the output of the present job cannot be read.
    unread: Option<ReadError>,
}

impl SearchRun {
    pub(super) fn new(options: SearchOptions, settings: &SearchSettings) -> Self {
        let began = Instant::now();
        let time = std::time::Duration::from_secs(settings.timeout_s);
        Self {
            search: LineSearch::new(options.pattern, options.streams),
            found: FoundLines::new(options.limit, options.json_bytes_max),
            hits: Vec::new(),
            began,
            deadline: began.checked_add(time),
            bytes_max: settings.bytes_max,
            stopped: None,
            reached: None,
            has_advanced: false,
            jobs: 0,
            bytes: 0,
            missing_bytes: 0,
            unreadable: Vec::new(),
            unread: None,
        }
    }

    /// Whether it has stopped, or has to: it stops then.
    pub(super) fn is_over(&mut self) -> bool {
        if self.stopped.is_none()
            && let (Some(bound), Some(reached)) = (self.reached_bound(), self.reached)
        {
            self.stopped = Some((bound, reached));
        }
        self.stopped.is_some()
    }

    /// The bound of time or bytes that it has reached. A search that has not come further than the one
    /// before it goes on: otherwise it would never end.
    fn reached_bound(&self) -> Option<SearchBound> {
        if !self.has_advanced {
            return None;
        }
        let is_late = self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline);
        match is_late {
            true => Some(SearchBound::Time),
            false => (self.bytes >= self.bytes_max).then_some(SearchBound::Bytes),
        }
    }

    fn stop(&mut self, job: &SearchedJob, bound: SearchBound) {
        let position = self.search.position();
        let number = job.number;
        self.stopped = Some((bound, SearchCursor { number, position }));
    }

    /// Stops because no further line may be found.
    fn stop_full(&mut self, job: &SearchedJob) {
        let bound = match self.found.has_lines_max() {
            true => SearchBound::Limit,
            false => SearchBound::Json,
        };
        self.stop(job, bound);
    }

    /// A job without output.
    pub(super) fn pass_over(mut self, job: &Job) -> Self {
        self.jobs += 1;
        self.search.begin(&LinePosition::begin(job.output_bytes));
        self.pass(job.number);
        self
    }

    /// A job was searched to its end.
    fn pass(&mut self, number: JobNumber) {
        self.has_advanced = true;
        let position = self.search.position();
        self.reached = Some(SearchCursor { number, position });
    }

    /// Why the output of the last job could not be read to its end.
    pub(super) fn unread(&mut self) -> Option<ReadError> {
        self.unread.take()
    }

    fn count(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Chunk(chunk) => self.bytes += chunk.data.len() as u64,
                Item::Gap(gap) => self.missing_bytes += gap.to.saturating_sub(gap.from),
            }
        }
    }

    /// Takes the lines that were found in a job.
    fn take_found(&mut self, job: &SearchedJob) {
        let mut lines = std::mem::take(&mut self.found.lines);
        lines.sort_by_key(|line| line.offset);
        self.hits.extend(lines.into_iter().map(|line| SearchHit {
            job: job.id,
            number: job.number,
            line,
        }));
    }

    pub(super) fn result(self) -> SearchResult {
        SearchResult {
            hits: self.hits,
            stopped: self.stopped,
            jobs: self.jobs,
            bytes: self.bytes,
            missing_bytes: self.missing_bytes,
            unreadable: self.unreadable,
            elapsed: self.began.elapsed(),
        }
    }
}

impl Executor {
    /// Searches the output of a job from a position on. Afterwards the search is over, or the output is
    /// unread, or it was searched to its end.
    pub(super) async fn search_output(
        &self,
        turns: &SessionTurns,
        mut run: SearchRun,
        job: &SearchedJob,
        position: LinePosition,
    ) -> Result<SearchRun, Error> {
        run.jobs += 1;
        run.search.begin(&position);
        let first = position.next();
        let mut cursor = Cursor::new(position.from);
        let (mut missing, mut is_through) = (false, false);
        while !is_through && run.stopped.is_none() {
            let _piece = turns.piece().await?;
            let before = cursor.offset;
            let batch = match self.read_piece(job, &mut cursor).await {
                Err(ReadError::Store(error)) => return Err(error.into()),
                // Bytes that were in a segment a moment ago may be rows now, or deleted.
                Ok(batch) if batch.at_end && job.is_final && cursor.offset < job.end => {
                    let was_missing = std::mem::replace(&mut missing, cursor.offset == before);
                    if missing && was_missing {
                        run.unread = Some(ReadError::Missing(job.number, cursor.offset));
                        is_through = true;
                    }
                    cursor = Cursor::new(cursor.offset);
                    batch
                }
                Ok(batch) => {
                    is_through = batch.at_end || cursor.offset >= job.end;
                    batch
                }
                Err(error) => {
                    run.unread = Some(error);
                    is_through = true;
                    ReadBatch::default()
                }
            };
            run.count(&batch.items);
            run = self
                .search_items(run, job, batch.items, (first, is_through))
                .await?;
            if !is_through
                && run.stopped.is_none()
                && let Some(bound) = run.reached_bound()
            {
                run.stop(job, bound);
            }
        }
        run.take_found(job);
        Ok(run)
    }

    /// Reads on; nothing where the end was reached.
    async fn read_piece(
        &self,
        job: &SearchedJob,
        cursor: &mut Cursor,
    ) -> Result<ReadBatch, ReadError> {
        if cursor.offset >= job.end {
            return Ok(ReadBatch::default());
        }
        let _slot = self.inner.read_slots.acquire().await;
        self.inner.log.read(job.number, cursor, PIECE_BYTES).await
    }

    /// Searches a piece, in turns; after the last piece, also the lines in which the output ends. Stops
    /// at the bound of lines, and in the middle of an expensive piece at the bound of time. `first`:
    /// where the search of this output began.
    async fn search_items(
        &self,
        mut run: SearchRun,
        job: &SearchedJob,
        mut items: Vec<Item>,
        (first, is_last): (Offset, bool),
    ) -> Result<SearchRun, Error> {
        let mut at = ItemProgress::default();
        run.search.begin_piece();
        loop {
            let searched;
            (run, items, at, searched) = self
                .in_turn(move || {
                    let (mut visits, found) = (TURN_VISITS, &mut run.found);
                    let mut searched = run.search.feed(&items, &mut at, found, &mut visits);
                    if is_last && searched == Searched::Through {
                        searched = run.search.finish(found, &mut visits);
                    }
                    (run, items, at, searched)
                })
                .await?;
            run.has_advanced |= run.search.next() > first;
            match (searched, run.reached_bound()) {
                (Searched::Full, _) => run.stop_full(job),
                (Searched::Paused, Some(bound)) => run.stop(job, bound),
                (Searched::Paused, None) => continue,
                (Searched::Through, _) if is_last => run.pass(job.number),
                (Searched::Through, _) => {}
            }
            return Ok(run);
        }
    }
}
