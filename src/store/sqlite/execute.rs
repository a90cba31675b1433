//! Executes a batch of writes.
//!
//! `writer` forms the batches and commits them.

use super::{
    attempts, audit, audit_entries, change, claim, dependencies, due,
    event_writer::write_noticed_events, exclusive, finish, firing, inputs,
    job_snapshot::WriteBatch, jobs, mcp, nodes, notices, outputs, queues, retention, schedules,
    stop_requests, tokens,
};
use crate::store::write::{AuditedWrite, Write, WriteResult};

/// Executes writes that are sorted by rank; one result each, in the same order.
pub(super) async fn execute(
    batch: &mut WriteBatch<'_>,
    writes: &[AuditedWrite],
) -> sqlx::Result<Vec<WriteResult>> {
    let mut results = Vec::with_capacity(writes.len());
    for group in writes.chunk_by(|a, b| a.rank() == b.rank()) {
        if matches!(*group[0], Write::Claim(_)) {
            follow_up(batch).await?;
        }
        match *group[0] {
            Write::Submit(_) => {
                let batches: Vec<_> = group.iter().filter_map(|write| write.as_submit()).collect();
                let submitted = jobs::submit(batch, &batches).await?;
                results.extend(submitted.into_iter().map(WriteResult::Submitted));
            }
            Write::Started(_) => {
                let starts: Vec<_> = group
                    .iter()
                    .filter_map(|write| write.as_started())
                    .collect();
                let fenced = attempts::started(batch, &starts).await?;
                results.extend(fenced.into_iter().map(WriteResult::Fenced));
            }
            Write::Finish(_) => {
                let finishes: Vec<_> = group.iter().filter_map(|write| write.as_finish()).collect();
                let fenced = finish::finish(batch, &finishes).await?;
                results.extend(fenced.into_iter().map(WriteResult::Fenced));
            }
            Write::Claim(_) => {
                let claims: Vec<_> = group.iter().filter_map(|write| write.as_claim()).collect();
                let claimed = claim::claim(batch, &claims).await?;
                results.extend(claimed.into_iter().map(WriteResult::Claimed));
            }
            _ => {
                for write in group {
                    results.push(execute_one(batch, write).await?);
                    write_noticed_events(batch).await?;
                }
            }
        }
        write_noticed_events(batch).await?;
    }
    follow_up(batch).await?;
    for (write, result) in writes.iter().zip(&results) {
        let entries = audit_entries::of(write, result, batch.key);
        batch.entries.extend(entries);
    }
    Ok(results)
}

/// Moves the jobs that follow from what the writes have changed: those that waited for jobs which are
/// final now, and those whose exclusive key is free or taken now.
async fn follow_up(batch: &mut WriteBatch<'_>) -> sqlx::Result<()> {
    dependencies::release(batch).await?;
    exclusive::assign_turns(batch).await?;
    write_noticed_events(batch).await
}

async fn execute_one(batch: &mut WriteBatch<'_>, write: &Write) -> sqlx::Result<WriteResult> {
    Ok(match write {
        Write::BeginEpoch(boot_id, place, _) => {
            WriteResult::Epoch(nodes::begin_epoch(batch.conn, boot_id, place).await?)
        }
        Write::SetQueue(change) => WriteResult::QueueSet(queues::set(batch, change).await?),
        Write::DeleteQueue(name) => WriteResult::QueueDeleted(queues::delete(batch, name).await?),
        Write::SetSchedule(schedule, keeps_next) => {
            WriteResult::ScheduleSet(schedules::set(batch, schedule, *keeps_next).await?)
        }
        Write::DeleteSchedule(name) => {
            WriteResult::ScheduleDeleted(schedules::delete(batch, name).await?)
        }
        Write::Fire(request) => WriteResult::Fired(Box::new(firing::fire(batch, request).await?)),
        Write::SaveMcpSession { id, opening, token } => {
            mcp::save_session(batch.conn, id, opening, *token).await?;
            WriteResult::Done
        }
        Write::AddToken(new) => WriteResult::TokenAdded(tokens::add(batch.conn, new).await?),
        Write::ChangeToken(to) => WriteResult::TokenChanged(tokens::change(batch.conn, to).await?),
        Write::DeleteMcpSession(id) => {
            mcp::delete_session(batch.conn, id).await?;
            WriteResult::Done
        }
        Write::McpAnswered(job) => {
            mcp::set_answered(batch.conn, *job).await?;
            WriteResult::Done
        }
        Write::Paused(report) => WriteResult::Fenced(attempts::paused(batch, report).await?),
        Write::StopRefused(report) => {
            WriteResult::Fenced(attempts::stop_refused(batch, report).await?)
        }
        Write::RequestStop(job, request) => {
            WriteResult::StopRequested(Box::new(stop_requests::stop(batch, *job, request).await?))
        }
        Write::RequestPause(request) => {
            WriteResult::PauseRequested(Box::new(stop_requests::pause(batch, request).await?))
        }
        Write::Input(job, input) => {
            WriteResult::InputOutcome(Box::new(inputs::input(batch, *job, input).await?))
        }
        Write::Update(job, update, actor) => {
            WriteResult::Updated(Box::new(change::update(batch, *job, update, actor).await?))
        }
        Write::NoticeTried(tried) => {
            notices::tried(batch, tried).await?;
            WriteResult::Done
        }
        Write::RetryNotice { notice, at } => {
            WriteResult::NoticeRetried(Box::new(notices::retry(batch, notice, *at).await?))
        }
        Write::ForgetNotices => {
            notices::forget_old(batch).await?;
            WriteResult::Done
        }
        Write::Delete(job) => WriteResult::Deleted(Box::new(change::delete(batch, *job).await?)),
        Write::Retention(write) => WriteResult::Retention(retention::execute(batch, write).await?),
        Write::Audit(write) => audit::execute(batch, write).await?,
        Write::Void(report) => WriteResult::Fenced(attempts::void(batch, report).await?),
        Write::Due(now) => WriteResult::Due(due::due(batch, *now).await?),
        // What follows is done for every batch.
        Write::Release => WriteResult::Done,
        Write::SegmentRead(row) => WriteResult::Fenced(outputs::segment_read(batch, row).await?),
        Write::Submit(_) | Write::Started(_) | Write::Finish(_) | Write::Claim(_) => {
            return Err(super::columns::malformed(
                "this write is executed in groups",
            ));
        }
    })
}
