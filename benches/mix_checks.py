"""What must be true of the mixed jobs of `mix.py`, from the database alone. Each check returns what is
wrong, as sentences.

The events of all jobs are in one order, that of their commits, so order is never taken from a clock.
"""

import calendar
import collections
import heapq
import sqlite3
import time

ACTIVE = ("running", "paused")
FINAL = ("succeeded", "failed", "cancelled")
# How far a clock that is being corrected may go back within a minute.
MINUTE_US = 59_500_000

Event = collections.namedtuple("Event", "id job attempt before state reason at")
Row = collections.namedtuple("Row", "number state reason attempts queue priority exclusive submitted_at")


class History:
    """The rows of the jobs and their events, as a reader of the database finds them."""

    def __init__(self, database):
        db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        self.rows = {row[0]: Row(*row) for row in db.execute(
            f"SELECT {', '.join(Row._fields)} FROM jobs WHERE queue <> 'held'")}
        self.events = [Event(*row) for row in db.execute(
            "SELECT id, job, attempt, from_state, to_state, reason, at FROM events ORDER BY id")
            if row[1] in self.rows]
        self.runs = db.execute("SELECT schedule_at, state FROM jobs WHERE schedule IS NOT NULL"
                               " ORDER BY number").fetchall()
        db.close()
        self.of_job = collections.defaultdict(list)
        for event in self.events:
            self.of_job[event.job].append(event)

    def starts(self):
        return [event for event in self.events if event.before == "queued" and event.state == "running"]


def ends(history, planned):
    """Every job is final, as it had to end, after as many attempts as it takes."""
    for job in planned:
        row = history.rows.get(job.number)
        state = "succeeded" if job.succeeds else "failed"
        if row is None:
            yield f"job {job.number} is not there"
        elif (row.state, row.reason, row.attempts) != (state, job.reason, job.attempts):
            yield f"{row} was to be {state}, {job.reason}, after {job.attempts} attempts"


def dependencies(history, planned):
    """No job moves on before those that it waits for have ended."""
    ended = collections.defaultdict(lambda: float("inf"))
    ended.update((event.job, event.id) for event in history.events if event.state in FINAL)
    for job in planned:
        if not job.after:
            continue
        last = max(ended[planned[index].number] for index, _ in job.after)
        broken = [ended[planned[index].number] for index, on in job.after
                  if on == "success" and not planned[index].succeeds]
        for event in history.of_job[job.number]:
            if event.state in ("scheduled", "queued", "running") and event.id < last:
                yield f"{event} before all that it waits for had ended"
            if event.reason == "dependency" and event.id < min(broken, default=event.id + 1):
                yield f"{event} before a job that it waits for had failed"


def times(history, planned):
    """No job starts before its time, nor before half of its pause after a failure."""
    for job in planned:
        ready, failures, spec = 0, 0, job.spec
        if "delay_s" in spec:
            ready = history.rows[job.number].submitted_at + int(spec["delay_s"] * 1e6)
        elif "run_at" in spec:
            ready = calendar.timegm(time.strptime(spec["run_at"], "%Y-%m-%dT%H:%M:%SZ")) * 1_000_000
        for event in history.of_job[job.number]:
            if event.before == "running" and event.state == "scheduled":
                failures += 1
                retry = spec["retry"]
                pause = min(retry["backoff_s"] * 2 ** (failures - 1), retry.get("max_backoff_s", 300))
                ready = event.at + int(pause * 1e6 / 2)
            elif event.state == "running" and event.at < ready:
                yield f"{event} {ready - event.at} µs before its time"


def exclusive(history):
    """Of the jobs with one key one is active at a time."""
    holders = {}
    for event in history.events:
        key = history.rows[event.job].exclusive
        if key is None:
            continue
        if event.before in ACTIVE and event.state not in ACTIVE:
            holders.pop(key, None)
        elif event.state == "running" and event.before == "queued":
            if key in holders:
                yield f"{event} beside job {holders[key]}, which has {key}"
            holders[key] = event.job


def order_of_one_slot(history, queue):
    """A queue of one slot starts its jobs by priority, then number."""
    heap, queued = [], set()
    for event in history.events:
        row = history.rows[event.job]
        if row.queue != queue:
            continue
        if event.state == "queued":
            queued.add(row.number)
            heapq.heappush(heap, (-row.priority, row.number))
        elif event.before == "queued":
            while heap[0][1] not in queued:
                heapq.heappop(heap)
            if event.state == "running" and heap[0][1] != row.number:
                yield f"{event}, and job {heap[0][1]} came first"
            queued.discard(row.number)


def start_rate(history, queue, most):
    """No more starts within a minute than the queue may have."""
    at = sorted(event.at for event in history.starts() if history.rows[event.job].queue == queue)
    for first, later in zip(at, at[most:]):
        if later - first < MINUTE_US:
            yield f"{queue}: {most + 1} starts within {(later - first) / 1e6:.1f} s"


def schedule_runs(history):
    """Each time of a schedule of every second is one run, from the first to the last."""
    at = [at // 1_000_000 for at, _ in history.runs]
    if at != list(range(at[0], at[0] + len(at))) if at else True:
        yield f"the times of the schedule's runs are {at}"
    for number, (_, state) in enumerate(history.runs):
        if state != "succeeded":
            yield f"run {number} of the schedule is {state}"


class Shares:
    """Follows which queues could start a job, and how many starts of others they had to see.

    A queue is *ready* while it has a queued job without an exclusive key and a free slot. `passed` is how
    many jobs of other queues have started since it became ready or had its last start: the wait of the
    job that is its next, in starts. Its fair share is one start of its own for each (sum of the other
    weights / its weight) starts of others.
    """

    def __init__(self, history, queues):
        self.history, self.queues = history, queues
        names = {row.queue for row in history.rows.values()}
        self.queued, self.active = collections.Counter(), collections.Counter()
        self.passed, self.since = {name: None for name in names}, {}
        self.most, self.longest_s = collections.Counter(), collections.Counter()
        self.violations = []
        for event in history.events:
            self.follow(event)

    def slots(self, name):
        return self.queues[name]["concurrency"] if name in self.queues else 4

    def follow(self, event):
        row = self.history.rows[event.job]
        own, free = row.queue, row.exclusive is None
        if event.state == "queued" and free:
            self.queued[own] += 1
        elif event.before == "queued" and free:
            self.queued[own] -= 1
        self.active[own] += (event.state in ACTIVE) - (event.before in ACTIVE)
        if self.active[own] > self.slots(own):
            self.violations.append(f"{event}: {self.active[own]} jobs are active in {own}")
        if event.before == "queued" and event.state == "running":
            self.start(own, event.at)
        self.look(own, event.at)

    def start(self, own, at):
        for name, passed in self.passed.items():
            if name != own and passed is not None:
                self.passed[name] += 1
                self.most[name] = max(self.most[name], passed + 1)
        if self.passed[own] is not None:
            self.longest_s[own] = max(self.longest_s[own], (at - self.since[own]) / 1e6)
        self.passed[own] = None

    def look(self, name, at):
        ready = self.queued[name] > 0 and self.active[name] < self.slots(name)
        if ready and self.passed[name] is None:
            self.passed[name], self.since[name] = 0, at
        elif not ready:
            self.passed[name] = None

    def starved(self):
        """Queues that saw more starts of others than their share allows, and those found before."""
        yield from self.violations
        weights = {name: settings["weight"] for name, settings in self.queues.items()}
        slots = sum(settings["concurrency"] for settings in self.queues.values())
        for name, weight in weights.items():
            if "starts_per_minute" in self.queues[name]:
                continue
            fair = (sum(weights.values()) - weight) / weight
            # All slots may be filled in one commit, whose events come queue by queue.
            most = 2 * fair + slots
            print(f"  {name}: weight {weight}, a fair share sees {fair:.1f} starts of others between two; "
                  f"at most {self.most[name]} were seen, for {self.longest_s[name]:.2f} s", flush=True)
            if self.most[name] > most:
                yield f"{name} was ready and saw {self.most[name]} starts of others, not {most:.0f}"
