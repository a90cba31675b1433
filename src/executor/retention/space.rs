//! Returns what removals have freed: pages of the database to the file system, in small steps, and
//! the write-ahead log, which may still hold what was deleted.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::removal::pause_after;
use crate::{
    executor::{Error, Executor},
    store::FreePages,
};

/// How long a step should take, the sync of its commit included.
const STEP_TIME: Duration = Duration::from_millis(8);
/// The pages of a step, fewest and most. The number follows how long the step before has taken.
const STEP_PAGES: std::ops::RangeInclusive<u32> = 32..=256;
/// So many free pages stay for what is stored next, or a part of the file, as a divisor.
const KEPT_PAGES: u64 = 64;
const KEPT_DIVISOR: u64 = 64;
/// How often the log is tried to be emptied while reads prevent it.
const EMPTY_TRIES: u32 = 20;
/// The pause between two tries.
const EMPTY_PAUSE: Duration = Duration::from_millis(100);

/// How many free pages are more than should stay.
fn spare(pages: FreePages) -> u64 {
    match pages.can_shrink {
        true => pages
            .free
            .saturating_sub(KEPT_PAGES.max(pages.all / KEPT_DIVISOR)),
        false => 0,
    }
}

/// The pages of the next step, after one with so many has taken so long.
fn next_step(pages: u32, took: Duration) -> u32 {
    let wanted = match took > STEP_TIME {
        true => pages / 2,
        false => pages.saturating_mul(2),
    };
    wanted.clamp(*STEP_PAGES.start(), *STEP_PAGES.end())
}

impl Executor {
    /// Returns free pages of the database until few are left, then empties the log.
    pub(super) async fn return_space(&self) -> Result<(), Error> {
        let store = &self.inner.store;
        let mut spare_pages = spare(store.free_pages().await?);
        let mut pages = *STEP_PAGES.start();
        while spare_pages > 0 {
            let began = Instant::now();
            let step = pages.min(u32::try_from(spare_pages).unwrap_or(u32::MAX));
            let left = spare(store.reclaim(step).await?);
            self.inner
                .retention
                .has_deleted
                .store(true, Ordering::Relaxed);
            // A file without progress is one that another program keeps from it.
            if left >= spare_pages {
                break;
            }
            spare_pages = left;
            pages = next_step(step, began.elapsed());
            pause_after(began).await;
        }
        self.erase_log().await
    }

    /// Empties the write-ahead log if something was deleted. If reads prevent it for long, the next
    /// round tries again.
    pub(super) async fn erase_log(&self) -> Result<(), Error> {
        let has_deleted = &self.inner.retention.has_deleted;
        if !has_deleted.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        for _ in 0..EMPTY_TRIES {
            if self.inner.store.empty_log().await? {
                return Ok(());
            }
            sleep_until(Instant::now() + EMPTY_PAUSE).await;
        }
        has_deleted.store(true, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(free: u64, all: u64, can_shrink: bool) -> FreePages {
        FreePages {
            free,
            all,
            page_bytes: 4096,
            can_shrink,
        }
    }

    #[test]
    fn a_few_free_pages_stay() {
        assert_eq!(spare(pages(64, 100, true)), 0);
        assert_eq!(spare(pages(70, 100, true)), 6);
        assert_eq!(spare(pages(70_000, 6_400_000, true)), 0);
        assert_eq!(spare(pages(300_000, 6_400_000, true)), 200_000);
        assert_eq!(spare(pages(300_000, 6_400_000, false)), 0);
    }

    #[test]
    fn a_step_follows_the_time_of_the_one_before() {
        let (short, long) = (Duration::from_millis(1), Duration::from_millis(20));
        assert_eq!([next_step(32, short), next_step(200, short)], [64, 256]);
        assert_eq!([next_step(128, long), next_step(40, long)], [64, 32]);
    }
}
