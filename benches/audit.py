#!/usr/bin/env python3
"""What the audit trail costs: the same jobs with two binaries, by turns.

    benches/audit.py BEFORE AFTER [--jobs 10000] [--rounds 5] [--where DIR] [-- ARGUMENTS OF AFTER]

Each round starts a server of each binary on an empty data directory, submits the jobs (/bin/true) in one batch, and waits
until all are final. Told are the medians of the time for the batch, for all jobs, and of the processor time of the server
itself, which a busy machine changes least. It needs the library `websockets`.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import websockets

from session import Session


def processor_s(pid):
    """User and system time of a process."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def run(ready, pid, jobs):
    with open(ready["token_file"], encoding="ascii") as file:
        token = file.read().strip()
    socket = await websockets.connect(
        f"ws://{ready['listen']}/ws", max_size=None,
        additional_headers={"Authorization": f"Bearer {token}"})
    await socket.recv()
    session = Session(socket)
    before, began = processor_s(pid), time.monotonic()
    await session.ask("job.submit_many", jobs=[{"argv": ["/bin/true"]}] * jobs)
    submitted = time.monotonic()
    while True:
        counts = (await session.ask("server.info"))["counts"]
        if counts.get("succeeded", 0) == jobs:
            break
        await asyncio.sleep(0.05)
    ended = time.monotonic()
    await socket.close()
    return submitted - began, ended - began, processor_s(pid) - before


def once(binary, arguments, jobs, where):
    with tempfile.TemporaryDirectory(dir=where) as home:
        server = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", os.path.join(home, "data"),
             "--log-level", "error", *arguments], stdout=subprocess.PIPE)
        try:
            ready = json.loads(server.stdout.readline())
            return asyncio.run(run(ready, server.pid, jobs))
        finally:
            server.terminate()
            server.wait()


def main():
    own, _, more = " ".join(sys.argv[1:]).partition(" -- ")
    options = argparse.ArgumentParser()
    options.add_argument("before")
    options.add_argument("after")
    options.add_argument("--jobs", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--where")
    args = options.parse_args(own.split())
    binaries = {"before": (args.before, []), "after": (args.after, more.split())}
    figures = {name: [] for name in binaries}
    for _ in range(args.rounds):
        for name, (binary, arguments) in binaries.items():
            figures[name].append(once(os.path.abspath(binary), arguments, args.jobs, args.where))
    for name, rounds in figures.items():
        batch, whole, processor = (statistics.median(column) for column in zip(*rounds))
        print(f"{name}: batch {batch:.3f} s, all jobs {whole:.2f} s, server {processor:.2f} s of processor time")


if __name__ == "__main__":
    main()
