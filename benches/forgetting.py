#!/usr/bin/env python3
"""What overwriting deleted rows and fencing queries in cost: two programs in turn, one number each.

    benches/forgetting.py BINARY OTHER [--rounds 3] [--jobs 2000]

For each program and round a server of its own: jobs a second of `true` in one batch, the time to delete
as many small jobs and one job with 3 MiB of output in rows, and the shortest and the median time of
a query that reads one row, the start of its process included. It needs the library `websockets`.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import time

import websockets

from session import Session

QUERIES = 40
# One segment: what has more of them stays in files.
OUTPUT_BYTES = 3 << 20


async def final(session, jobs):
    for begin in range(0, len(jobs), 1000):
        wait = [job["id"] for job in jobs[begin:begin + 1000]]
        await session.ask("job.wait", jobs=wait, mode="all")


async def timed(work):
    began = time.monotonic()
    await work
    return time.monotonic() - began


async def batch(session, count):
    jobs = [{"argv": ["true"], "env": {"NTH": str(nth) * 200}} for nth in range(count)]
    taken = (await session.ask("job.submit_many", jobs=jobs))["jobs"]
    await final(session, taken)
    return taken


async def delete(session, jobs):
    for job in jobs:
        await session.ask("job.delete", job=job["id"])


async def measure(listen, token, count):
    socket = await websockets.connect(
        f"ws://{listen}/ws", max_size=None,
        additional_headers={"Authorization": f"Bearer {token}"})
    await socket.recv()
    session = Session(socket)
    await session.ask("queue.set", queue="default", concurrency=4)
    await batch(session, 100)
    began = time.monotonic()
    jobs = await batch(session, count)
    rate = count / (time.monotonic() - began)
    small = await timed(delete(session, jobs))
    large = await session.ask("job.submit", shell=f"head -c {OUTPUT_BYTES - 1000} /dev/zero")
    await final(session, [large["job"]])
    large = await timed(delete(session, [large["job"]]))
    queries = []
    for _ in range(QUERIES):
        ask = session.ask("history.query", sql="SELECT count(*) FROM history_jobs")
        queries.append(await timed(ask))
    await socket.close()
    return [rate, small * 1e6 / count, large * 1e3, min(queries) * 1e3,
            statistics.median(queries) * 1e3]


def one_round(binary, count):
    with tempfile.TemporaryDirectory(prefix="cc-bench-") as place:
        server = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", os.path.join(place, "d"),
             "--log-level", "error", "--inline-bytes-max", str(OUTPUT_BYTES)],
            stdout=subprocess.PIPE)
        try:
            ready = json.loads(server.stdout.readline())
            with open(ready["token_file"], encoding="ascii") as file:
                token = file.read().strip()
            return asyncio.run(measure(ready["listen"], token, count))
        finally:
            server.terminate()
            server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", nargs=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2000)
    asked = parser.parse_args()
    print("program  jobs/s  µs a delete  ms for 3 MiB  ms a query: least, median")
    for _ in range(asked.rounds):
        for binary in asked.binary:
            figures = one_round(binary, asked.jobs)
            print(os.path.basename(binary), *(f"{figure:9.1f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
