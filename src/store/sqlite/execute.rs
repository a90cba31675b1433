//! What the writer can be asked to do and what it answers, and how a batch of it is executed.
//!
//! It does not know when a batch begins or how it is committed; `writer` does.

use std::sync::Arc;

use super::{
    attempts::{self, PauseTold, RefusalTold, VoidAsk},
    change,
    claim::{self, ClaimAsk},
    finish, inputs,
    job_snapshot::Batch,
    jobs, nodes, outputs, queues,
    wishes::{self, PauseAsk},
};
use crate::{
    job::{Input, JobChange, JobRef, QueueChange, StopWish},
    store::{
        BatchRefused, Claimed, Deleted, Epoch, Fenced, Finish, InputMet, PauseWished, QueueDeleted,
        QueueSet, SegmentRow, Started, Submission, Taken, Updated, Wished,
    },
};

/// One write.
#[derive(Debug)]
pub(in crate::store) enum Ask {
    BeginEpoch(String, String),
    SetQueue(QueueChange),
    DeleteQueue(String),
    /// All of them or none.
    Submit(Arc<[Submission]>),
    Started(Started),
    Paused(PauseTold),
    StopRefused(RefusalTold),
    WishStop(JobRef, StopWish),
    WishPause(PauseAsk),
    Input(JobRef, Input),
    Update(JobRef, JobChange),
    Delete(JobRef),
    Void(VoidAsk),
    SegmentRead(SegmentRow),
    Finish(Box<Finish>),
    Claim(ClaimAsk),
}

/// The answer to it.
#[derive(Debug)]
pub(in crate::store) enum Answer {
    Epoch(Epoch),
    QueueSet(QueueSet),
    QueueDeleted(QueueDeleted),
    Submitted(Result<Vec<Taken>, BatchRefused>),
    Fenced(Fenced),
    Wished(Box<Wished>),
    PauseWished(Box<PauseWished>),
    Updated(Box<Updated>),
    Deleted(Box<Deleted>),
    InputMet(Box<InputMet>),
    Claimed(Claimed),
}

impl Ask {
    /// In which order the writes of a batch are executed; those of one rank in the order of
    /// arrival.
    ///
    /// Nothing of a batch has been answered yet, so all of it happens "at the same time" and any
    /// order is true. This one follows a job's life and lets equal writes meet in one statement;
    /// claims come last, so that a slot which is freed in a batch is filled in it.
    pub fn rank(&self) -> u8 {
        match self {
            Self::BeginEpoch(..) | Self::SetQueue(_) | Self::DeleteQueue(_) => 0,
            Self::Submit(_) => 1,
            Self::Started(_) => 2,
            Self::Paused(_)
            | Self::StopRefused(_)
            | Self::WishStop(..)
            | Self::WishPause(_)
            | Self::Input(..)
            | Self::Update(..)
            | Self::Delete(_)
            | Self::Void(_) => 3,
            Self::SegmentRead(_) => 4,
            Self::Finish(_) => 5,
            Self::Claim(_) => 6,
        }
    }

    /// Whether it brings something new, for which a full disk has no room: it is refused then, so
    /// that ends and wishes can still be stored.
    pub fn can_wait(&self) -> bool {
        matches!(
            self,
            Self::Submit(_)
                | Self::SetQueue(_)
                | Self::Update(..)
                | Self::Input(..)
                | Self::Claim(_)
        )
    }

    /// About how many rows it writes.
    pub fn rows(&self) -> usize {
        match self {
            Self::Submit(submissions) => submissions.len(),
            _ => 1,
        }
    }
}

/// Executes writes that are sorted by rank; one answer each, in the same order.
pub(super) async fn execute(batch: &mut Batch<'_>, asks: &[Ask]) -> sqlx::Result<Vec<Answer>> {
    let mut answers = Vec::with_capacity(asks.len());
    for group in asks.chunk_by(|a, b| a.rank() == b.rank()) {
        match group[0] {
            Ask::Submit(_) => {
                let batches: Vec<_> = group.iter().filter_map(Ask::as_submit).collect();
                let submitted = jobs::submit(batch, &batches).await?;
                answers.extend(submitted.into_iter().map(Answer::Submitted));
            }
            Ask::Started(_) => {
                let starts: Vec<_> = group.iter().filter_map(Ask::as_started).collect();
                let fenced = attempts::started(batch, &starts).await?;
                answers.extend(fenced.into_iter().map(Answer::Fenced));
            }
            Ask::Finish(_) => {
                let finishes: Vec<_> = group.iter().filter_map(Ask::as_finish).collect();
                let fenced = finish::finish(batch, &finishes).await?;
                answers.extend(fenced.into_iter().map(Answer::Fenced));
            }
            Ask::Claim(_) => {
                let claims: Vec<_> = group.iter().filter_map(Ask::as_claim).collect();
                let claimed = claim::claim(batch, &claims).await?;
                answers.extend(claimed.into_iter().map(Answer::Claimed));
            }
            _ => {
                for ask in group {
                    answers.push(execute_one(batch, ask).await?);
                }
            }
        }
    }
    Ok(answers)
}

async fn execute_one(batch: &mut Batch<'_>, ask: &Ask) -> sqlx::Result<Answer> {
    Ok(match ask {
        Ask::BeginEpoch(boot_id, place) => {
            Answer::Epoch(nodes::begin_epoch(batch.conn, boot_id, place).await?)
        }
        Ask::SetQueue(change) => Answer::QueueSet(queues::set(batch.conn, change).await?),
        Ask::DeleteQueue(name) => Answer::QueueDeleted(queues::delete(batch.conn, name).await?),
        Ask::Paused(told) => Answer::Fenced(attempts::paused(batch, told).await?),
        Ask::StopRefused(told) => Answer::Fenced(attempts::stop_refused(batch, told).await?),
        Ask::WishStop(job, wish) => {
            Answer::Wished(Box::new(wishes::stop(batch, *job, wish).await?))
        }
        Ask::WishPause(ask) => Answer::PauseWished(Box::new(wishes::pause(batch, ask).await?)),
        Ask::Input(job, input) => {
            Answer::InputMet(Box::new(inputs::input(batch, *job, input).await?))
        }
        Ask::Update(job, update) => {
            Answer::Updated(Box::new(change::update(batch, *job, update).await?))
        }
        Ask::Delete(job) => Answer::Deleted(Box::new(change::delete(batch, *job).await?)),
        Ask::Void(ask) => Answer::Fenced(attempts::void(batch, ask).await?),
        Ask::SegmentRead(row) => Answer::Fenced(outputs::segment_read(batch, row).await?),
        Ask::Submit(_) | Ask::Started(_) | Ask::Finish(_) | Ask::Claim(_) => {
            return Err(super::columns::malformed(
                "this write is executed in groups",
            ));
        }
    })
}

impl Ask {
    fn as_submit(&self) -> Option<&[Submission]> {
        match self {
            Self::Submit(submissions) => Some(submissions),
            _ => None,
        }
    }

    fn as_started(&self) -> Option<&Started> {
        match self {
            Self::Started(started) => Some(started),
            _ => None,
        }
    }

    fn as_finish(&self) -> Option<&Finish> {
        match self {
            Self::Finish(finish) => Some(finish),
            _ => None,
        }
    }

    fn as_claim(&self) -> Option<&ClaimAsk> {
        match self {
            Self::Claim(claim) => Some(claim),
            _ => None,
        }
    }
}
