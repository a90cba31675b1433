//! What the tests of this directory share: a data directory with jobs whose output is in rows, in complete
//! segments and in the segments of a running attempt.

use std::fs;

use rusqlite::{Connection, params};

use super::connection;
use crate::{
    job::Stream,
    spool::{Layout, RecordHeader, RecordKind, SegmentName, record},
    store::{LongPath, Store},
};

/// 2026-11-22T00:00:00Z, µs since 1970.
pub const DAY_US: i64 = 1_795_305_600_000_000;
/// Jobs of the directory.
pub const JOBS: i64 = 12;
/// Pieces of each job.
const PIECES: i64 = 5;
const MEMORY_BYTES: u64 = 512 << 20;

/// A data directory; it is deleted on drop.
pub struct DataDir {
    directory: tempfile::TempDir,
}

/// Where the pieces of a job are.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Rows,
    Segment,
    Running,
}

impl DataDir {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let all = Self { directory };
        let layout = all.layout();
        fs::create_dir(layout.spool()).expect("the spool");
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store = Store::open(&layout.database()).await.expect("a store");
            store.close().await;
        });
        let conn = Connection::open(layout.database()).expect("opens");
        conn.execute_batch(
            "INSERT INTO environments (hash, names, env) VALUES (zeroblob(32), '[]', '{}')",
        )
        .expect("inserted");
        for job in 1..=JOBS {
            all.add_job(&conn, job);
        }
        all
    }

    pub fn layout(&self) -> Layout {
        Layout::new(self.directory.path())
    }

    /// A connection as a user's statement has it.
    pub fn for_user(&self) -> Connection {
        let layout = self.layout();
        let database = LongPath::to(&layout.database()).expect("a path");
        connection::for_user(&database, &layout, MEMORY_BYTES)
            .expect("opens")
            .0
    }

    fn add_job(&self, conn: &Connection, job: i64) {
        let place = match job % 3 {
            0 => Place::Rows,
            1 => Place::Segment,
            _ => Place::Running,
        };
        let (state, reason) = match (place, job % 2) {
            (Place::Running, _) => ("running", None),
            (_, 0) => ("succeeded", None),
            _ if job % 3 == 0 => ("failed", Some("signal")),
            _ => ("failed", Some("exit_code")),
        };
        let at = DAY_US + job * 3_600_000_000;
        let is_final = place != Place::Running;
        let signal = (reason == Some("signal")).then_some(if job == 3 { 9 } else { 40 });
        let exit_code = (is_final && signal.is_none()).then_some(job % 2 * 3);
        conn.execute(
            "INSERT INTO jobs (number, id, state, reason, queue, priority, name, labels, interactive,
                 on_lost, spec, environment, fingerprint, attempt, attempts, submitted_at, started_at,
                 finished_at, exit_code, output_bytes, signal)
             VALUES (?1, printf('%036d', ?1), ?2, ?3, ?4, 0, ?5, ?6, 0, 'fail', '{\"argv\":[\"a\"]}',
                 zeroblob(32), zeroblob(32), 1, 1, ?7, ?7 + 1, ?8, ?9, ?10, ?11)",
            params![
                job,
                state,
                reason,
                if job % 4 == 0 { "batch" } else { "default" },
                (job % 5 != 0).then(|| format!("n{}", job % 3)),
                format!("{{\"team\":\"{}\"}}", job % 3),
                at,
                is_final.then_some(at + 2_500_000),
                exit_code,
                PIECES * 10,
                signal,
            ],
        )
        .expect("a job");
        conn.execute(
            "INSERT INTO attempts (job, attempt, state, shim, shim_version, boot_id, instance,
                 start_offset, end_offset, claimed_at, started_at, ended_at)
             VALUES (?1, 1, ?2, 's' || ?1, '0', 'b', 'i', 0, ?3, ?4, ?4 + 1, ?5)",
            params![
                job,
                if is_final { "ended" } else { "started" },
                is_final.then_some(PIECES * 10),
                at,
                is_final.then_some(at + 2_000_000),
            ],
        )
        .expect("an attempt");
        conn.execute(
            "INSERT INTO events (job, attempt, from_state, to_state, actor, at)
             VALUES (?1, NULL, NULL, 'queued', 'cli', ?2), (?1, 1, 'queued', ?3, 'shim', ?2 + 1)",
            params![job, at, state],
        )
        .expect("events");
        match place {
            Place::Rows => add_rows(conn, job, at),
            Place::Segment | Place::Running => self.add_segments(conn, job, at, place),
        }
    }

    /// Two segments; the last piece of a running attempt is in the third.
    fn add_segments(&self, conn: &Connection, job: i64, at: i64, place: Place) {
        for (first, last) in [(0, 2), (2, PIECES)] {
            let name = SegmentName {
                job,
                attempt: 1,
                first_offset: first as u64 * 10,
            };
            let mut bytes = name.file_header().to_vec();
            for piece in first..last {
                let (stream, data) = piece_of(job, piece);
                let header = RecordHeader {
                    kind: RecordKind::Output,
                    stream,
                    offset: piece as u64 * 10,
                    wall_us: at + piece * 1_000_000,
                    boottime_us: 0,
                };
                bytes.extend(record::encode(&header, &data));
            }
            fs::write(self.layout().spool().join(name.to_string()), &bytes).expect("written");
            if place == Place::Segment || first == 0 {
                conn.execute(
                    "INSERT INTO segments (job, first_offset, attempt, end_offset, file_bytes,
                         hash_state) VALUES (?1, ?2, 1, ?3, ?4, x'00')",
                    params![job, first * 10, last * 10, bytes.len() as i64],
                )
                .expect("a segment");
            }
        }
    }
}

fn add_rows(conn: &Connection, job: i64, at: i64) {
    for piece in 0..PIECES {
        let (stream, data) = piece_of(job, piece);
        conn.execute(
            "INSERT INTO output_chunks (job, offset, length, attempt, stream, at, data)
             VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6)",
            params![
                job,
                piece * 10,
                data.len() as i64,
                stream.name(),
                at + piece * 1_000_000,
                data
            ],
        )
        .expect("a row");
    }
}

/// Stream and bytes of a piece. Some have fewer than the ten up to the next one, as where bytes were
/// dropped.
fn piece_of(job: i64, piece: i64) -> (Stream, Vec<u8>) {
    let stream = if (job + piece) % 3 == 0 {
        Stream::Stderr
    } else {
        Stream::Stdout
    };
    let length = 10 - (job * piece % 4) as usize;
    let text = format!("{job}.{piece} Line{}\u{e4}", piece % 2);
    let mut data = text.into_bytes();
    data.resize(length, b'x');
    (stream, data)
}
