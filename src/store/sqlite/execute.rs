//! How a batch of writes is executed.
//!
//! It does not know when a batch begins or how it is committed; `writer` does.

use super::{
    attempts, change, claim, finish, inputs, job_snapshot::Batch, jobs, nodes, outputs, queues,
    wishes,
};
use crate::store::write::{Answer, Ask};

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
