#!/usr/bin/env python3
"""How long submits take while retention deletes half of all jobs, beside an empty server.

    benches/prune.py BINARY [--jobs 100000] [--submits 2000] [--where DIR]

It submits jobs one after the other to a queue that starts nothing: to an empty server, to one with --jobs
final jobs, and to that one while `job.prune` deletes half of them. Then it waits until the database's file
is shorter. It prints the times, and the ratio of the 99th percentiles; it fails if that is above 3, or if the
space is not returned. It needs the library `websockets`.
"""

import argparse
import os
import sys
import tempfile
import threading
import time

import long_history

RATIO_MAX = 3.0
OUTPUT_BYTES = 500
SHORTER_WITHIN_S = 600
# What may stay free in the database, as a part of it.
FREE_DIVISOR = 32


def submits(session, count, go_on=lambda: True):
    """Times of up to so many submits, in ms, sorted."""
    took = []
    while len(took) < count and go_on():
        began = time.monotonic()
        session.ask("job.submit", {"argv": ["true"], "queue": "held"})
        took.append((time.monotonic() - began) * 1e3)
    return sorted(took)


def percentile(took, part):
    return took[int(part * (len(took) - 1))]


def show(what, took):
    print(f"{what}: {len(took)} submits, median {percentile(took, 0.5):.1f} ms, "
          f"p99 {percentile(took, 0.99):.1f} ms, longest {took[-1]:.0f} ms", flush=True)
    return percentile(took, 0.99)


def with_held_queue(server):
    session = server.connect()
    session.ask("queue.set", {"queue": "held", "paused": True})
    return session


def prune(server, result):
    session = server.connect()
    began = time.monotonic()
    # Of the two queues that the history has.
    result["pruned"] = session.ask("job.prune", {"queue": "default", "dry_run": False})
    result["seconds"] = time.monotonic() - began


def empty(args, home):
    server = long_history.Server(args.binary, os.path.join(home, "empty"))
    server.start()
    p99 = show("empty server", submits(with_held_queue(server), args.submits))
    server.stop()
    return p99


def full(args, home):
    server = long_history.Server(args.binary, os.path.join(home, "full"))
    server.start()
    session = server.connect()
    job = session.ask("job.submit", {"argv": ["/bin/true"]})["job"]
    assert session.ask("job.wait", {"jobs": [job["number"]]})["met"]
    server.stop()
    long_history.write_small(server, args.jobs, OUTPUT_BYTES, ["default", "interactive"])
    server.start()
    session = with_held_queue(server)
    show(f"{args.jobs} jobs", submits(session, args.submits))
    database = os.path.join(server.data_dir, "cc-executor.db")
    before, result = os.path.getsize(database), {}
    thread = threading.Thread(target=prune, args=(server, result))
    thread.start()
    took = submits(session, sys.maxsize, thread.is_alive)
    thread.join()
    p99 = show("while half of them is deleted", took)
    print(f"{result['pruned']['jobs']} jobs deleted in {result['seconds']:.0f} s", flush=True)
    began = time.monotonic()
    while True:
        usage = session.ask("server.disk_usage", {})
        if usage["free_bytes"] < usage["database_bytes"] / FREE_DIVISOR and os.path.getsize(database) < before:
            break
        if time.monotonic() - began > SHORTER_WITHIN_S:
            sys.exit("the database's file did not become shorter")
        time.sleep(0.5)
    mib = 1 << 20
    print(f"the database had {before / mib:.0f} MiB and has {os.path.getsize(database) / mib:.0f} MiB "
          f"{time.monotonic() - began:.0f} s later", flush=True)
    server.stop()
    return p99


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", type=os.path.abspath)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--submits", type=int, default=2000)
    parser.add_argument("--where", help="the directory for data directories of its own")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.where) as home:
        alone = empty(args, home)
        ratio = full(args, home) / alone
    print(f"p99 while half of the jobs are deleted: {ratio:.1f} times that of an empty server", flush=True)
    sys.exit(0 if ratio <= RATIO_MAX else 1)


if __name__ == "__main__":
    main()
