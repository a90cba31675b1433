//! Repeats, without a limit, what must be done and whose next chance is not announced: a write
//! after a full disk, a read after a shortage.
//!
//! Loops with a bound, a deadline or a result for each try do not belong here.

use std::time::Duration;

/// The pause between the end of a try and the next one.
const PAUSE: Duration = Duration::from_secs(1);

/// Calls `attempt` until it returns something, with one second between two calls. A failed attempt
/// logs why and returns `None`; one that must not be repeated returns something.
pub async fn until_some<T, F>(mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    loop {
        if let Some(done) = attempt().await {
            return done;
        }
        #[expect(clippy::disallowed_methods, reason = "a pause before another try")]
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_every_second_until_there_is_something() {
        let began = tokio::time::Instant::now();
        let mut tries = 0;
        let done = until_some(|| {
            tries += 1;
            let done = (tries == 3).then_some(tries);
            async move { done }
        });
        assert_eq!(done.await, 3);
        assert_eq!(began.elapsed(), 2 * PAUSE);
    }
}
