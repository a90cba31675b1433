//! The parts of a `job.submit_many` that is longer than a message, as text, until the last one comes.
//!
//! They belong to the session: if it ends, nothing of them is stored.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use serde_json::{Map, Value};

use crate::{
    config::Settings,
    protocol::{
        ErrorKind,
        jsonrpc::{envelope::to_json, error::Refusal},
        limits::{
            buffered::BufferKind,
            byte_semaphore::{BytePermit, ByteSemaphore},
            memory_budget::SessionUsage,
        },
        methods::submit_many::check_count,
    },
    sys::lock,
};

/// The parts that a session holds.
#[derive(Debug)]
pub struct HeldParts {
    parts: Mutex<Parts>,
    bytes: ByteSemaphore,
    bytes_max: usize,
    jobs_max: u64,
}

/// Parts in the order in which they came.
#[derive(Debug, Default)]
pub struct Parts {
    texts: VecDeque<(String, BytePermit)>,
    /// How many jobs they have.
    jobs: usize,
}

impl HeldParts {
    /// No parts; what will be held counts in `usage`.
    pub fn new(settings: &Settings, usage: Arc<SessionUsage>) -> Self {
        let max = settings.parts_bytes();
        Self {
            parts: Mutex::default(),
            bytes: ByteSemaphore::new(max, usage, BufferKind::Parts),
            bytes_max: usize::try_from(max).unwrap_or(usize::MAX),
            jobs_max: settings.submit_many_max,
        }
    }

    /// Takes the parts before `part`, the next one; the first one is number 0, and forgets others.
    ///
    /// # Errors
    ///
    /// So many parts are not held, and those that are are forgotten.
    pub fn take(&self, part: u64) -> Result<Parts, Refusal> {
        let parts = std::mem::take(&mut *lock(&self.parts));
        let held = parts.texts.len() as u64;
        match part {
            0 => Ok(Parts::default()),
            _ if part == held => Ok(parts),
            _ => {
                let message = format!(
                    "part: this session has {held} parts, so part {part} is not the next one; begin again \
                     with part 0 (nothing was stored)"
                );
                Err(Refusal::new(ErrorKind::Conflict, message).with("key", "part"))
            }
        }
    }

    /// Holds `parts` and the next one. Returns how many jobs they have.
    ///
    /// # Errors
    ///
    /// The part has no list of jobs, or there are too many jobs or bytes; nothing is held then.
    pub fn hold(&self, mut parts: Parts, part: &Map<String, Value>) -> Result<usize, Refusal> {
        let jobs = part.get("jobs").and_then(Value::as_array);
        let jobs = jobs.ok_or_else(|| Refusal::params("jobs", "must be a list of jobs"))?;
        parts.jobs += jobs.len();
        check_count(parts.jobs, self.jobs_max)?;
        let text = to_json(part);
        let held: usize = parts.texts.iter().map(|(text, _)| text.len()).sum();
        if held + text.len() > self.bytes_max {
            let message = format!(
                "the parts before the last one have more than {} bytes; submit fewer jobs at once",
                self.bytes_max
            );
            return Err(Refusal::limit("submit_many_parts_bytes_max", message));
        }
        let permit = self.bytes.add(text.len());
        permit.progressed();
        parts.texts.push_back((text, permit));
        let jobs = parts.jobs;
        *lock(&self.parts) = parts;
        Ok(jobs)
    }
}

impl Iterator for Parts {
    type Item = Map<String, Value>;

    fn next(&mut self) -> Option<Self::Item> {
        let (text, _permit) = self.texts.pop_front()?;
        // It was written by `hold`.
        serde_json::from_str(&text).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::{config, protocol::limits::memory_budget::MemoryBudget};

    fn held(usage: &Arc<SessionUsage>) -> HeldParts {
        let loaded = config::load_from(None, BTreeMap::new(), &BTreeMap::new());
        let settings = Settings {
            held_bytes_max: 4 << 20,
            submit_many_max: 5,
            ..loaded.expect("the defaults").settings
        };
        HeldParts::new(&settings, usage.clone())
    }

    fn part(jobs: usize, bytes: usize) -> Map<String, Value> {
        let part = json!({"jobs": vec![json!({"shell": "x".repeat(bytes)}); jobs]});
        part.as_object().expect("an object").clone()
    }

    #[test]
    fn parts_come_one_after_the_other() {
        let usage = MemoryBudget::new(64 << 20).session_usage();
        let held = held(&usage);
        let parts = held.take(0).expect("the first");
        assert_eq!(held.hold(parts, &part(2, 10)), Ok(2));
        let parts = held.take(1).expect("the second");
        assert_eq!(held.hold(parts, &part(3, 10)), Ok(5));
        let all: Vec<_> = held.take(2).expect("the third").collect();
        assert_eq!(all, [part(2, 10), part(3, 10)]);
        // They are taken once.
        let refusal = held.take(2).expect_err("nothing is held");
        assert_eq!(refusal.kind, ErrorKind::Conflict, "{refusal:?}");
    }

    #[test]
    fn a_first_part_and_a_wrong_one_forget_the_others() {
        let usage = MemoryBudget::new(64 << 20).session_usage();
        for wrong in [0, 2] {
            let held = held(&usage);
            let parts = held.take(0).expect("the first");
            assert_eq!(held.hold(parts, &part(1, 10)), Ok(1));
            assert_eq!(held.take(wrong).is_ok(), wrong == 0);
            assert!(held.take(1).is_err());
        }
    }

    #[test]
    fn their_jobs_and_bytes_are_bounded_and_count_for_the_session() {
        let budget = MemoryBudget::new(64 << 20);
        let usage = budget.session_usage();
        let held = held(&usage);
        let limit = |refused: Result<usize, Refusal>| refused.map_err(|refusal| refusal.kind);
        let too_many = held.hold(Parts::default(), &part(6, 10));
        assert_eq!(limit(too_many), Err(ErrorKind::LimitExceeded));
        assert_eq!(held.hold(Parts::default(), &part(1, 1 << 20)), Ok(1));
        assert!(usage.bytes() > 1 << 20);
        let parts = held.take(1).expect("the second");
        let too_long = held.hold(parts, &part(1, 1 << 20));
        assert_eq!(limit(too_long), Err(ErrorKind::LimitExceeded));
        assert_eq!(usage.bytes(), 0);
        let no_list = held.hold(Parts::default(), &Map::new());
        assert_eq!(limit(no_list), Err(ErrorKind::InvalidParams));
    }
}
