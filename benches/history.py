#!/usr/bin/env python3
"""What questions about a long history cost, and what they cost others.

    benches/history.py BINARY [--jobs 200000] [--gigabytes 5] [--where DIR] [--keep DIR]

It makes a data directory with so many jobs of thirty days. The large outputs, most of the bytes, are
written by real jobs under a clock that is set back (tests/fixtures/clock); the small jobs are rows that
are written into the stopped server's ledger. Then, while one job writes 50 MB/s, it asks each question
several times, and beside that follows a job that writes the time every 20 ms: with and without the
questions. It prints markdown and decides nothing. Needs the package `websockets`.
"""

import argparse
import json
import os
import pathlib
import random
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid

from websockets.sync.client import unix_connect

ROOT = pathlib.Path(__file__).resolve().parent.parent
DAYS = 30
LARGE_BYTES = 3_800_000
ROUNDS = 5
STAMPS = 500
STAMP = "import time\nfor _ in range(%d): print(time.time_ns(), flush=True); time.sleep(0.02)" % STAMPS
NOISE = """
import os, time
line = b"the quick brown fox jumps over the lazy dog, again and again and again\\n"
block = line * (500_000 // len(line))
at = time.monotonic()
while True:
    os.write(1, block)
    at += len(block) / 50e6
    time.sleep(max(0, at - time.monotonic()))
"""
WORDS = "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike".split()

QUESTIONS = [
    ("the last failures by exit code",
     "SELECT exit_code, count(*), max(finished_at), max(job) FROM history_jobs "
     "WHERE state = 'failed' AND finished_at > ago('7 days') GROUP BY exit_code ORDER BY 3 DESC"),
    ("the last twenty that ended with 137, and what they printed last",
     "SELECT j.job, j.cwd, j.command, (SELECT substr(o.text, -200) FROM history_output o "
     "WHERE o.job = j.job ORDER BY o.offset DESC LIMIT 1) FROM history_jobs j "
     "WHERE j.exit_code = 137 ORDER BY j.finished_at DESC LIMIT 20"),
    ("the slowest tenth per label",
     "WITH t AS (SELECT job, labels ->> 'team' AS team, duration_s, ntile(10) OVER "
     "(PARTITION BY labels ->> 'team' ORDER BY duration_s DESC) AS tenth FROM history_jobs "
     "WHERE duration_s IS NOT NULL) SELECT team, count(*), min(duration_s), avg(duration_s), "
     "max(duration_s) FROM t WHERE tenth = 1 GROUP BY team"),
    ("the output of one job around a byte",
     "SELECT offset, text FROM history_output WHERE job = (SELECT max(job) FROM history_jobs "
     "WHERE output_bytes > 3000000) AND offset > 2000000 - 65536 AND offset <= 2000000"),
    ("bytes per queue per day",
     "SELECT queue, substr(submitted_at, 1, 10) AS day, sum(output_bytes) FROM history_jobs "
     "GROUP BY queue, day ORDER BY day DESC, queue"),
    ("every job whose output in the last hour contains a word",
     "SELECT DISTINCT job FROM history_output WHERE at > ago('1 hour') "
     "AND instr(text, 'needle')"),
]


class Bench:
    def __init__(self, binary, data_dir):
        self.binary, self.data_dir, self.server = binary, data_dir, None

    def start(self, env=None):
        self.server = subprocess.Popen(
            [self.binary, "serve", "--listen", "none", "--data-dir", self.data_dir,
             "--log-level", "error", "--query-timeout-s", "60"],
            stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
        line = self.server.stdout.readline()
        assert json.loads(line)["event"] == "ready", line

    def stop(self, *words):
        subprocess.run([self.binary, "stop", "--data-dir", self.data_dir, *words], check=True,
                       stdout=subprocess.DEVNULL)
        self.server.wait()

    def connect(self):
        return Session(os.path.join(self.data_dir, "server.sock"))


class Session:
    def __init__(self, path):
        self.socket = unix_connect(path, "ws://localhost/ws", max_size=None, compression=None)
        self.socket.recv()
        self.number = 0

    def ask(self, method, params):
        self.number += 1
        self.socket.send(json.dumps({"jsonrpc": "2.0", "id": self.number, "method": method,
                                     "params": params}))
        while True:
            reply = json.loads(self.socket.recv())
            if reply.get("id") == self.number:
                if "error" in reply:
                    sys.exit(f"{method} {params}: {reply['error']}")
                return reply["result"]

    def notification(self):
        return json.loads(self.socket.recv())


def write_large(bench, home, count):
    """Real jobs with large outputs, spread over thirty days by a clock that is set back."""
    library, shift = os.path.join(home, "shift.so"), os.path.join(home, "shift")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, f'-DSHIFT_FILE="{shift}"',
                    ROOT / "tests/fixtures/clock/shift.c"], check=True)
    pathlib.Path(shift).write_bytes(struct.pack("q", 0))
    bench.start({"LD_PRELOAD": library})
    session = bench.connect()
    spool = pathlib.Path(bench.data_dir, "spool")
    for day in range(DAYS, 0, -1):
        back = day * 86400
        with open(shift, "r+b") as file:
            file.write(struct.pack("q", -back))
        jobs = [{"shell": f"yes 'line {n} {' '.join(WORDS)}' | head -c {LARGE_BYTES}",
                 "labels": {"team": random.choice(WORDS[:5])}}
                for n in range(count // DAYS)]
        before = set(os.listdir(spool))
        jobs = session.ask("job.submit_many", {"jobs": jobs})["jobs"]
        for at in range(0, len(jobs), 500):
            numbers = [job["number"] for job in jobs[at:at + 500]]
            assert session.ask("job.wait", {"jobs": numbers, "mode": "all"})["met"]
        then = time.time() - back
        for name in set(os.listdir(spool)) - before:
            os.utime(spool / name, (then, then))
    bench.stop()


def write_small(bench, count, bytes_each):
    """Rows of small jobs, made after the first large one."""
    db = sqlite3.connect(os.path.join(bench.data_dir, "cc-executor.db"))
    # Older versions of SQLite call NULL no valid JSON, and refuse our CHECKs.
    db.execute("PRAGMA ignore_check_constraints = ON")
    db.row_factory = sqlite3.Row
    job, attempt = (dict(db.execute(f"SELECT * FROM {table} LIMIT 1").fetchone())
                    for table in ("jobs", "attempts"))
    job.pop("stdin_length", None)
    spec = json.loads(job["spec"])
    events = [dict(row) for row in db.execute("SELECT * FROM events WHERE job = ? ORDER BY id",
                                              (job["number"],))]
    first = db.execute("SELECT max(number) FROM jobs").fetchone()[0] + 1
    now, chance = time.time_ns() // 1000, random.Random(1)
    text = " ".join(chance.choice(WORDS) for _ in range(20 * bytes_each // 6))

    def insert(table, rows):
        names = ", ".join(f'"{name}"' for name in rows[0])
        marks = ", ".join("?" * len(rows[0]))
        db.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})",
                       [tuple(row.values()) for row in rows])

    for start in range(0, count, 10_000):
        jobs, attempts, changes, chunks = [], [], [], []
        for n in range(start, min(start + 10_000, count)):
            number = first + n
            at = now - int((count - n) / count * DAYS * 86400e6)
            began = at + chance.randrange(50_000_000)
            ended = began + int(chance.expovariate(1 / 30e6))
            code = chance.choices([0, 1, 2, 137], [80, 15, 4, 1])[0]
            state, reason = ("succeeded", None) if code == 0 else ("failed", "exit_code")
            offset = chance.randrange(len(text) - bytes_each)
            data = text[offset:offset + bytes_each].encode()
            if n % 97 == 0:
                data = data[:-8] + b" needle\n"
            jobs.append({**job, "number": number, "id": str(uuid.UUID(int=chance.getrandbits(128))),
                         "state": state, "reason": reason, "exit_code": code,
                         "spec": json.dumps({**spec, "argv": None, "shell": f"make -j8 {n}"}),
                         "queue": chance.choice(["default", "interactive"]),
                         "labels": json.dumps({"team": chance.choice(WORDS[:5]), "run": n}),
                         "submitted_at": at, "started_at": began, "finished_at": ended,
                         "output_bytes": len(data), "idempotency_key": None})
            attempts.append({**attempt, "job": number, "shim": f"s{number}", "claimed_at": began,
                             "started_at": began, "ended_at": ended, "end_offset": len(data)})
            for event, when in zip(events, (at, began, ended)):
                to = event["to_state"] if event["to_state"] != "succeeded" else state
                changes.append({**event, "id": None, "job": number, "at": when, "to_state": to,
                                "reason": reason if to == "failed" else None})
            chunks.append({"job": number, "offset": 0, "length": len(data), "attempt": 1,
                           "stream": "stdout", "at": ended, "gap": None, "data": data})
        insert("jobs", jobs)
        insert("attempts", attempts)
        insert("events", changes)
        insert("output_chunks", chunks)
        db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def tail_ages(bench):
    """Ages of the lines of a live tail, seconds."""
    session, ages = bench.connect(), []
    job = session.ask("job.submit", {"argv": [sys.executable, "-c", STAMP], "queue": "interactive"})
    session.ask("job.tail", {"job": job["job"]["number"]})
    while True:
        note = session.notification()
        if note["method"] == "job.output":
            now = time.time_ns()
            ages += [(now - int(line)) / 1e9 for line in note["params"]["data"].split()]
        if note["method"] == "job.end":
            return ages


def told(ages):
    ages = sorted(ages)
    return ages[len(ages) // 2] * 1e6, ages[len(ages) * 99 // 100] * 1e6, ages[-1] * 1e6


def measure(bench, noise_bytes):
    session = bench.connect()
    noise = {"argv": [sys.executable, "-c", NOISE], "queue": "interactive"}
    if noise_bytes:
        noise["output"] = {"max_bytes": noise_bytes, "when_full": "drop_oldest"}
    noise = session.ask("job.submit", noise)["job"]["number"]
    session.ask("job.wait", {"jobs": [noise], "until": {"bytes": 50_000_000}})
    without = told(tail_ages(bench))
    over, beside = threading.Event(), []
    times = {name: [] for name, _ in QUESTIONS}
    rows = {}

    def follow():
        while not over.is_set():
            beside.extend(tail_ages(bench))

    follower = threading.Thread(target=follow)
    follower.start()
    asked = time.monotonic()
    rounds = 0
    while rounds < ROUNDS or time.monotonic() - asked < 12:
        for name, sql in QUESTIONS:
            answer = session.ask("history.query", {"sql": sql})
            times[name].append(answer["elapsed_ms"] / 1000)
            rows[name] = len(answer["rows"])
        rounds += 1
    written = session.ask("job.get", {"job": noise})["output_bytes"]
    over.set()
    follower.join()
    session.ask("job.control", {"job": noise, "action": "kill"})
    print(f"| question ({rounds} rounds) | rows | median | longest |\n| --- | --- | --- | --- |")
    for name, _ in QUESTIONS:
        print(f"| {name} | {rows[name]} | {statistics.median(times[name]):.3f} s "
              f"| {max(times[name]):.3f} s |")
    print("\n| live tail | p50 | p99 | longest |\n| --- | --- | --- | --- |")
    for name, row in (("without queries", without), ("beside them", told(beside))):
        print(f"| {name} | {row[0]:.0f} µs | {row[1]:.0f} µs | {row[2]:.0f} µs |")
    print(f"\nThe noise had {written / 1e6:.0f} MB when the last question was answered.")


def main():
    options = argparse.ArgumentParser()
    options.add_argument("binary")
    options.add_argument("--jobs", type=int, default=200_000)
    options.add_argument("--gigabytes", type=float, default=5)
    options.add_argument("--noise-bytes", type=int, default=0,
                         help="bound of the noise's output (drop_oldest); 0: none")
    options.add_argument("--where")
    options.add_argument("--keep", help="make the history here, or use the one that is here")
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=args.where) as home:
        data_dir = os.path.abspath(args.keep) if args.keep else os.path.join(home, "data")
        bench = Bench(os.path.abspath(args.binary), data_dir)
        if not os.path.exists(data_dir):
            small = args.gigabytes * 0.2e9 / args.jobs * 1
            large = int(args.gigabytes * 0.8e9 / LARGE_BYTES)
            began = time.monotonic()
            write_large(bench, home, large)
            write_small(bench, args.jobs - large, int(small))
            print(f"made in {time.monotonic() - began:.0f} s", file=sys.stderr)
        files = [path.stat().st_size for path in pathlib.Path(data_dir).rglob("*") if path.is_file()]
        ledger = os.path.getsize(os.path.join(data_dir, "cc-executor.db"))
        print(f"{args.jobs} jobs, {sum(files) / 1e9:.2f} GB in {len(files)} files, "
              f"{ledger / 1e9:.2f} GB of it the database\n")
        bench.start()
        try:
            measure(bench, args.noise_bytes)
        finally:
            bench.stop("--kill-jobs")


if __name__ == "__main__":
    main()
