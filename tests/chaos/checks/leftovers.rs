//! Nothing is left: no process, no socket, no file of the spool that no row refers to and no row
//! without its file, no descriptor of an idle server or shim on any output, no zombie.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::rows::Rows;

const NAME: &str = "leftovers";

/// What was found when all was over.
#[derive(Debug, Clone, Default)]
pub struct Remains {
    /// Processes with our mark or data directory, once the server has been stopped.
    pub processes: Vec<String>,
    /// Sockets and locks of shims below the data directory, then.
    pub sockets: Vec<String>,
    /// Files of the spool and their sizes, then.
    pub spool: BTreeMap<String, u64>,
    /// What the idle server held open that has to do with jobs, before it was stopped.
    pub descriptors: Vec<String>,
    /// How many descriptors the idle server held, and how many it may.
    pub descriptor_count: (usize, usize),
    /// Shims that an idle server keeps without need.
    pub idle_shims: usize,
    /// Children of the idle server that nobody has waited for.
    pub zombies: usize,
}

/// Judges what is left. `launched_us`: when the last server was launched.
pub fn check(remains: &Remains, rows: &Rows, launched_us: u64) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut left = |what: &str, names: &[String]| {
        let names = names.iter().map(|name| format!("{what}: {name}"));
        found.extend(names.map(|name| Violation::general(NAME, name)));
    };
    left("a process", &remains.processes);
    left("a socket", &remains.sockets);
    left("a descriptor of the idle server", &remains.descriptors);
    let (count, allowed) = remains.descriptor_count;
    if count > allowed {
        left("too many descriptors", &[format!("{count}, not {allowed}")]);
    }
    if remains.idle_shims > 0 {
        left("shims without need", &[remains.idle_shims.to_string()]);
    }
    if remains.zombies > 0 {
        left("zombies", &[remains.zombies.to_string()]);
    }
    if rows.inputs > 0 {
        left("inputs of final jobs", &[rows.inputs.to_string()]);
    }
    if rows.dependencies > 0 {
        left(
            "dependencies of final jobs",
            &[rows.dependencies.to_string()],
        );
    }
    let open = |state: &str| ["claimed", "started"].contains(&state);
    for row in rows.attempts.iter().filter(|row| open(&row.state)) {
        left("an open attempt", &[format!("{row:?}")]);
    }
    let referred: BTreeMap<String, u64> = rows
        .segments
        .iter()
        .map(|row| (row.file_name(), row.file_bytes))
        .collect();
    // The mark that keeps a late shim from starting a void attempt goes with the next start.
    let marks = rows.attempts.iter().filter(|row| {
        row.state == "void" && row.ended_at.is_some_and(|ended| ended >= launched_us)
    });
    let marks: Vec<String> = marks
        .map(|row| format!("{}.{}.", row.job, row.attempt))
        .collect();
    let is_mark = |name: &&String| marks.iter().any(|mark| name.starts_with(mark));
    let files = remains.spool.keys().filter(|name| !is_mark(name));
    let names: BTreeSet<&String> = files.chain(referred.keys()).collect();
    for name in names {
        let (file, row) = (remains.spool.get(name), referred.get(name));
        if file != row {
            left(
                "the spool",
                &[format!("{name}: {file:?} bytes, its row says {row:?}")],
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{super::scene, *};
    use crate::rows::SegmentRow;

    #[test]
    fn a_tidy_end_passes() {
        assert_eq!(check(&Remains::default(), &scene::honest().rows, 0), []);
    }

    #[test]
    fn everything_that_is_left_is_found() {
        let name = || vec!["x".to_owned()];
        for remains in [
            Remains {
                processes: name(),
                ..Remains::default()
            },
            Remains {
                sockets: name(),
                ..Remains::default()
            },
            Remains {
                descriptors: name(),
                ..Remains::default()
            },
            Remains {
                descriptor_count: (30, 29),
                ..Remains::default()
            },
            Remains {
                idle_shims: 1,
                ..Remains::default()
            },
            Remains {
                zombies: 1,
                ..Remains::default()
            },
            Remains {
                spool: [("7.1.0.seg".to_owned(), 12)].into(),
                ..Remains::default()
            },
        ] {
            assert_eq!(
                check(&remains, &scene::honest().rows, 0).len(),
                1,
                "{remains:?}"
            );
        }
    }

    #[test]
    fn the_mark_of_a_void_attempt_is_left_only_by_the_last_server() {
        let mut rows = scene::honest().rows;
        rows.attempts[0].state = "void".to_owned();
        let remains = Remains {
            spool: [("1.1.0.seg".to_owned(), 247)].into(),
            ..Remains::default()
        };
        let ended = rows.attempts[0].ended_at.expect("an end");
        assert_eq!(check(&remains, &rows, ended), []);
        assert_eq!(check(&remains, &rows, ended + 1).len(), 1);
    }

    #[test]
    fn rows_without_files_and_open_attempts_are_found() {
        let mut rows = scene::honest().rows;
        rows.segments.push(SegmentRow {
            job: 1,
            attempt: 1,
            first_offset: 0,
            file_bytes: 9,
        });
        rows.attempts[0].state = "started".to_owned();
        rows.inputs = 1;
        rows.dependencies = 1;
        assert_eq!(check(&Remains::default(), &rows, 0).len(), 4);
    }
}
