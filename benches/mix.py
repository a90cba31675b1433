#!/usr/bin/env python3
"""100,000 jobs of every kind in one run, and submits while retention deletes half of them.

    benches/mix.py BINARY [--jobs 100000] [--seconds 30] [--seed 1] [--where DIR]

It submits jobs that wait for each other, for times and for keys, that fail and are tried again, whose output
is expected to show something, that notify a webhook or a command, with priorities, in queues of different
weights, slots and rates, while a schedule fires every second (`mix_jobs`). When all are final it checks from
the database that each has ended as it had to, in the right order, and that no queue was starved
(`mix_checks`); that each notice came and each time of the schedule was run once. Then a rule of retention
deletes half of the jobs.

Another process submits jobs one after the other to a queue that starts nothing: while the jobs run, while half
of them are deleted, and, before and after that, to an empty server, so that all are measured within minutes and
over as long a time. It fails if something is wrong, or if the 99th percentile of a submit during the deletion is
above 3 times that of the empty server. It needs the library `websockets`.
"""

import argparse
import collections
import http.server
import itertools
import json
import multiprocessing
import os
import sqlite3
import sys
import tempfile
import threading
import time

import long_history
import mix_checks
import mix_jobs
from prune import RATIO_MAX, show, submits, with_held_queue

BATCH = 500
ENDS_WITHIN_S = 1800
DELETES_WITHIN_S = 900
SHOWN_MAX = 5


class Receiver:
    """A webhook that refuses one notice of fifty the first time."""

    def __init__(self):
        self.taken, self.refused, numbers = collections.Counter(), set(), itertools.count(1)
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                notice = json.loads(self.rfile.read(int(self.headers["content-length"])))
                name = self.headers["webhook-id"]
                refuses = next(numbers) % 50 == 0 and name not in receiver.refused
                if refuses:
                    receiver.refused.add(name)
                else:
                    job = notice["data"]["job"]
                    receiver.taken[job["number"], job["state"]] += 1
                self.send_response(500 if refuses else 204)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Meter:
    """A process that submits jobs to the queue `held` until it is told to stop."""

    def __init__(self, server):
        self.over, (self.result, sender) = multiprocessing.Event(), multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=self.work, args=(server, sender), daemon=True)
        self.process.start()

    def work(self, server, sender):
        session = server.connect()
        sender.send(submits(session, sys.maxsize, lambda: not self.over.is_set()))

    def stop(self, what):
        self.over.set()
        return show(what, self.result.recv())


def set_up(session, home):
    for name, (_, settings) in mix_jobs.QUEUES.items():
        session.ask("queue.set", {"queue": name, **settings})
    session.ask("schedule.set", {"name": "tick", "cron": "* * * * * *", "overlap": "queue", "catch_up": "all",
                                 "job": {"argv": ["true"], "queue": "default"}})
    file = os.path.join(home, "notices")
    return file, ["/bin/sh", "-c", f'cat > /dev/null; echo "$CC_EXECUTOR_JOB $CC_EXECUTOR_STATE" >> {file}']


def submit_all(session, args, hook, command):
    planned, began = [], time.monotonic()
    for batch in mix_jobs.batches(args.seed, args.jobs, BATCH, hook, command):
        start = len(planned)
        new_jobs = [mix_jobs.new_job(job, start) for job in batch]
        for job, stored in zip(batch, session.ask("job.submit_many", {"jobs": new_jobs})["jobs"]):
            job.number = stored["number"]
        planned += batch
    took = time.monotonic() - began
    print(f"{len(planned)} jobs submitted in {took:.0f} s ({len(planned) / took:.0f}/s)", flush=True)
    return planned


def live(session):
    """How many jobs wait or run, those aside that only fill a queue."""
    counts = session.ask("server.info", {})["counts"]
    queues = session.ask("queue.list", {})["queues"]
    active = sum(queue["running"] + queue["queued"] for queue in queues if queue["queue"] != "held")
    return active + counts["scheduled"] + counts["blocked"]


def await_ends(session):
    began, told = time.monotonic(), 0
    while (left := live(session)) > 10:
        waited = time.monotonic() - began
        if waited > ENDS_WITHIN_S:
            sys.exit(f"{left} jobs are not final after {waited:.0f} s")
        if waited - told > 30:
            told = waited
            print(f"  {left} are left after {waited:.0f} s", flush=True)
        time.sleep(0.5)
    session.ask("schedule.set", {"name": "tick", "paused": True})
    while live(session) > 0 or session.ask("schedule.list", {})["schedules"][0]["waiting"]:
        time.sleep(0.1)
    while session.ask("server.info", {})["notices"]["waiting"] > 0:
        time.sleep(0.1)


def notices(planned, taken, file):
    """Every notice came at least once, and none that nobody asked for."""
    with open(file, encoding="ascii") as lines:
        written = collections.Counter(tuple(line.split()) for line in lines)
    expected, by_command = collections.Counter(), set()
    for job in planned:
        final = "succeeded" if job.succeeds else "failed"
        for entry in job.spec.get("notify", []):
            if "argv" in entry:
                by_command.add((str(job.number), final))
                continue
            expected[job.number, final] = 1
            if job.attempts:
                expected[job.number, "running"] = job.attempts
    for notice, count in expected.items():
        if taken[notice] < count:
            yield f"the notice {notice} came {taken[notice]} times, not {count}"
    for notice in taken.keys() - expected.keys():
        yield f"the notice {notice} came"
    if by_command != written.keys():
        yield f"commands were told {by_command ^ written.keys()} too much or not"
    print(f"  {sum(taken.values())} notices came to the webhook for {sum(expected.values())} changes, "
          f"{sum(written.values())} to the command for {len(by_command)}", flush=True)


def check(server, planned, receiver, file):
    history = mix_checks.History(os.path.join(server.data_dir, "cc-executor.db"))
    queues = {name: settings for name, (_, settings) in mix_jobs.QUEUES.items()}
    shares = mix_checks.Shares(history, queues)
    rate = queues["rated"]["starts_per_minute"]
    ended = collections.Counter(f"{row.state} {row.reason or ''}".strip() for row in history.rows.values())
    print(f"  {dict(ended)}, {len(history.starts())} starts, {len(history.runs)} runs of the schedule", flush=True)
    checks = {
        "ends": mix_checks.ends(history, planned),
        "dependencies": mix_checks.dependencies(history, planned),
        "times": mix_checks.times(history, planned),
        "exclusive keys": mix_checks.exclusive(history),
        "the order of one slot": mix_checks.order_of_one_slot(history, "single"),
        "starts in a minute": mix_checks.start_rate(history, "rated", rate),
        "the schedule": mix_checks.schedule_runs(history),
        "starvation": shares.starved(),
        "notices": notices(planned, receiver.taken, file),
    }
    violations = 0
    for name, wrong in checks.items():
        wrong = list(wrong)
        violations += len(wrong)
        for what in wrong[:SHOWN_MAX]:
            print(f"wrong: {name}: {what} ({len(wrong)} of these)", flush=True)
    print(f"{violations} violations", flush=True)
    return violations == 0


def finals(session):
    counts = session.ask("server.info", {})["counts"]
    return sum(counts[state] for state in mix_checks.FINAL)


def delete_half(server, session, planned):
    """Has a rule delete the first half; returns the time of a submit meanwhile, and whether that half is gone."""
    before, meter, began = finals(session), Meter(server), time.monotonic()
    session.ask("retention.set", {"rule": "first half", "labels": {"half": "first"}, "older_than_s": 0})
    half = sum(job.spec["labels"]["half"] == "first" for job in planned)
    while before - finals(session) < half and time.monotonic() - began < DELETES_WITHIN_S:
        time.sleep(0.2)
    took = time.monotonic() - began
    p99 = meter.stop(f"while {before - finals(session)} jobs are deleted, in {took:.0f} s")
    db = sqlite3.connect(f"file:{server.data_dir}/cc-executor.db?mode=ro", uri=True)
    left = {row[0] for row in db.execute("SELECT number FROM jobs")}
    db.close()
    right = all((job.number in left) == (job.spec["labels"]["half"] != "first") for job in planned)
    if not right:
        print("wrong: retention has not deleted the first half, or not that alone", flush=True)
    return p99, right


def started(args, home, name):
    server = long_history.Server(args.binary, os.path.join(home, name))
    server.start()
    return server


def measured(args, session):
    """Times of submits for some seconds, in ms, sorted."""
    until = time.monotonic() + args.seconds
    return submits(session, sys.maxsize, lambda: time.monotonic() < until)


def run(args, home, server, empty):
    """The ratio of the 99th percentiles, and whether all is right."""
    (session, receiver), idle = (with_held_queue(server), Receiver()), with_held_queue(empty)
    file, command = set_up(session, home)
    meter, began = Meter(server), time.monotonic()
    planned = submit_all(session, args, receiver.url, command)
    await_ends(session)
    took = time.monotonic() - began
    meter.stop(f"while they run, {took:.0f} s ({len(planned) / took:.0f} jobs a second)")
    good = check(server, planned, receiver, file)
    before = measured(args, idle)
    p99, right = delete_half(server, session, planned)
    alone = show("empty server, before and after", sorted(before + measured(args, idle)))
    return p99 / alone, good and right


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", type=os.path.abspath)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=30, help="of each measurement of the empty server")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--where", help="the directory for data directories of its own")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.where) as home:
        server, empty = started(args, home, "full"), started(args, home, "empty")
        try:
            ratio, good = run(args, home, server, empty)
        finally:
            server.stop()
            empty.stop()
    print(f"p99 while half of the jobs are deleted: {ratio:.1f} times that of an empty server", flush=True)
    sys.exit(0 if good and ratio <= RATIO_MAX else 1)


if __name__ == "__main__":
    main()
