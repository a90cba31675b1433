//! Takes a mutex also after a panic of the thread that held it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a mutex. For data that is whole after a panic, because every use of it is one operation or
/// may be left out: a poisoned mutex is taken as any other.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poisoned_mutex_is_taken() {
        let mutex = Mutex::new(7);
        std::thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _held = lock(&mutex);
                panic!("on purpose");
            });
            assert!(panics.join().is_err());
        });
        assert!(mutex.is_poisoned());
        assert_eq!(*lock(&mutex), 7);
    }
}
