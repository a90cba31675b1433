//! The points at which a run is struck, taken from the reports of runs that were not.
//! Does not know how anybody is struck.

use std::{collections::BTreeMap, fmt};

use nix::errno::Errno;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It is not executed.
    Before,
    /// It is executed, and its caller dies.
    After,
    /// Half of its bytes are written, and its caller dies.
    Torn,
    /// It is not executed and returns an error, once or several times in a row.
    Error {
        /// The error.
        errno: Errno,
        /// How often in a row.
        times: usize,
    },
}

impl How {
    /// The fixture's word for it.
    pub fn word(self) -> String {
        match self {
            Self::Before => "before".to_owned(),
            Self::After => "after".to_owned(),
            Self::Torn => "torn".to_owned(),
            Self::Error { errno, .. } => (errno as i32).to_string(),
        }
    }

    /// How many calls in a row it happens to.
    pub fn times(self) -> usize {
        match self {
            Self::Error { times, .. } => times,
            _ => 1,
        }
    }

    /// Whether its caller dies of it.
    pub fn kills(self) -> bool {
        !matches!(self, Self::Error { .. })
    }
}

/// One point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// What is done to what, such as `fsync cc-executor.db-wal`.
    pub call: String,
    /// Which of these calls, from 1.
    pub nth: usize,
    /// What happens to it.
    pub how: How,
}

impl Point {
    /// Whether the call is one by which memory is got.
    pub fn takes_memory(&self) -> bool {
        !self.how.kills() && self.call == "mmap"
    }

    /// Whether the error is one after which nothing that was written may be trusted: a failed sync,
    /// or a broken disk below the database.
    pub fn is_of_storage(&self) -> bool {
        let How::Error { errno, .. } = self.how else {
            return false;
        };
        let syncs = ["fsync ", "fdatasync ", "syncfs "];
        let synced = syncs.iter().any(|sync| self.call.starts_with(sync));
        synced || errno == Errno::EIO && self.call.contains("cc-executor.db")
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.how {
            How::Error { errno, times: 1 } => write!(f, "{errno:?} at")?,
            How::Error { errno, times } => write!(f, "{times} {errno:?} from")?,
            how => write!(f, "{}", how.word())?,
        }
        write!(f, " #{} of {:?}", self.nth, self.call)
    }
}

/// How often each call was made, in the run with the most of it, and whether it can be torn.
pub fn most_calls(reports: &[String]) -> BTreeMap<String, (usize, bool)> {
    let mut calls: BTreeMap<String, (usize, bool)> = BTreeMap::new();
    for report in reports {
        for (call, (count, tears)) in count(report) {
            let most = calls.entry(call).or_default();
            *most = (most.0.max(count), most.1 || tears);
        }
    }
    calls
}

/// Every point at which the runs with these reports can be killed.
pub fn enumerate(reports: &[String]) -> Vec<Point> {
    let sides = |(call, (count, tears)): (String, (usize, bool))| {
        (1..=count).flat_map(move |nth| {
            let call = call.clone();
            let sides = [How::Before, How::After, How::Torn];
            let sides = sides
                .into_iter()
                .filter(move |how| tears || *how != How::Torn);
            sides.map(move |how| Point {
                call: call.clone(),
                nth,
                how,
            })
        })
    };
    most_calls(reports).into_iter().flat_map(sides).collect()
}

/// How often each call was made, and whether any of them can be torn.
fn count(report: &str) -> BTreeMap<String, (usize, bool)> {
    let mut calls: BTreeMap<String, (usize, bool)> = BTreeMap::new();
    for line in report.lines() {
        let (kind, call) = line.split_once(' ').expect("two words");
        if kind != "struck" {
            let entry = calls.entry(call.to_owned()).or_default();
            entry.0 += 1;
            entry.1 |= kind == "tears";
        }
    }
    calls
}

#[test]
fn calls_of_several_runs_are_put_together() {
    let reports = [
        "tears write a\nwhole fsync a\ntears write a",
        "whole fsync a\nwhole fsync a",
    ];
    let points = enumerate(&reports.map(str::to_owned));
    let count = |call: &str| points.iter().filter(|point| point.call == call).count();
    assert_eq!(count("write a"), 2 * 3);
    assert_eq!(count("fsync a"), 2 * 2);
    assert_eq!(points[0].to_string(), "before #1 of \"fsync a\"");
}
