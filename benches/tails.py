#!/usr/bin/env python3
"""How old the lines of a live tail are when its client has them, with several binaries by turns.

    benches/tails.py BINARY... [--lines 2000] [--rounds 7] [--where DIR] [--secret]

Each round starts a server of each binary on an empty data directory and follows one job over a WebSocket. The job writes the
time in a line every two milliseconds; both sides read the same clock. Told are the medians over the rounds of each round's
median and 99th percentile. With --secret the last binary is measured once more with a job that has a secret in its environment.
It needs the library `websockets`.
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

STAMP = """
import sys, time
for _ in range(int(sys.argv[1])):
    time.sleep(0.002)
    sys.stdout.write(f"{time.time_ns()}\\n")
    sys.stdout.flush()
"""


async def ages_us(ready, lines, environment):
    """Ages of the lines, in microseconds, in order of size."""
    with open(ready["token_file"], encoding="ascii") as file:
        token = file.read().strip()
    socket = await websockets.connect(
        f"ws://{ready['listen']}/ws", max_size=None,
        additional_headers={"Authorization": f"Bearer {token}"})
    await socket.recv()
    job = {"argv": [sys.executable, "-c", STAMP, str(lines)], "env": environment}
    await socket.send(json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "job.submit", "params": {**job, "tail": {}}}))
    ages = []
    while True:
        message = json.loads(await asyncio.wait_for(socket.recv(), 60))
        now = time.time_ns()
        if "error" in message:
            raise RuntimeError(message["error"])
        if message.get("method") == "job.output":
            ages += [(now - int(line)) / 1000 for line in message["params"]["data"].split()]
        if message.get("method") == "job.end":
            break
    await socket.close()
    if len(ages) != lines:
        raise RuntimeError(f"{len(ages)} of {lines} lines came")
    return sorted(ages)


def once(binary, lines, where, secret):
    with tempfile.TemporaryDirectory(dir=where) as home:
        arguments, environment = [], {}
        if secret:
            secrets = os.path.join(home, "secrets")
            os.mkdir(secrets, 0o700)
            with open(os.open(os.path.join(secrets, "key"), os.O_CREAT | os.O_WRONLY, 0o600), "w",
                      encoding="ascii") as file:
                file.write("7d1f5c0a9e-planted-value")
            arguments, environment = ["--secrets-dir", secrets], {"KEY": {"secret": "key"}}
        server = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", os.path.join(home, "data"),
             "--log-level", "error", *arguments], stdout=subprocess.PIPE)
        try:
            ready = json.loads(server.stdout.readline())
            asyncio.run(ages_us(ready, 100, environment))
            ages = asyncio.run(ages_us(ready, lines, environment))
        finally:
            server.terminate()
            server.wait()
    return ages[len(ages) // 2], ages[len(ages) * 99 // 100]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binaries", nargs="+", metavar="BINARY")
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--where", default=None, help="the directory of the data directories")
    parser.add_argument("--secret", action="store_true")
    options = parser.parse_args()
    candidates = [(binary, False) for binary in options.binaries]
    if options.secret:
        candidates.append((options.binaries[-1], True))
    figures = {candidate: [] for candidate in candidates}
    for turn in range(options.rounds):
        # Each is first as often as last.
        for candidate in candidates if turn % 2 == 0 else reversed(candidates):
            figures[candidate].append(
                once(candidate[0], options.lines, options.where, candidate[1]))
    print("| live tail | p50 | p99 |\n| --- | --- | --- |")
    for (binary, secret), rounds in figures.items():
        p50, p99 = (statistics.median(column) for column in zip(*rounds))
        print(f"| {binary}{', a job with a secret' if secret else ''} | {p50:.0f} µs | {p99:.0f} µs |")


if __name__ == "__main__":
    main()
