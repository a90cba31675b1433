//! What all threads of a run share: the door of the server of the moment, the jobs that were
//! acknowledged, the history, and whether the run is closing.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    harness::{Client, Server},
    history::{History, What},
    plan::{Kind, Plan},
    random::Random,
    receiver::Receiver,
    settings::Settings,
    waiting::{After, Target, Wanted},
};

/// Between two tries to connect.
const KNOCK_EVERY: Duration = Duration::from_millis(5);

/// A job that the server has acknowledged.
#[derive(Debug)]
pub struct Known {
    pub plan: Plan,
    pub id: String,
    pub number: u64,
    /// It was seen to be final.
    pub done: AtomicBool,
    /// Its deletion was asked for.
    pub deleting: AtomicBool,
    /// The highest offset that was ever shown of it.
    pub shown_to: AtomicU64,
}

/// Where the server of the moment listens.
#[derive(Debug, Clone, Default)]
struct Place {
    listen: String,
    token: String,
    socket: PathBuf,
    launch: u32,
}

/// The world of one run.
#[derive(Debug)]
pub struct World {
    pub settings: Settings,
    pub history: History,
    pub ledger: PathBuf,
    /// Whom jobs notify.
    pub receiver: Receiver,
    /// The environment of every job.
    pub env: Value,
    place: Mutex<Place>,
    /// The newest launch of which nobody has been told anything yet.
    unheard: Mutex<Option<(u32, Instant)>>,
    known: Mutex<Vec<Arc<Known>>>,
    live: Mutex<Vec<Arc<Known>>>,
    talks: Mutex<VecDeque<Arc<Known>>>,
    doomed: Mutex<VecDeque<Arc<Known>>>,
    next_key: AtomicU32,
    closing: AtomicBool,
    over: AtomicBool,
}

impl World {
    /// A world around a server that is ready.
    pub fn new(settings: Settings, server: &Server) -> Self {
        let world = Self {
            receiver: Receiver::start(settings.seed),
            settings,
            history: History::new(),
            ledger: server.scratch("ledger"),
            env: server.marked(serde_json::json!({}))["env"].clone(),
            place: Mutex::default(),
            unheard: Mutex::default(),
            known: Mutex::default(),
            live: Mutex::default(),
            talks: Mutex::default(),
            doomed: Mutex::default(),
            next_key: AtomicU32::new(0),
            closing: AtomicBool::new(false),
            over: AtomicBool::new(false),
        };
        world.moved(server);
        world
    }

    /// A server was launched.
    pub fn launched(&self) {
        self.history.note(None, What::Launched);
        let launch = {
            let mut place = self.place.lock().expect("the place");
            place.launch += 1;
            place.launch
        };
        *self.unheard.lock().expect("the launch") = Some((launch, Instant::now()));
    }

    /// The server of the moment is another one.
    pub fn moved(&self, server: &Server) {
        let mut place = self.place.lock().expect("the place");
        place.listen = server.listen().to_owned();
        place.token = server.token();
        place.socket = server.socket();
    }

    /// A session with whatever server lives, over one door or the other, and which launch that was
    /// at least. Tries until there is one; `None` when the run is over.
    pub fn connect(&self, random: &mut Random) -> Option<(Client, u32)> {
        while !self.is_over() {
            let place = self.place.lock().expect("the place").clone();
            let client = match random.percent(50) {
                true => Client::try_tcp(&place.listen, Some(&place.token)),
                false => Client::try_unix(&place.socket),
            };
            if let Ok(client) = client {
                return Some((client, place.launch));
            }
            thread::sleep(KNOCK_EVERY);
        }
        None
    }

    /// A reader was told something by the server of this launch.
    pub fn progressed(&self, launch: u32) {
        let mut unheard = self.unheard.lock().expect("the launch");
        if unheard.is_some_and(|(newest, _)| newest == launch)
            && let Some((_, launched)) = unheard.take()
        {
            let after_us = launched.elapsed().as_micros() as u64;
            self.history.note(None, What::Progress { after_us });
        }
    }

    /// A plan that nobody has submitted yet. It waits for jobs that are there.
    pub fn plan(&self) -> Plan {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let mut plan = Plan::new(self.settings.seed, key, self.settings.small);
        let wanted = plan.waiting.wanted.iter();
        plan.waiting.after = wanted
            .filter_map(|wanted| self.dependency(wanted))
            .collect();
        plan
    }

    fn dependency(&self, wanted: &Wanted) -> Option<After> {
        let mut jobs = match wanted.live {
            true => self.live(),
            false => self.known(),
        };
        jobs.retain(|job| !job.deleting.load(Ordering::Relaxed));
        let place = wanted.choice.checked_rem(jobs.len() as u64)?;
        let job = &jobs[place as usize];
        Some(After {
            key: job.plan.key,
            // The number of a deleted job stands for nothing; its id still tells one submit from another.
            target: match wanted.by_number && !job.plan.delete {
                true => Target::Number(job.number),
                false => Target::Id(job.id.clone()),
            },
            on_success: wanted.on_success,
        })
    }

    /// Whether the deletion of a job was asked for that this one waits for.
    pub fn may_lack_dependency(&self, plan: &Plan) -> bool {
        let known = self.known.lock().expect("the jobs");
        let mut deleting = known
            .iter()
            .filter(|job| job.deleting.load(Ordering::Relaxed));
        let after = &plan.waiting.after;
        deleting.any(|job| after.iter().any(|after| after.key == job.plan.key))
    }

    /// A job was acknowledged for the first time.
    pub fn add(&self, plan: Plan, (id, number): (String, u64)) {
        let talks = plan.kind == Kind::Echoes;
        let known = Arc::new(Known {
            plan,
            id,
            number,
            done: AtomicBool::new(false),
            deleting: AtomicBool::new(false),
            shown_to: AtomicU64::new(0),
        });
        if talks {
            self.talks
                .lock()
                .expect("the talks")
                .push_back(known.clone());
        }
        if known.plan.delete {
            self.doom(known.clone());
        }
        self.live.lock().expect("the jobs").push(known.clone());
        self.known.lock().expect("the jobs").push(known);
    }

    /// The next job that waits to be talked to.
    pub fn next_talk(&self) -> Option<Arc<Known>> {
        self.talks.lock().expect("the talks").pop_front()
    }

    /// A job that is to be deleted waits for its turn.
    pub fn doom(&self, job: Arc<Known>) {
        self.doomed.lock().expect("the doomed").push_back(job);
    }

    /// The next job that is to be deleted once it is final.
    pub fn next_doomed(&self) -> Option<Arc<Known>> {
        self.doomed.lock().expect("the doomed").pop_front()
    }

    /// All jobs that were acknowledged.
    pub fn known(&self) -> Vec<Arc<Known>> {
        self.known.lock().expect("the jobs").clone()
    }

    /// Those that are not known to be final.
    pub fn live(&self) -> Vec<Arc<Known>> {
        let mut live = self.live.lock().expect("the jobs");
        live.retain(|job| !job.done.load(Ordering::Relaxed));
        live.clone()
    }

    /// Some acknowledged job; mostly one of the newest.
    pub fn some(&self, random: &mut Random) -> Option<Arc<Known>> {
        let known = self.known.lock().expect("the jobs");
        let newest = match random.percent(75) {
            true => known.len().saturating_sub(25),
            false => 0,
        };
        random.one_of(&known[newest..]).cloned()
    }

    /// No more new jobs and no more meddling.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether no new jobs are made; also when something was wrong already.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed) || self.history.is_wrong()
    }

    /// Every thread leaves.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether every thread is to leave.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}
