//! Queues, and how their defaults complete a NewJob.
//!
//! The defaults are also kept in memory: every submit reads them, and only this server changes
//! them.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::{Actor, Error, Executor};
use crate::{
    access::Scope,
    job::{JobSpec, NewJobRefusal, Queue, QueueChange},
    store::{QueueDeleted, QueueSet, Store, StoreError},
};

/// The values that queues give to jobs that do not set them.
#[derive(Debug)]
pub(super) struct Defaults {
    by_queue: RwLock<HashMap<String, Arc<Map<String, Value>>>>,
    /// Held from a change's commit until it is in memory, so that the last one committed stays.
    changing: Mutex<()>,
}

impl Defaults {
    /// Reads them from the database.
    pub(super) async fn load(store: &Store) -> Result<Self, StoreError> {
        let queues = store.queues().await?.into_iter();
        let by_queue = queues
            .filter(|queue| !queue.defaults.is_empty())
            .map(|queue| (queue.name, Arc::new(queue.defaults)));
        Ok(Self {
            by_queue: RwLock::new(by_queue.collect()),
            changing: Mutex::new(()),
        })
    }

    fn of(&self, queue: &str) -> Option<Arc<Map<String, Value>>> {
        let by_queue = self.by_queue.read().unwrap_or_else(PoisonError::into_inner);
        by_queue.get(queue).cloned()
    }

    fn set(&self, queue: &str, defaults: &Map<String, Value>) {
        let mut by_queue = self
            .by_queue
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if defaults.is_empty() {
            by_queue.remove(queue);
        } else {
            by_queue.insert(queue.to_owned(), Arc::new(defaults.clone()));
        }
    }
}

impl Executor {
    /// Reads a NewJob, with its queue's defaults for what it does not set. The key `tail` is
    /// ignored.
    ///
    /// # Errors
    ///
    /// A key or a value is wrong, or the job asks for retries that can never take place.
    pub fn read_new_job(&self, object: &Map<String, Value>) -> Result<JobSpec, NewJobRefusal> {
        let job = self.read_filled_in(object)?;
        if object.get("retry").is_some_and(|retry| !retry.is_null()) {
            job.check_retry()?;
        }
        Ok(job)
    }

    /// The same without a check of its retries.
    pub(super) fn read_filled_in(
        &self,
        object: &Map<String, Value>,
    ) -> Result<JobSpec, NewJobRefusal> {
        let queue = object.get("queue").and_then(Value::as_str);
        match self.inner.defaults.of(queue.unwrap_or(JobSpec::QUEUE)) {
            None => JobSpec::read(object.clone()),
            Some(defaults) => JobSpec::read(Queue::fill_in(&defaults, object)),
        }
    }

    /// All queues, by name.
    pub async fn queues(&self) -> Result<Vec<Queue>, Error> {
        Ok(self.inner.store.queues().await?)
    }

    /// Creates a queue or changes it. Jobs that may start because of the change are started.
    ///
    /// # Errors
    ///
    /// Also if the defaults would show the secrets of jobs to a client that may not read them.
    pub async fn set_queue(&self, change: QueueChange, actor: &Actor) -> Result<Queue, Error> {
        let expect = change.defaults.iter().flat_map(Queue::default_expectations);
        let checked = self.check_expectations(&expect.collect::<Vec<_>>()).await;
        checked.map_err(|refusal| refusal.within("defaults"))?;
        let _alone = self.inner.defaults.changing.lock().await;
        self.check_default_redaction(&change, actor)?;
        match self.ledger().set_queue(change).await? {
            QueueSet::Done(queue) => {
                self.inner.defaults.set(&queue.name, &queue.defaults);
                self.inner.wakeup.wake();
                Ok(queue)
            }
            QueueSet::TooMany => {
                let max = Queue::COUNT_MAX;
                let message =
                    format!("there are {max} queues, and no more will do; delete one first");
                let limit = "queues_max";
                Err(Error::Limit {
                    limit: limit.into(),
                    message,
                })
            }
        }
    }

    /// Unmasked output by default is for a client that may read secrets: it shows those of every job that is
    /// submitted to the queue. Defaults that have it already may be sent again.
    fn check_default_redaction(&self, change: &QueueChange, actor: &Actor) -> Result<(), Error> {
        let before = self.inner.defaults.of(&change.name);
        let was_unmasked = before.is_some_and(|defaults| !Queue::redacts(&defaults));
        match &change.defaults {
            Some(defaults) if !Queue::redacts(defaults) && !was_unmasked => {
                let allowed = actor.principal().require(&[Scope::ReadSecrets]);
                Ok(allowed?)
            }
            _ => Ok(()),
        }
    }

    /// Deletes a queue whose jobs are all final.
    pub async fn delete_queue(&self, name: &str) -> Result<(), Error> {
        if Queue::BUILT_IN.contains(&name) {
            return Err(Error::Conflict(format!(
                "the queue {name:?} is built in and stays; it can be paused"
            )));
        }
        let _alone = self.inner.defaults.changing.lock().await;
        match self.ledger().delete_queue(name.to_owned()).await? {
            QueueDeleted::Done => {
                self.inner.defaults.set(name, &Map::new());
                Ok(())
            }
            QueueDeleted::HasJobs(count) => Err(Error::Conflict(format!(
                "the queue {name:?} has {count} jobs that are not final; cancel them, or move them \
                 to another queue"
            ))),
            QueueDeleted::NotFound => Err(Error::no_such_queue(name)),
        }
    }
}
