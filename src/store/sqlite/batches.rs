//! Divides the writes that have arrived into transactions.
//!
//! `writer` commits them.

use tokio::sync::oneshot;

use crate::store::{
    types::StoreError,
    write::{AuditedWrite, WriteResult},
};

/// Where the result of a write goes.
pub(super) type WriteReply = oneshot::Sender<Result<WriteResult, StoreError>>;

/// The most rows in one transaction, but for a single write that has more by itself.
const ROWS_MAX: usize = 10_000;

/// Divides writes into transactions of up to `bytes_max` bytes of data: a large batch gets one of
/// its own, so that writes after it do not wait for several, and the log can be checkpointed between
/// two of them. Writes that yield to others come last, each in a transaction of its own.
pub(super) fn split_into_transactions(
    pending: Vec<(AuditedWrite, WriteReply)>,
    bytes_max: u64,
) -> Vec<Vec<(AuditedWrite, WriteReply)>> {
    let (yielding, pending): (Vec<_>, Vec<_>) =
        pending.into_iter().partition(|(write, _)| write.yields());
    let mut transactions: Vec<Vec<_>> = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    for write in pending {
        let (more_rows, more_bytes) = (write.0.rows(), write.0.data_bytes());
        rows += more_rows;
        bytes += more_bytes;
        match transactions.last_mut() {
            Some(transaction) if rows <= ROWS_MAX && bytes <= bytes_max => transaction.push(write),
            _ => {
                (rows, bytes) = (more_rows, more_bytes);
                transactions.push(vec![write]);
            }
        }
    }
    transactions.extend(yielding.into_iter().map(|write| vec![write]));
    transactions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        job::{Command, JobId, JobSpec, Micros, RetentionScope},
        store::{RetentionWrite, Submission, write::Write},
    };

    fn submit(stdin_bytes: usize, jobs: usize) -> (AuditedWrite, WriteReply) {
        let mut job = JobSpec::new(Command::Shell(":".into()));
        job.stdin = Some("x".repeat(stdin_bytes));
        let one = Submission {
            retry_of: None,
            id: JobId(uuid::Uuid::now_v7()),
            job,
            fingerprint: [0; 32],
            actor: "test".into(),
            token: None,
            policy: None,
            at: Micros(0),
        };
        let write = Write::Submit(vec![one; jobs].into());
        (write.into(), oneshot::channel().0)
    }

    fn lengths(pending: Vec<(AuditedWrite, WriteReply)>) -> Vec<usize> {
        let transactions = split_into_transactions(pending, 4 << 20);
        transactions.iter().map(Vec::len).collect()
    }

    #[test]
    fn a_transaction_has_a_bound_of_rows_and_of_bytes() {
        let small = || submit(10, 1);
        assert_eq!(lengths((0..256).map(|_| small()).collect()), [256]);
        let large = || submit(1_000_000, 1);
        assert_eq!(lengths((0..10).map(|_| large()).collect()), [4, 4, 2]);
        let batches = vec![small(), submit(10, 10_000), small(), small()];
        assert_eq!(lengths(batches), [1, 1, 2]);
        // Its jobs are stored together, whatever their size.
        assert_eq!(lengths(vec![submit(1_000_000, 8), small()]), [1, 1]);
    }

    #[test]
    fn removals_yield_to_everything_else() {
        let removal = || {
            let write = RetentionWrite::Remove(RetentionScope::Jobs, vec![1]);
            (Write::Retention(write).into(), oneshot::channel().0)
        };
        let pending = vec![removal(), submit(10, 1), removal(), submit(10, 1)];
        let transactions = split_into_transactions(pending, 4 << 20);
        let yields: Vec<Vec<bool>> = transactions
            .iter()
            .map(|writes| writes.iter().map(|(write, _)| write.yields()).collect())
            .collect();
        assert_eq!(yields, [vec![false, false], vec![true], vec![true]]);
    }
}
