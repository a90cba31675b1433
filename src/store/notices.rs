//! The handle's methods for notices: what is due, what became of it, lists.

use super::{
    NoticeFilter, NoticeRef, NoticeRetried, NoticeTried, Store, StoreError, WaitingNotice,
    sqlite::notice_list,
    write::{Write, WriteResult},
};
use crate::job::{Micros, Notice};

impl Store {
    /// Up to `limit` waiting notices that are due in the range from `after` (exclusive) to `until`,
    /// the earliest first, without those with one of `numbers` or to one of `destinations`.
    pub async fn waiting_notices(
        &self,
        range: (Micros, Micros),
        numbers: &[i64],
        destinations: &[String],
        limit: u32,
    ) -> Result<Vec<WaitingNotice>, StoreError> {
        let readers = &self.inner.readers;
        Ok(notice_list::waiting(readers, range, numbers, destinations, limit).await?)
    }

    /// When the first waiting notice is due after `after`, those with one of `numbers` aside.
    pub async fn next_notice_due(
        &self,
        after: Micros,
        numbers: &[i64],
    ) -> Result<Option<Micros>, StoreError> {
        Ok(notice_list::next_due(&self.inner.readers, after, numbers).await?)
    }

    /// Returns when a notice has become due since the last call. There must be one caller at most.
    pub async fn notice_due(&self) {
        self.inner.notices.due().await;
    }

    /// Stores what became of an attempt to deliver a notice.
    pub async fn notice_tried(&self, tried: NoticeTried) -> Result<(), StoreError> {
        self.done(Write::NoticeTried(tried)).await
    }

    /// Makes a notice due at `at`, with all the attempts that a new one has.
    pub async fn retry_notice(
        &self,
        notice: NoticeRef,
        at: Micros,
    ) -> Result<NoticeRetried, StoreError> {
        self.write(Write::RetryNotice { notice, at }, |result| match result {
            WriteResult::NoticeRetried(retried) => Some(*retried),
            _ => None,
        })
        .await
    }

    /// Forgets the oldest notices that were delivered or given up, beyond a thousand of each.
    pub async fn forget_old_notices(&self) -> Result<(), StoreError> {
        self.done(Write::ForgetNotices).await
    }

    /// Up to `filter.limit` notices, the newest first.
    pub async fn notices(&self, filter: &NoticeFilter) -> Result<Vec<Notice>, StoreError> {
        Ok(notice_list::list(&self.inner.readers, filter).await?)
    }

    /// How many notices wait for their delivery.
    pub fn notices_waiting(&self) -> u64 {
        self.inner.notices.waiting()
    }

    /// How many notices were given up and are still kept.
    pub fn notices_given_up(&self) -> u64 {
        self.inner.notices.given_up()
    }
}
