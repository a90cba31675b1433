//! The writer's counts: jobs by state, and by queue together with the order of the queues. They are
//! read from the database once, at its opening, and follow every change that a transaction makes; a
//! transaction that fails takes them back.
//!
//! A change by another program's connection, such as a person's `sqlite3`, is noticed at the next
//! transaction, and everything is counted anew.

use std::{collections::HashMap, time::Duration};

use sqlx::SqliteConnection;

use super::{
    events,
    fair_queues::{FairQueues, OrderClock, QueueCounts, QueueName, QueueShare, SharingSettings},
    published_counts::{PublishedCounts, StateCounts},
};
use crate::job::{JobState, Micros, Queue};

/// The counts as the writer's next statement would find them in the database.
#[derive(Debug, Default)]
pub(in crate::store) struct Tally {
    states: StateCounts,
    queues: FairQueues,
    /// What the open transaction has changed, as it was before.
    before: Option<CountsBefore>,
    /// SQLite's number of the state that was counted: another one than the connection's means that
    /// another connection has committed something. `None`: the counts are wrong.
    data_version: Option<i64>,
    /// Whether all queues have to be published, not only those that a transaction changed.
    publish_all: bool,
}

#[derive(Debug)]
struct CountsBefore {
    states: StateCounts,
    clock: OrderClock,
    /// `None`: there was no such queue.
    queues: HashMap<QueueName, Option<QueueShare>>,
    /// The queues of its starts that count for a bound of starts in a minute.
    bounded_starts: Vec<QueueName>,
}

impl Tally {
    /// Counts what is in the database.
    pub async fn load(
        conn: &mut SqliteConnection,
        published: &PublishedCounts,
    ) -> sqlx::Result<Self> {
        let mut tally = Self::default();
        sqlx::query("BEGIN").execute(&mut *conn).await?;
        tally.count_anew(conn).await?;
        sqlx::query("COMMIT").execute(conn).await?;
        tally.publish(published, []);
        Ok(tally)
    }

    /// Counts what is in the database, and the starts of the last minute: see [`Self::restore_starts`].
    pub async fn load_at(
        conn: &mut SqliteConnection,
        published: &PublishedCounts,
        wall: Micros,
        now: Duration,
    ) -> sqlx::Result<Self> {
        let mut tally = Self::load(conn, published).await?;
        tally.restore_starts(conn, wall, now).await?;
        Ok(tally)
    }

    /// Counts the starts of the last minute, as far as they count for a bound: those of the database,
    /// dated by the wall clock, which shows `wall` now, at the moment `now` since boot.
    async fn restore_starts(
        &mut self,
        conn: &mut SqliteConnection,
        wall: Micros,
        now: Duration,
    ) -> sqlx::Result<()> {
        let window = i64::try_from(Queue::RATE_WINDOW.as_micros()).unwrap_or(i64::MAX);
        let since = Micros(wall.0.saturating_sub(window)).to_rfc3339();
        // The expression of the index `attempts_claimed_text`.
        let rows = sqlx::query!(
            r#"SELECT j.queue AS "queue!: String", a.claimed_at AS "claimed_at!: i64"
               FROM attempts AS a JOIN jobs AS j ON j.number = a.job
               JOIN queues AS q ON q.name = j.queue AND q.starts_per_minute IS NOT NULL
               WHERE date(a.claimed_at / 1000000, 'unixepoch') || 'T'
                   || time(a.claimed_at / 1000000, 'unixepoch')
                   || printf('.%06dZ', a.claimed_at % 1000000) > ?1
               ORDER BY a.claimed_at"#,
            since
        )
        .fetch_all(conn)
        .await?;
        self.queues.advance(now);
        for row in rows {
            // One that the clock dates into the future was a moment ago.
            let age_us = u64::try_from(wall.0 - row.claimed_at).unwrap_or(0);
            let moment = now.saturating_sub(Duration::from_micros(age_us));
            self.queues.restore_start(&row.queue, moment);
        }
        Ok(())
    }

    /// Begins with a transaction that is open on `conn` and has written nothing yet, at the moment
    /// `now` since boot.
    pub async fn begin(&mut self, conn: &mut SqliteConnection, now: Duration) -> sqlx::Result<()> {
        if self.data_version != Some(data_version(conn).await?) {
            self.count_anew(conn).await?;
        }
        self.queues.advance(now);
        self.before = Some(CountsBefore {
            states: self.states,
            clock: self.queues.clock(),
            queues: HashMap::new(),
            bounded_starts: Vec::new(),
        });
        Ok(())
    }

    /// Keeps and publishes what the transaction has changed.
    pub fn commit(&mut self, published: &PublishedCounts) {
        let before = self.before.take();
        let changed = before.map(|before| before.queues).unwrap_or_default();
        self.publish(published, changed.into_keys());
    }

    /// Takes back what the transaction has changed.
    pub fn roll_back(&mut self) {
        let Some(before) = self.before.take() else {
            return;
        };
        self.states = before.states;
        self.queues.restore_clock(before.clock);
        for name in before.bounded_starts {
            self.queues.take_start_back(&name);
        }
        for (name, queue) in before.queues {
            self.queues.restore(&name, queue);
        }
    }

    /// The jobs of a queue that are not final.
    pub fn counts(&self, queue: &str) -> QueueCounts {
        self.queues
            .get(queue)
            .map_or_else(QueueCounts::default, |queue| queue.counts)
    }

    /// A job of this queue has left one counted for another; without the one it is new, without
    /// the other it is gone.
    pub fn moved(&mut self, queue: &str, from: Option<CountedAs>, to: Option<CountedAs>) {
        if let Some(to) = to {
            self.states[to.state as usize] += 1;
        }
        let mut fits = from.is_none_or(|from| take_one(&mut self.states[from.state as usize]));
        let (from, to) = (from.filter(is_live), to.filter(is_live));
        if from.is_some() || to.is_some() {
            self.remember(queue);
            let counted = self.queues.count(queue, |counts| {
                if let Some(to) = to {
                    *place(counts, to) += 1;
                }
                from.is_none_or(|from| take_one(place(counts, from)))
            });
            fits &= counted == Some(true);
        }
        if !fits {
            self.distrust();
        }
    }

    /// Adds a queue, or changes its settings.
    pub fn set_queue(&mut self, name: &str, settings: SharingSettings) {
        self.remember(name);
        let counts = self.counts(name);
        self.queues.set(name, settings, counts);
    }

    /// Takes a queue away that has no live jobs.
    pub fn remove_queue(&mut self, name: &str) {
        self.remember(name);
        self.queues.remove(name);
    }

    /// How many jobs wait for other jobs.
    pub fn blocked(&self) -> u64 {
        self.states[JobState::Blocked as usize]
    }

    /// How many queued jobs have a free slot.
    pub fn ready(&self) -> u64 {
        self.queues.ready()
    }

    /// How long it takes until a queue whose starts in a minute are used up, and which has jobs and
    /// slots, may start one.
    pub fn next_start_in(&self) -> Option<Duration> {
        self.queues.next_start_in()
    }

    /// Moves up to `jobs` ready jobs from queued to running, one after the other, and names the queue
    /// of each. The caller must do the same in the database with the first jobs of these queues.
    pub fn start(&mut self, jobs: usize) -> Vec<QueueName> {
        let mut started = Vec::new();
        while started.len() < jobs
            && let Some(name) = self.queues.next().cloned()
        {
            self.remember(&name);
            if let Some(before) = &mut self.before
                && self.queues.is_bounded(&name)
            {
                before.bounded_starts.push(name.clone());
            }
            self.queues.start_next();
            self.states[JobState::Queued as usize] -= 1;
            self.states[JobState::Running as usize] += 1;
            started.push(name);
        }
        started
    }

    /// Takes a start of [`Self::start`] back: no job of this queue may run now.
    pub fn unstart(&mut self, queue: &str) {
        let (running, queued) = (JobState::Running.into(), JobState::Queued.into());
        self.moved(queue, Some(running), Some(queued));
    }

    /// The counts do not fit the database, which only a defect of this program can cause. The next
    /// transaction begins with counting.
    pub fn distrust(&mut self) {
        tracing::error!("the counts of jobs do not fit the database; they are taken anew (a bug)");
        self.data_version = None;
    }

    fn remember(&mut self, queue: &str) {
        let Some(before) = &mut self.before else {
            return;
        };
        if !before.queues.contains_key(queue) {
            let name = self.queues.shared_name(queue);
            before.queues.insert(name, self.queues.get(queue).copied());
        }
    }

    fn publish(
        &mut self,
        published: &PublishedCounts,
        changed: impl IntoIterator<Item = QueueName>,
    ) {
        let mut now = published.lock();
        now.states = self.states;
        if std::mem::take(&mut self.publish_all) {
            let all = self.queues.iter();
            now.queues = all
                .map(|(name, queue)| (name.clone(), queue.counts))
                .collect();
            return;
        }
        for name in changed {
            match self.queues.get(&name) {
                Some(queue) => now.queues.insert(name, queue.counts),
                None => now.queues.remove(&name),
            };
        }
    }

    async fn count_anew(&mut self, conn: &mut SqliteConnection) -> sqlx::Result<()> {
        let data_version = data_version(conn).await?;
        let states = states(conn).await?;
        let mut queues = queues(conn).await?;
        queues.continue_from(&self.queues);
        self.states = states;
        self.queues = queues;
        self.data_version = Some(data_version);
        self.publish_all = true;
        Ok(())
    }
}

/// How a job counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct CountedAs {
    pub state: JobState,
    /// Whether it would be `queued` behind another job with its exclusive key. Without meaning in other
    /// states.
    pub waits_for_key: bool,
}

impl From<JobState> for CountedAs {
    /// That of a job without an exclusive key.
    fn from(state: JobState) -> Self {
        Self {
            state,
            waits_for_key: false,
        }
    }
}

/// Whether jobs like this count for their queue.
fn is_live(counted: &CountedAs) -> bool {
    !counted.state.is_final()
}

fn place(counts: &mut QueueCounts, counted: CountedAs) -> &mut u64 {
    match counted.state {
        JobState::Queued if counted.waits_for_key => &mut counts.waiting_for_key,
        JobState::Queued => &mut counts.queued,
        JobState::Running | JobState::Paused => &mut counts.active,
        _ => &mut counts.held,
    }
}

/// False where there is none.
fn take_one(count: &mut u64) -> bool {
    let taken = count.checked_sub(1);
    *count = taken.unwrap_or(0);
    taken.is_some()
}

/// Within a transaction: changes whenever another connection has committed something.
async fn data_version(conn: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("PRAGMA data_version")
        .fetch_one(conn)
        .await
}

/// Reads an index entry per job: the only statement that does.
async fn states(conn: &mut SqliteConnection) -> sqlx::Result<StateCounts> {
    let rows = sqlx::query!(
        r#"SELECT state AS "state!: String", count(*) AS "jobs!: i64"
           FROM jobs INDEXED BY jobs_state GROUP BY state"#
    )
    .fetch_all(conn)
    .await?;
    let mut counts = StateCounts::default();
    for row in rows {
        counts[events::state(&row.state)? as usize] = row.jobs as u64;
    }
    Ok(counts)
}

async fn queues(conn: &mut SqliteConnection) -> sqlx::Result<FairQueues> {
    let mut counts: HashMap<String, QueueCounts> = HashMap::new();
    // Without a word SQLite takes a wider index, and reads each job's row.
    let rows = sqlx::query!(
        r#"SELECT queue AS "queue!: String", 'queued' AS "state!: String",
               0 AS "waits_for_key!: bool", count(*) AS "jobs!: i64"
           FROM jobs INDEXED BY jobs_queued WHERE state = 'queued' AND waits_for_key = 0
           GROUP BY queue
           UNION ALL SELECT queue, 'queued', 1, count(*)
           FROM jobs INDEXED BY jobs_waiting_for_key
           WHERE state = 'queued' AND waits_for_key = 1 GROUP BY queue
           UNION ALL SELECT queue, 'running', 0, count(*)
           FROM jobs INDEXED BY jobs_active WHERE state IN ('running', 'paused') GROUP BY queue
           UNION ALL SELECT queue, 'scheduled', 0, count(*)
           FROM jobs WHERE state IN ('scheduled', 'blocked') GROUP BY queue"#
    )
    .fetch_all(&mut *conn)
    .await?;
    for row in rows {
        let counts = counts.entry(row.queue).or_default();
        let counted = CountedAs {
            state: events::state(&row.state)?,
            waits_for_key: row.waits_for_key,
        };
        *place(counts, counted) = row.jobs as u64;
    }
    let rows = sqlx::query!(
        r#"SELECT name AS "name!: String", concurrency AS "concurrency!: u32",
               paused AS "paused!: bool", weight AS "weight!: u32",
               starts_per_minute AS "starts_per_minute: u32" FROM queues"#
    )
    .fetch_all(conn)
    .await?;
    let mut queues = FairQueues::default();
    for row in rows {
        let settings = SharingSettings {
            concurrency: row.concurrency,
            paused: row.paused,
            weight: row.weight,
            starts_per_minute: row.starts_per_minute,
        };
        let counts = counts.remove(&row.name).unwrap_or_default();
        queues.set(&row.name, settings, counts);
    }
    Ok(queues)
}

#[cfg(test)]
mod tests;
