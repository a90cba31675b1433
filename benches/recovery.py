#!/usr/bin/env python3
"""How soon a killed server is ready again, with many running jobs and many final ones.

    benches/recovery.py BINARY [--running 200] [--final 100000] [--kills 10] [--where DIR]

It starts a server of its own, lets one job of a few bytes end and copies its rows in the stopped
server's ledger as often as is wanted (running that many takes the longest part of an hour), starts the
jobs that run (each writes a line every second), and then kills the server with SIGKILL again and again.
Measured is the time from the start of the next process to its ready line, when recovery has asked every
shim and read every attempt. In the end it looks that all jobs still run in the same processes. But for
those rows it uses nothing but the command line and /proc.
"""

import argparse
import json
import os
import pathlib
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

BATCH = 10_000


class Bench:
    def __init__(self, binary, data_dir):
        self.binary, self.data_dir, self.server = binary, data_dir, None

    def start(self):
        """Starts a server; the seconds until it is ready."""
        began = time.monotonic()
        self.server = subprocess.Popen(
            [self.binary, "serve", "--listen", "none", "--data-dir", self.data_dir,
             "--log-level", "error", "--submit-many-max", str(BATCH)],
            stdout=subprocess.PIPE, text=True)
        line = self.server.stdout.readline()
        assert json.loads(line)["event"] == "ready", line
        return time.monotonic() - began

    def kill(self):
        self.server.kill()
        self.server.wait()

    def cli(self, verb, *words, stdin=None):
        done = subprocess.run([self.binary, *verb.split(), "--data-dir", self.data_dir, *words],
                              input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{verb}: {done.stderr}")
        return done.stdout

    def submit(self, count, job):
        left = count
        while left > 0:
            lines = "".join(json.dumps(job) + "\n" for _ in range(min(left, BATCH)))
            self.cli("submit", "--clean-env", "--many", "-", stdin=lines)
            left -= BATCH

    def multiply(self, count):
        """Copies the rows of the only job until there are so many."""
        self.cli("stop")
        with sqlite3.connect(os.path.join(self.data_dir, "cc-executor.db")) as db:
            # Older versions of SQLite call NULL no valid JSON, and refuse our CHECKs.
            db.execute("PRAGMA ignore_check_constraints = ON")
            other = {"id": "printf('%08x-0000-7000-8000-%012x', i, i)",
                     "idempotency_key": "NULL"}
            for table, key in [("jobs", "number"), ("attempts", "job"), ("events", "job"),
                               ("output_chunks", "job")]:
                columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
                if table == "events":
                    columns.remove("id")
                values = [f"{key} + i" if column == key else other.get(column, f'"{column}"')
                          for column in columns]
                names = ", ".join(f'"{column}"' for column in columns)
                db.execute(
                    f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
                    f"INSERT INTO {table} ({names}) SELECT {', '.join(values)} FROM {table}, n"
                    f" WHERE {key} = 1", (count - 1,))
        db.close()
        self.start()

    def counts(self):
        return json.loads(self.cli("status", "--json"))["counts"]

    def until(self, what, holds):
        while not holds(self.counts()):
            time.sleep(0.2)

    def leaders(self):
        """The processes of jobs whose parent is a shim of this data directory."""
        found, shims = set(), set()
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                if words[1:2] == [b"shim"] and os.fsencode(self.data_dir) in words:
                    shims.add(process.name)
                    found.update((process / "task" / process.name / "children").read_text().split())
            except (FileNotFoundError, PermissionError, ProcessLookupError):
                pass
        return found


def main():
    options = argparse.ArgumentParser()
    options.add_argument("binary")
    options.add_argument("--running", type=int, default=200)
    options.add_argument("--final", type=int, default=100_000)
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--where")
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=args.where) as home:
        bench = Bench(os.path.abspath(args.binary), os.path.join(home, "data"))
        bench.start()
        try:
            measure(bench, args)
        finally:
            bench.cli("stop", "--kill-jobs")


def measure(bench, args):
    bench.submit(1, {"argv": ["echo", "done"]})
    bench.until("final job", lambda jobs: jobs["succeeded"] == 1)
    if args.final > 1:
        bench.multiply(args.final)
    assert bench.counts()["succeeded"] == args.final
    bench.cli("queue set", "crowd", "--concurrency", str(max(args.running, 1)))
    bench.submit(args.running, {"shell": "while :; do echo tick; sleep 1; done", "queue": "crowd"})
    bench.until("running jobs", lambda jobs: jobs["running"] >= args.running)
    while len(bench.leaders()) < args.running:
        time.sleep(0.2)
    before, times = bench.leaders(), []
    for _ in range(args.kills):
        bench.kill()
        times.append(bench.start())
    assert bench.leaders() == before, "a job has noticed"
    size = sum(path.stat().st_size for path in pathlib.Path(bench.data_dir).glob("*.db*"))
    print(f"{args.running} running and {args.final} final jobs ({size / 1e6:.0f} MB): ready after "
          f"{statistics.median(times):.3f} s (median of {args.kills}), "
          f"{min(times):.3f} to {max(times):.3f} s")


if __name__ == "__main__":
    main()
