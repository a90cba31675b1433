//! Settles an ended attempt: where its output stays, its digest, and what is to be committed.
//!
//! It reads and syncs files; committing and unlinking is done by who asked.

use std::{fs::File, io, path::Path};

use super::ward::{Key, Ward};
use crate::{
    clock,
    job::{ExitFacts, Gap, GapReason, JobState, Micros, Offset, Reason, Survivor},
    output::{Digest, collect},
    spool::{SegmentName, reader::is_no_segment},
    store::{Finish, Kept, SegmentRow, Started},
};

/// How an attempt ended, as far as anybody can know.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The shim knew.
    Known {
        /// What it knew.
        facts: Box<ExitFacts>,
        /// Whether all its segments are on disk.
        synced: bool,
    },
    /// Nobody can know.
    Lost {
        /// Processes that could not be proven gone.
        survivors: Vec<Survivor>,
        /// How many bytes may have been shown and are gone with the machine's power; 0 where it
        /// kept running.
        unsynced_bytes_max: u64,
    },
}

/// What is to be committed, and what may be unlinked behind it.
#[derive(Debug, Clone)]
pub struct Settled {
    /// The attempt.
    pub key: Key,
    /// Its start, where that is not entered yet.
    pub start: Option<Started>,
    /// What is to be committed.
    pub finish: Finish,
    /// Segments whose bytes the commit takes into rows.
    pub unlink: Vec<SegmentName>,
}

/// Settles an attempt. Blocking: it reads what has not been hashed, and syncs what stays.
pub fn settle(
    spool: &Path,
    inline_bytes_max: u64,
    mut ward: Ward,
    ending: Ending,
) -> io::Result<Settled> {
    let mut remains = remains(spool, inline_bytes_max, &mut ward)?;
    if let Ending::Lost {
        unsynced_bytes_max, ..
    } = &ending
    {
        remains.add_power_loss(*unsynced_bytes_max, &mut ward.digest);
    }
    let synced = matches!(&ending, Ending::Known { synced: true, .. });
    if !synced {
        remains.sync(spool, ward.key)?;
    }
    let Remains { kept, unlink } = remains;
    Ok(Settled {
        key: ward.key,
        start: None,
        finish: finish(&ward, ending, kept),
        unlink,
    })
}

/// Where the output of an attempt stays.
struct Remains {
    kept: Kept,
    unlink: Vec<SegmentName>,
}

fn remains(spool: &Path, inline_bytes_max: u64, ward: &mut Ward) -> io::Result<Remains> {
    let first = SegmentName {
        job: ward.key.job,
        attempt: ward.key.attempt,
        first_offset: ward.start_offset,
    };
    if ward.digest.offset() == ward.start_offset {
        match collect(spool, first, inline_bytes_max) {
            Ok(Some(collected)) => {
                for item in collected.items() {
                    ward.digest.update(&item);
                }
                return Ok(Remains {
                    kept: Kept::Rows {
                        chunks: collected.chunks,
                        gaps: collected.gaps,
                    },
                    unlink: vec![first],
                });
            }
            // It never wrote anything that is still there.
            Err(error) if is_no_segment(&error) => {
                return Ok(Remains {
                    kept: Kept::Rows {
                        chunks: Vec::new(),
                        gaps: Vec::new(),
                    },
                    unlink: Vec::new(),
                });
            }
            Ok(None) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Remains {
        kept: Kept::Segments {
            rows: segment_rows(spool, ward)?,
            gaps: Vec::new(),
        },
        unlink: Vec::new(),
    })
}

/// Hashes what has no row yet. The output of a lost attempt may end behind a seal: after a power
/// loss its successor can be missing.
fn segment_rows(spool: &Path, ward: &mut Ward) -> io::Result<Vec<SegmentRow>> {
    let Key { job, attempt } = ward.key;
    let mut rows = Vec::new();
    loop {
        match ward.digest.next_segment(spool, job, attempt) {
            Ok((row, sealed)) => {
                rows.push(row);
                if !sealed {
                    return Ok(rows);
                }
            }
            Err(error) if is_no_segment(&error) => return Ok(rows),
            Err(error) => return Err(error),
        }
    }
}

impl Remains {
    /// Behind what is left, offsets that may have been shown are never used again.
    fn add_power_loss(&mut self, bytes: u64, digest: &mut Digest) {
        if bytes == 0 {
            return;
        }
        let gap = Gap {
            from: digest.offset(),
            to: digest.offset() + bytes,
            reason: GapReason::PowerLoss,
        };
        digest.update(&crate::output::Item::Gap(gap));
        match &mut self.kept {
            Kept::Rows { gaps, .. } | Kept::Segments { gaps, .. } => gaps.push(gap),
        }
    }

    /// A final job's output is on disk. Rows are synced by the commit itself.
    ///
    /// All segments of the attempt, also those that have rows: whoever was to sync them may have
    /// died on the way. For a file that is on disk this costs next to nothing.
    fn sync(&self, spool: &Path, key: Key) -> io::Result<()> {
        if matches!(self.kept, Kept::Rows { .. }) {
            return Ok(());
        }
        for entry in std::fs::read_dir(spool)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().and_then(SegmentName::parse);
            if name.is_some_and(|name| (name.job, name.attempt) == (key.job, key.attempt)) {
                File::open(entry.path())?.sync_data()?;
            }
        }
        File::open(spool)?.sync_all()
    }
}

fn finish(ward: &Ward, ending: Ending, kept: Kept) -> Finish {
    let end_offset: Offset = ward.digest.offset();
    let (state, reason, facts, survivors, at, actor) = match ending {
        Ending::Known { facts, .. } => {
            if facts.end_offset != end_offset {
                let Key { job, attempt } = ward.key;
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
            (state, reason, Some(*facts), Vec::new(), at, "shim")
        }
        Ending::Lost { survivors, .. } => {
            let at: Micros = clock::now();
            let lost = Some(Reason::Lost);
            (JobState::Failed, lost, None, survivors, at, "rescue")
        }
    };
    Finish {
        number: ward.key.job,
        attempt: ward.key.attempt,
        state,
        reason,
        facts,
        survivors,
        end_offset,
        kept,
        output_sha256: ward.digest.hex(),
        hash_state: Some(ward.digest.state()),
        actor: actor.to_owned(),
        at,
    }
}
