#!/usr/bin/env python3
"""What questions about a long history cost, and what they cost others.

    benches/history.py BINARY [--jobs 200000] [--gigabytes 5] [--where DIR] [--keep DIR]

It makes a data directory with so many jobs of thirty days (`long_history`). Then, while one job writes 50 MB/s, it asks each question
several times, and beside that follows a job that writes the time every 20 ms: with and without the
questions. It prints markdown and decides nothing. Needs the package `websockets`.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
import threading
import time

from long_history import Server, make

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
        bench = Server(os.path.abspath(args.binary), data_dir)
        if not os.path.exists(data_dir):
            began = time.monotonic()
            make(bench, args.jobs, args.gigabytes)
            print(f"made in {time.monotonic() - began:.0f} s", file=sys.stderr)
        files = [path.stat().st_size for path in pathlib.Path(data_dir).rglob("*") if path.is_file()]
        ledger = os.path.getsize(os.path.join(data_dir, "cc-executor.db"))
        print(f"{args.jobs} jobs, {sum(files) / 1e9:.2f} GB in {len(files)} files, "
              f"{ledger / 1e9:.2f} GB of it the database\n")
        bench.start("--query-timeout-s", "60")
        try:
            measure(bench, args.noise_bytes)
        finally:
            bench.stop("--kill-jobs")


if __name__ == "__main__":
    main()
