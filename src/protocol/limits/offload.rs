//! Parses and writes long messages on a thread of their own: a megabyte of JSON keeps a processor busy for
//! longer than a live tail should have to wait.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::mpsc,
    thread,
};

use tokio::sync::oneshot;

/// From this length on a message counts as long, bytes: it takes about a quarter of a millisecond.
const LONG_BYTES: usize = 16 << 10;

type ParserWork = Box<dyn FnOnce() + Send>;

/// One thread for the long messages of all sessions, one after the other. It ends when this is dropped.
///
/// It has the same priority as all other threads: at a lower one it held the allocator's lock while every
/// other thread waited for it.
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
        let (work, queue) = mpsc::channel::<ParserWork>();
        thread::Builder::new()
            .name("long-messages".to_owned())
            .spawn(move || queue.iter().for_each(|work| work()))?;
        Ok(Self { work })
    }

    /// Does `work` on a message of `bytes`: at once if it is short, else on the thread, after the work that
    /// waits there already.
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
            // The caller may have stopped waiting.
            let _ = reply.send(catch_unwind(AssertUnwindSafe(work)));
        });
        // The thread accepts work as long as `self` exists.
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
