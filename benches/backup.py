#!/usr/bin/env python3
"""What a backup costs a busy server: its time, the growth of the write-ahead log, the waits of others.

    benches/backup.py BINARY [--ledger-mb 400] [--clients 6] [--seconds 6] [--where DIR]

It starts a server of its own, fills its ledger with jobs that wait in a paused queue, and has clients
submit jobs of 20 kB and wait for their ends, one after the other. So many seconds before a backup, while
it is made, and so many after it, how long each submit took is noted, and the length of the log. It needs
the library `websockets`.
"""

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
import time

import websockets

from session import Session

STDIN_BYTES = 64 << 10
BATCH = 12


class Bench:
    def __init__(self, binary, data_dir):
        self.wal = os.path.join(data_dir, "cc-executor.db-wal")
        self.server = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir,
             "--log-level", "error"], stdout=subprocess.PIPE)
        self.ready = json.loads(self.server.stdout.readline())
        self.submits, self.lengths, self.over = [], [], False

    async def connect(self):
        with open(self.ready["token_file"], encoding="ascii") as file:
            token = file.read().strip()
        socket = await websockets.connect(
            f"ws://{self.ready['listen']}/ws", max_size=None,
            additional_headers={"Authorization": f"Bearer {token}"})
        await socket.recv()
        return Session(socket)

    async def fill(self, session, megabytes):
        await session.ask("queue.set", queue="held", paused=True)
        job = {"argv": ["true"], "queue": "held", "stdin": "x" * STDIN_BYTES}
        for _ in range(megabytes * 1_000_000 // (STDIN_BYTES * BATCH)):
            await session.ask("job.submit_many", jobs=[job] * BATCH)

    async def submit(self):
        session = await self.connect()
        while not self.over:
            began = time.monotonic()
            reply = await session.ask("job.submit", shell="head -c 20000 /dev/zero")
            self.submits.append((began, time.monotonic() - began))
            await session.ask("job.wait", jobs=[reply["job"]["id"]])

    async def watch(self):
        while not self.over:
            if os.path.exists(self.wal):
                self.lengths.append((time.monotonic(), os.path.getsize(self.wal)))
            await asyncio.sleep(0.02)

    def tell(self, what, since, until):
        took = sorted(t for began, t in self.submits if since <= began < until)
        log = max((length for at, length in self.lengths if since <= at < until), default=0)
        if took:
            print(f"{what}: {len(took) / (until - since):.0f} submits a second, "
                  f"median {took[len(took) // 2] * 1000:.0f} ms, "
                  f"p99 {took[int(0.99 * (len(took) - 1))] * 1000:.0f} ms; "
                  f"log up to {log / 1e6:.1f} MB")


async def measure(bench, args, home):
    session = await bench.connect()
    await bench.fill(session, args.ledger_mb)
    tasks = [asyncio.create_task(bench.submit()) for _ in range(args.clients)]
    tasks.append(asyncio.create_task(bench.watch()))
    await asyncio.sleep(args.seconds)
    began = time.monotonic()
    made = await session.ask("server.backup", to=os.path.join(home, "backup"))
    ended = time.monotonic()
    await asyncio.sleep(args.seconds)
    bench.over = True
    await asyncio.gather(*tasks)
    print(f"{made['jobs']} jobs, {made['bytes'] / 1e6:.0f} MB in {ended - began:.2f} s")
    bench.tell("before", began - args.seconds, began)
    bench.tell("meanwhile", began, ended)
    bench.tell("after", ended, ended + args.seconds)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("binary")
    options.add_argument("--ledger-mb", type=int, default=400)
    options.add_argument("--clients", type=int, default=6)
    options.add_argument("--seconds", type=float, default=6)
    options.add_argument("--where")
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=args.where) as home:
        bench = Bench(os.path.abspath(args.binary), os.path.join(home, "data"))
        try:
            asyncio.run(measure(bench, args, home))
        finally:
            bench.server.terminate()
            bench.server.wait()


if __name__ == "__main__":
    main()
