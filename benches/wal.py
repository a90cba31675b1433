#!/usr/bin/env python3
"""How long the write-ahead log becomes, and how long submits take, beside clients with hostile queries.

    benches/wal.py BINARY [--minutes 5] [--quiet-minutes N] [--rounds 1] [--hostile 8] [--lists 0]
                   [--submitters 4] [--rate N] [--megabytes 4] [--where DIR] [--data-dir DIR]

It starts a server of its own, has clients submit small jobs and wait for their ends, one after the other
or at most `--rate` a second each, and others submit jobs with a long stdin to a queue that starts nothing.
Half of the `--minutes`, or `--quiet-minutes`, it does only that; the rest of the time `--hostile` clients
ask queries that never end, and `--lists` clients lists that find nothing, back to back. With `--rounds`
it changes between both so many times, so that both see the same data and the same neighbours of a shared
machine. For each part, and in the end for each kind, it prints the longest log and how long the small
submits took. It fails if the log was longer than 64 MiB, a submit was refused, or a query was refused in
an unexpected way. It needs the library `websockets`.
"""

import argparse
import asyncio
import collections
import json
import os
import subprocess
import sys
import tempfile
import time

import websockets

from session import Refused, Session

LOG_BYTES_MAX = 64 << 20
LONG_STDIN_BYTES = 200_000
QUERIES = [
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n), newest(job) AS (SELECT max(job) FROM history_jobs) SELECT max(n.i + newest.job) FROM n, newest",
    "SELECT job, max(length(text)) FROM history_output GROUP BY job ORDER BY 2",
]
# Refused for the time, for the number of queries, or because the log has to be shortened.
EXPECTED = {-32005, -32006}


class Part:
    """What was measured in a part of the time, or in several."""

    def __init__(self):
        self.seconds, self.submits, self.longest = 0, [], 0
        self.answers = collections.Counter()

    def add(self, other):
        self.seconds += other.seconds
        self.submits += other.submits
        self.longest = max(self.longest, other.longest)
        self.answers += other.answers

    def p99(self):
        return sorted(self.submits)[int(0.99 * (len(self.submits) - 1))]

    def show(self, name):
        took = sorted(self.submits)
        print(f"{name}: {self.seconds / 60:.1f} minutes, {len(took) / self.seconds:.0f} submits a second, "
              f"median {took[len(took) // 2] * 1000:.1f} ms, p99 {self.p99() * 1000:.1f} ms, "
              f"longest {took[-1] * 1000:.0f} ms; log up to {self.longest / (1 << 20):.1f} MiB; "
              f"hostile calls: {dict(self.answers)}", flush=True)


class Bench:
    def __init__(self, binary, data_dir):
        self.wal = os.path.join(data_dir, "cc-executor.db-wal")
        self.server = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir, "--log-level", "warn"],
            stdout=subprocess.PIPE)
        self.ready = json.loads(self.server.stdout.readline())
        self.part, self.over, self.sockets = Part(), False, []

    async def connect(self):
        with open(self.ready["token_file"], encoding="ascii") as file:
            token = file.read().strip()
        socket = await websockets.connect(
            f"ws://{self.ready['listen']}/ws", max_size=None,
            additional_headers={"Authorization": f"Bearer {token}"})
        await socket.recv()
        self.sockets.append(socket)
        return Session(socket)

    async def submit(self, rate):
        session = await self.connect()
        while not self.over:
            began = time.monotonic()
            reply = await session.ask("job.submit", shell="head -c 2000 /dev/zero")
            self.part.submits.append(time.monotonic() - began)
            await session.ask("job.wait", jobs=[reply["job"]["id"]])
            if rate:
                await asyncio.sleep(max(began + 1 / rate - time.monotonic(), 0))

    async def submit_long(self, bytes_per_second):
        session = await self.connect()
        await session.ask("queue.set", queue="held", paused=True)
        while not self.over:
            began = time.monotonic()
            await session.ask("job.submit", argv=["true"], queue="held", stdin="x" * LONG_STDIN_BYTES)
            pause = LONG_STDIN_BYTES / bytes_per_second - (time.monotonic() - began)
            await asyncio.sleep(max(pause, 0))

    async def ask(self, at):
        session = await self.connect()
        while not self.over:
            try:
                if at is None:
                    await session.ask("job.list", limit=1000, labels={"no": "such"})
                else:
                    await session.ask("history.query", sql=QUERIES[at % len(QUERIES)])
                self.part.answers["answered"] += 1
            except Refused as refused:
                self.part.answers[refused.args[0]["data"].get("limit") or refused.args[0]["data"]["kind"]] += 1
                if refused.args[0]["code"] not in EXPECTED:
                    raise

    async def watch(self):
        while not self.over:
            if os.path.exists(self.wal):
                self.part.longest = max(self.part.longest, os.path.getsize(self.wal))
            await asyncio.sleep(0.01)

    async def measure(self, args, minutes, hostile, lists):
        self.part, self.over = Part(), False
        tasks = [self.submit(args.rate) for _ in range(args.submitters)]
        tasks += [self.submit_long(args.megabytes * 1e6), self.watch()]
        tasks += [self.ask(at) for at in range(hostile)] + [self.ask(None) for _ in range(lists)]
        tasks = [asyncio.create_task(task) for task in tasks]
        began = time.monotonic()
        await asyncio.wait(tasks, timeout=minutes * 60, return_when=asyncio.FIRST_EXCEPTION)
        self.over = True
        self.part.seconds = time.monotonic() - began
        failed = [task.exception() for task in tasks if task.done() and task.exception()]
        if failed:
            raise failed[0]
        await asyncio.wait(tasks, timeout=40)
        while self.sockets:
            await self.sockets.pop().close()
        return self.part


async def measure(bench, args):
    quiet_minutes = args.minutes / 2 if args.quiet_minutes is None else args.quiet_minutes
    kinds = [
        ("alone", quiet_minutes, 0, 0),
        (f"beside {args.hostile} clients with queries, {args.lists} with lists",
         args.minutes - quiet_minutes, args.hostile, args.lists),
    ]
    all_of = [Part(), Part()]
    for _ in range(args.rounds):
        for whole, (name, minutes, hostile, lists) in zip(all_of, kinds):
            part = await bench.measure(args, minutes / args.rounds, hostile, lists)
            part.show(name)
            whole.add(part)
    for whole, (name, *_) in zip(all_of, kinds):
        whole.show(f"all {args.rounds} rounds {name}")
    alone, beside = all_of
    print(f"p99 beside hostile clients: {beside.p99() / alone.p99():.1f} times as long", flush=True)
    return max(alone.longest, beside.longest) <= LOG_BYTES_MAX


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary")
    parser.add_argument("--minutes", type=float, default=5, help="of all rounds")
    parser.add_argument("--quiet-minutes", type=float, help="how many of them are without hostile clients")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--hostile", type=int, default=8)
    parser.add_argument("--lists", type=int, default=0)
    parser.add_argument("--submitters", type=int, default=4)
    parser.add_argument("--rate", type=float, default=0, help="submits a second of each submitter")
    parser.add_argument("--megabytes", type=float, default=4, help="long stdins a second, in megabytes")
    parser.add_argument("--where", help="the directory for a data directory of its own")
    parser.add_argument("--data-dir", help="this data directory instead")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.where) as home:
        bench = Bench(os.path.abspath(args.binary), args.data_dir or os.path.join(home, "data"))
        try:
            good = asyncio.run(measure(bench, args))
        finally:
            bench.server.terminate()
            bench.server.wait()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
