//! Reading and making long messages beside the sessions: a megabyte of JSON keeps a processor busy
//! for longer than a live tail should have to wait.
//!
//! What the messages say is not known here.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::mpsc,
    thread,
};

use tokio::sync::oneshot;

/// From this length on a message counts as long, bytes: about a quarter of a millisecond.
const LONG_BYTES: usize = 16 << 10;

type ParserWork = Box<dyn FnOnce() + Send>;

/// One thread, for the long messages of all sessions, one after the other. It ends with this.
///
/// It has the priority of all others: while it held the allocator's lock at a lower one, everybody
/// waited for it.
#[derive(Debug)]
pub struct ParserThread {
    work: mpsc::Sender<ParserWork>,
}

impl ParserThread {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The kernel allows no further thread.
    pub fn start() -> std::io::Result<Self> {
        let (work, taken) = mpsc::channel::<ParserWork>();
        thread::Builder::new()
            .name("long-messages".to_owned())
            .spawn(move || taken.iter().for_each(|work| work()))?;
        Ok(Self { work })
    }

    /// Does `work` on a message of so many bytes: here where it is short, otherwise on the thread,
    /// behind what it has to do already.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if bytes < LONG_BYTES {
            return work();
        }
        let (reply, done) = oneshot::channel();
        let work = Box::new(move || {
            // Nobody may wait for it any more.
            let _ = reply.send(catch_unwind(AssertUnwindSafe(work)));
        });
        // It takes work as long as we are here.
        let _ = self.work.send(work);
        match done.await {
            Ok(Ok(done)) => done,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread::current;

    use super::*;

    #[tokio::test]
    async fn what_is_long_is_done_elsewhere_and_a_panic_ends_only_its_own() {
        let aside = ParserThread::start().expect("a thread");
        let here = current().id();
        assert_eq!(aside.run(10, || current().id()).await, here);
        let fails = async { aside.run(1 << 20, || panic!("as planned")).await };
        let failed: Result<(), _> =
            futures_util::FutureExt::catch_unwind(AssertUnwindSafe(fails)).await;
        assert!(failed.is_err());
        assert_ne!(aside.run(1 << 20, || current().id()).await, here);
    }
}
