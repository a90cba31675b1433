//! What is searched for and where, within which bounds, and what was found.

use std::{fmt, str::FromStr, time::Duration};

use crate::{
    executor::{FoundLine, LinePattern, LinePosition, ListFilter},
    job::{JobId, JobNumber, JobRef, Offset, Stream},
};

/// The bounds of searches. Each is a setting of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchSettings {
    /// How long one may take before it answers with what it has found, seconds.
    pub timeout_s: u64,
    /// How much output one may read before it answers with what it has found, bytes.
    pub bytes_max: u64,
    /// How many searches run at the same time.
    pub searches_max: u64,
    /// How many more may wait to run.
    pub waiting_max: u64,
}

/// Which outputs are searched.
#[derive(Debug, Clone, PartialEq)]
pub enum SearchScope {
    /// That of one job, from an offset on, as if a line began there.
    Job {
        /// The job.
        job: JobRef,
        /// Where the search begins.
        from: Offset,
    },
    /// Those of all jobs that match, newest first. `limit` and `below` are not used.
    Jobs(ListFilter),
}

/// A search over outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchOptions {
    /// What is searched for, within lines.
    pub pattern: LinePattern,
    /// Which outputs are searched.
    pub scope: SearchScope,
    /// Only these streams; `None`: all.
    pub streams: Option<Vec<Stream>>,
    /// Most lines that are found, 1 to [`Self::LIMIT_MAX`].
    pub limit: usize,
    /// Stop when the lines that were found take about this much as JSON, bytes.
    pub json_bytes_max: usize,
    /// Go on where an earlier search with the same pattern, scope and streams has stopped.
    pub cursor: Option<SearchCursor>,
}

impl SearchOptions {
    /// Most lines that one search finds.
    pub const LIMIT_MAX: usize = 1000;
    /// How many it finds if no number is given.
    pub const LIMIT_DEFAULT: usize = 50;
}

/// Where a search goes on. As text it is one word of letters, digits and `._-+`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchCursor {
    /// The job whose output is searched next; newer ones are done.
    pub number: JobNumber,
    /// Where in its output.
    pub position: LinePosition,
}

impl fmt::Display for SearchCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.position)
    }
}

/// The text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotACursor;

impl FromStr for SearchCursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (number, position) = text.split_once('.').ok_or(NotACursor)?;
        let number = number
            .parse()
            .ok()
            .filter(|number: &JobNumber| *number >= 0);
        Ok(Self {
            number: number.ok_or(NotACursor)?,
            position: position.parse().map_err(|_| NotACursor)?,
        })
    }
}

/// A line that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchHit {
    /// The job whose output it is in.
    pub job: JobId,
    /// Its number.
    pub number: JobNumber,
    /// The line.
    pub line: FoundLine,
}

/// Why a search has stopped before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchBound {
    /// As many lines were found as were asked for.
    Limit,
    /// The lines that were found take as much as [`SearchOptions::json_bytes_max`].
    Json,
    /// It has read [`SearchSettings::bytes_max`].
    Bytes,
    /// It has taken [`SearchSettings::timeout_s`].
    Time,
}

impl SearchBound {
    /// The name of the bound, as in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Json => "message_bytes_max",
            Self::Bytes => "search_bytes_max",
            Self::Time => "search_timeout_s",
        }
    }
}

/// What a search has found.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchResult {
    /// The lines: newest jobs first, those of a job in the order of their offsets.
    pub hits: Vec<SearchHit>,
    /// Why it has stopped, and where it goes on; `None`: everything was searched. After
    /// [`SearchBound::Limit`] there need not be more lines.
    pub stopped: Option<(SearchBound, SearchCursor)>,
    /// How many jobs were searched, as a whole or in part; jobs without output count, too.
    pub jobs: u64,
    /// How much of their output was read, bytes.
    pub bytes: u64,
    /// How much of it is missing (gaps), bytes.
    pub missing_bytes: u64,
    /// Jobs whose output could not be read to its end; the server's log says why.
    pub unreadable: Vec<JobNumber>,
    /// How long it took, without the time in which it waited for its turn to begin.
    pub elapsed: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_one_word() {
        let cursor = SearchCursor {
            number: 42,
            position: LinePosition::begin(7),
        };
        assert_eq!(cursor.to_string(), "42.7.-.7.7.7");
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for wrong in ["", "42", "-1.7.-.7.7.7", "x.7.-.7.7.7", "42.7"] {
            assert_eq!(wrong.parse::<SearchCursor>(), Err(NotACursor), "{wrong}");
        }
    }
}
