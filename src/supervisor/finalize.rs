//! Finalizes an ended attempt: decides where its output stays, completes its digest, and returns
//! what is to be committed.
//!
//! It reads and syncs files. The caller commits and unlinks.

use std::{io, path::Path};

use super::attempt_watch::{AttemptId, AttemptWatch};
use crate::{
    job::{Dropped, ExitFacts, Gap, GapReason, JobState, Micros, Offset, Reason, Survivor},
    output::{
        Digest,
        files::durable::{sync_attempt, write_anew},
        read::collect::collect,
    },
    spool::{
        DroppedRange, Position, RecordKind, SegmentName, SegmentReader, dropped_range,
        reader::{NextRecord, is_no_segment},
        unsynced,
    },
    store::{Finish, OutputPlacement, SegmentRow, StartedAttempt},
    sys::clock,
};

/// How an attempt ended, as far as it can be known.
#[derive(Debug, Clone, PartialEq)]
pub enum AttemptEnding {
    /// The shim reported or recorded it.
    Known {
        /// The exit and what belongs to it.
        facts: Box<ExitFacts>,
        /// Whether all its segments are on disk.
        synced: bool,
    },
    /// It is unknown.
    Lost {
        /// Processes that could not be proven gone.
        survivors: Vec<Survivor>,
        /// Why there may be more survivors; `None` if all were found.
        survivors_unknown: Option<String>,
        /// How many bytes readers may have seen that were lost with the machine's power; 0 if the
        /// machine kept running.
        unsynced_bytes_max: u64,
    },
}

/// What is to be committed, and what may be unlinked after that.
#[derive(Debug, Clone)]
pub struct Finalized {
    /// The attempt that ended.
    pub key: AttemptId,
    /// Its start, if that is not committed yet.
    pub start: Option<StartedAttempt>,
    /// Where the attempt's output begins.
    pub start_offset: Offset,
    /// Whether the job expects something of its output, which is not checked yet.
    pub expects: bool,
    /// The end and where the output stays, to be committed.
    pub finish: Finish,
    /// Names of files in the spool that the commit makes useless: segments whose bytes it puts into
    /// rows, and the notes that segments were dropped.
    pub unlink: Vec<String>,
}

/// Finalizes an attempt. Blocking: it reads what has not been hashed, and syncs what stays.
pub fn finalize(
    spool: &Path,
    inline_bytes_max: u64,
    mut watch: AttemptWatch,
    ending: AttemptEnding,
) -> io::Result<Finalized> {
    let AttemptId { job, attempt } = watch.key;
    let unsynced = unsynced::is_marked(spool, job, attempt)?;
    if unsynced {
        // Before the output is read: from here on the rewritten segments are the output.
        write_anew(spool, job, attempt)?;
        watch.read_again();
    }
    let known_end = match &ending {
        AttemptEnding::Known { facts, .. } => facts.end_offset,
        AttemptEnding::Lost { .. } => 0,
    };
    let mut remains = remains(spool, inline_bytes_max, known_end, &mut watch)?;
    if let AttemptEnding::Lost {
        unsynced_bytes_max, ..
    } = &ending
    {
        add_power_loss(*unsynced_bytes_max, &mut watch.digest);
    }
    let synced = matches!(&ending, AttemptEnding::Known { synced: true, .. });
    // The commit itself syncs rows.
    if !synced && matches!(remains.kept, OutputPlacement::Segments { .. }) {
        sync_attempt(spool, job, attempt)?;
    }
    if unsynced {
        remains.unlink.push(unsynced::file_name(job, attempt));
    }
    remains.gaps().extend(watch.digest.take_gaps());
    let OutputRemains {
        kept,
        unlink,
        dropped_range,
    } = remains;
    let mut finish = finish(&watch, ending, kept);
    // The spool tells more exactly what was dropped than the shim that dropped it.
    if dropped_range.is_some() || finish.facts.is_none() {
        let ranges = [dropped_range, last_dropped(spool, watch.key)?];
        finish.dropped = dropped(&finish.kept, &ranges);
    }
    Ok(Finalized {
        key: watch.key,
        start: None,
        start_offset: watch.start_offset,
        expects: watch.expects,
        finish,
        unlink,
    })
}

/// Where the output of an attempt stays.
struct OutputRemains {
    kept: OutputPlacement,
    unlink: Vec<String>,
    /// The output that was dropped in the middle.
    dropped_range: Option<DroppedRange>,
}

fn remains(
    spool: &Path,
    inline_bytes_max: u64,
    known_end: Offset,
    watch: &mut AttemptWatch,
) -> io::Result<OutputRemains> {
    let first = SegmentName {
        job: watch.key.job,
        attempt: watch.key.attempt,
        first_offset: watch.start_offset,
    };
    let dropped_range = dropped_range::read(spool, watch.key.job, watch.key.attempt)?;
    if dropped_range.is_none() && watch.digest.offset() == watch.start_offset {
        let notes = dropped_range::files(spool, watch.key.job, watch.key.attempt);
        match collect(spool, first, inline_bytes_max) {
            // Only if all is there that the shim has stored.
            Ok(Some(collected)) if collected.end(watch.start_offset) >= known_end => {
                for item in collected.items() {
                    watch.digest.update(&item);
                }
                return Ok(OutputRemains {
                    kept: OutputPlacement::Rows {
                        chunks: collected.chunks,
                        gaps: Vec::new(),
                    },
                    unlink: [first.to_string()].into_iter().chain(notes).collect(),
                    dropped_range,
                });
            }
            // Nothing was stored, or nothing of it is there.
            Err(error) if is_no_segment(&error) && known_end <= watch.start_offset => {
                return Ok(OutputRemains {
                    kept: OutputPlacement::Rows {
                        chunks: Vec::new(),
                        gaps: Vec::new(),
                    },
                    unlink: notes,
                    dropped_range,
                });
            }
            Ok(_) => {}
            Err(error) if is_no_segment(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let mut rows = segment_rows(spool, watch, dropped_range, known_end)?;
    let mut unlink = dropped_files(spool, watch.key, dropped_range)?;
    // A last segment without bytes gets no row: there is nothing to read in it. Its file goes.
    let empty = rows.pop_if(|row| row.end_offset == row.first_offset);
    unlink.extend(empty.map(|row| {
        let name = SegmentName {
            job: row.number,
            attempt: row.attempt,
            first_offset: row.first_offset,
        };
        name.to_string()
    }));
    Ok(OutputRemains {
        kept: OutputPlacement::Segments {
            rows,
            gaps: Vec::new(),
        },
        unlink,
        dropped_range,
    })
}

/// The notes of what was dropped, and segments that they name as dropped: the shim may have been
/// killed before it unlinked those.
fn dropped_files(
    spool: &Path,
    key: AttemptId,
    dropped_range: Option<DroppedRange>,
) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    if let Some(range) = dropped_range {
        let segments = dropped_range::segments(spool, key.job, key.attempt)?.into_iter();
        let gone = segments.filter(|name| range.skip_past(name.first_offset) > name.first_offset);
        files.extend(gone.map(|name| name.to_string()));
    }
    // The notes go last: if the unlinking is interrupted, they still name the rest.
    files.extend(dropped_range::files(spool, key.job, key.attempt));
    Ok(files)
}

/// What was dropped of an attempt, according to the spool.
fn dropped(kept: &OutputPlacement, ranges: &[Option<DroppedRange>]) -> Dropped {
    let (OutputPlacement::Rows { gaps, .. } | OutputPlacement::Segments { gaps, .. }) = kept;
    let dropped = gaps.iter().filter(|gap| gap.reason.is_dropping());
    Dropped {
        bytes: dropped.map(|gap| gap.to - gap.from).sum(),
        lines: ranges.iter().flatten().map(|range| range.lines).sum(),
    }
}

/// What the last segment records of output that was dropped beyond the bound. An attempt without an
/// exit record can have that record, because a kill can come between the two.
fn last_dropped(spool: &Path, key: AttemptId) -> io::Result<Option<DroppedRange>> {
    let Some(last) = dropped_range::segments(spool, key.job, key.attempt)?.pop() else {
        return Ok(None);
    };
    let mut reader = match SegmentReader::open(spool, Position::first(last)) {
        Err(error) if is_no_segment(&error) => return Ok(None),
        reader => reader?,
    };
    while let NextRecord::Record(header, payload) = reader.next_record()? {
        if header.kind == RecordKind::Gap {
            return Ok(serde_json::from_slice(payload).ok());
        }
    }
    Ok(None)
}

/// Hashes what has no row yet. The output of a lost attempt may end after a sealed segment: after a
/// power loss the next one can be missing. If there is more output after something that cannot be
/// read, that is damage: its row goes as far as what follows, and there is no digest.
fn segment_rows(
    spool: &Path,
    watch: &mut AttemptWatch,
    dropped_range: Option<DroppedRange>,
    known_end: Offset,
) -> io::Result<Vec<SegmentRow>> {
    let AttemptId { job, attempt } = watch.key;
    let mut gap = dropped_range.map(|range| range.gap);
    let mut rows = Vec::new();
    loop {
        if let Some(gap) = gap.take_if(|gap| gap.from <= watch.digest.offset()) {
            watch.digest.skip(gap);
        }
        let from = watch.digest.offset();
        match watch.digest.next_segment(spool, job, attempt) {
            Ok((row, true)) => {
                rows.push(row);
                continue;
            }
            Ok((row, false)) => rows.push(row),
            Err(error) if is_no_segment(&error) => {}
            Err(error) => return Err(error),
        }
        let read_to = watch.digest.offset();
        let Some(to) = next_found(spool, watch.key, read_to, known_end)? else {
            return Ok(rows);
        };
        tracing::error!(job, attempt, from = read_to, to, "a segment is damaged");
        rows.retain(|row| row.first_offset != from);
        rows.push(watch.digest.skip_damaged(job, attempt, from, to));
    }
}

/// Where output goes on after `offset`, up to which it could be read, if it does: at the next
/// segment that is there, or at the end that the shim reported.
fn next_found(
    spool: &Path,
    key: AttemptId,
    offset: Offset,
    known_end: Offset,
) -> io::Result<Option<Offset>> {
    let mut later = dropped_range::segments(spool, key.job, key.attempt)?.into_iter();
    let next = later.find(|name| name.first_offset > offset);
    let end = (known_end > offset).then_some(known_end);
    Ok(next.map(|name| name.first_offset).or(end))
}

/// Adds a gap after what is left: offsets that readers may have seen are never used again.
fn add_power_loss(bytes: u64, digest: &mut Digest) {
    if bytes > 0 {
        digest.skip(Gap {
            from: digest.offset(),
            to: digest.offset() + bytes,
            reason: GapReason::PowerLoss,
        });
    }
}

impl OutputRemains {
    fn gaps(&mut self) -> &mut Vec<Gap> {
        match &mut self.kept {
            OutputPlacement::Rows { gaps, .. } | OutputPlacement::Segments { gaps, .. } => gaps,
        }
    }
}

fn finish(watch: &AttemptWatch, ending: AttemptEnding, kept: OutputPlacement) -> Finish {
    let end_offset: Offset = watch.digest.offset();
    let (state, reason, facts, remains, at, actor) = match ending {
        AttemptEnding::Known { facts, .. } => {
            if facts.end_offset != end_offset {
                let AttemptId { job, attempt } = watch.key;
                tracing::error!(
                    job,
                    attempt,
                    shim = facts.end_offset,
                    found = end_offset,
                    "the shim counted another end of the output than there is"
                );
            }
            let (state, reason) = facts.outcome();
            let at = facts.ended_at();
            (state, reason, Some(*facts), (Vec::new(), None), at, "shim")
        }
        AttemptEnding::Lost {
            survivors,
            survivors_unknown,
            ..
        } => {
            let at: Micros = clock::now();
            let lost = Some(Reason::Lost);
            let remains = (survivors, survivors_unknown);
            (JobState::Failed, lost, None, remains, at, "rescue")
        }
    };
    let (survivors, survivors_unknown) = remains;
    let dropped = facts.as_ref().map(|facts| facts.dropped);
    Finish {
        unmet_expectations: Vec::new(),
        number: watch.key.job,
        attempt: watch.key.attempt,
        state,
        reason,
        facts,
        survivors,
        survivors_unknown,
        end_offset,
        dropped: dropped.unwrap_or_default(),
        kept,
        output_sha256: watch.digest.hex(),
        hash_state: Some(watch.digest.state()),
        actor: actor.to_owned(),
        at,
    }
}
