#!/usr/bin/env python3
"""What a million jobs cost: each figure beside that of an empty directory, in one run.

    benches/growth.py BINARY [--jobs 1000000] [--queues 100] [--gigabytes 5] [--keep DIR]

It makes a data directory with so many jobs of thirty days (`long_history`), or takes the one that is
kept in DIR, and one without jobs but with the same queues. On both it measures starts, submissions,
short jobs (alone, and beside full queues), lists, /health, `tail -n` and the queries of docs/sql.md.
It prints markdown and decides nothing. Cold starts need root. Needs the package `websockets`.
"""

import argparse
import os
import pathlib
import re
import socket
import statistics
import sys
import tempfile
import time

from long_history import ROOT, Server, make

ROUNDS = 7
ONE_BY_ONE = 100
FULL_QUEUES = 98
BACKLOG = 20
LONG_BYTES = 1_000_000_000
PARAMETERS = {"job": 500_000, "offset": 500, "word": "needle", "team": "alpha", "name": "alpha-7"}


def median_ms(action, rounds=ROUNDS):
    times = []
    for _ in range(rounds):
        began = time.monotonic()
        action()
        times.append((time.monotonic() - began) * 1e3)
    return statistics.median(times)


def drop_caches():
    """Whether the page cache is empty now."""
    try:
        os.sync()
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")
        return True
    except OSError:
        return False


def starts(server):
    figures = {}
    warm = []
    for _ in range(3):
        warm.append(server.start())
        server.stop()
    figures["start, warm"] = statistics.median(warm) * 1e3
    if drop_caches():
        figures["start, cold"] = server.start() * 1e3
        server.stop()
    return figures


def short_jobs(session):
    """Milliseconds from a submission to the end of `/bin/true`, one after the other."""
    def run():
        job = session.ask("job.submit", {"argv": ["/bin/true"], "queue": "interactive"})["job"]
        assert session.ask("job.wait", {"jobs": [job["number"]]})["met"]
    return median_ms(run, ONE_BY_ONE)


def beside_full_queues(server, session):
    """The same while most queues are full and have a backlog."""
    queues = [q["queue"] for q in session.ask("queue.list", {})["queues"]]
    queues = [name for name in queues if name not in ("default", "interactive")][:FULL_QUEUES]
    for name in queues:
        session.ask("queue.set", {"queue": name, "concurrency": 1})
    jobs = [{"argv": ["sleep", "1000"], "queue": name} for name in queues for _ in range(BACKLOG)]
    jobs = session.ask("job.submit_many", {"jobs": jobs})["jobs"]
    running = [job["number"] for job in jobs[::BACKLOG]]
    for at in range(0, len(running), 50):
        session.ask("job.wait", {"jobs": running[at:at + 50], "mode": "all", "until": "running"})
    took = short_jobs(session)
    # The waiting ones first: nothing starts meanwhile.
    for job in reversed(jobs):
        session.ask("job.control", {"job": job["number"], "action": "kill"})
    return took


def lists(session):
    now = time.time()
    moment = lambda back: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - back))
    filters = [
        {}, {"state": ["queued", "running"]}, {"state": "cancelled"}, {"queue": "queue-050"},
        {"name": "alpha-7"}, {"name": "nobody"}, {"labels": {"team": "alpha"}},
        {"labels": {"run": "4711"}}, {"since": moment(3600)}, {"since": moment(7 * 86400)},
        {"since": moment(400 * 86400)}, {"name": "alpha-7", "state": "cancelled"},
        {"queue": "queue-050", "state": "cancelled", "labels": {"team": "alpha"}},
    ]
    times = {str(f): median_ms(lambda: session.ask("job.list", f)) for f in filters}
    slowest = max(times, key=times.get)
    return {"job.list, any filter: median": statistics.median(times.values()),
            f"job.list, the slowest filter": times[slowest]}


def health(server, session):
    def ask():
        session.ask("job.update", {"job": waiting, "priority": 1})
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(os.path.join(server.data_dir, "server.sock"))
            link.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            while link.recv(1 << 16):
                pass
    session.ask("queue.set", {"queue": "held", "paused": True})
    job = session.ask("job.submit", {"argv": ["true"], "queue": "held"})["job"]
    waiting = job["number"]
    took = median_ms(ask, 20)
    session.ask("job.control", {"job": waiting, "action": "cancel"})
    session.ask("queue.delete", {"queue": "held"})
    return took


def last_lines(session, long):
    """`tail -n 10` of a stream with ten lines at the beginning of a long output, and of long lines."""
    size = LONG_BYTES if long else 1000
    rare = f"seq 20 >&2; yes 0123456789abcdef | head -c {size}"
    lines = f"for n in 1 2 3 4 5 6 7 8 9 10 11 12; do head -c {size // 12} /dev/zero | tr '\\0' x; echo; done"
    figures = {}
    for name, shell, streams in (("a rare stream", rare, ["stderr"]), ("long lines", lines, None)):
        job = session.ask("job.submit", {"shell": shell, "queue": "interactive"})["job"]["number"]
        assert session.ask("job.wait", {"jobs": [job]})["met"]
        options = {"job": job, "last_lines": 10, "follow": False}
        if streams:
            options["streams"] = streams

        def begin():
            tail = session.ask("job.tail", options)
            session.ask("job.untail", {"subscription": tail["subscription"]})
        figures[f"tail -n 10 of {name}, 1 GB: until it begins"] = median_ms(begin)
    return figures


def recipes(session, numbers):
    page = (ROOT / "docs" / "sql.md").read_text()
    found = re.findall(r"### (.+?)\n.*?```sql\n(.+?)```", page, re.S)
    figures = {}
    for title, sql in found:
        names = set(re.findall(r":([a-z]+)", re.sub(r"'[^']*'", "", sql)))
        params = {name: {**PARAMETERS, **numbers}[name] for name in names}
        ask = {"sql": sql.rstrip().rstrip(";")}
        if params:
            ask["params"] = params
        times = [session.ask("history.query", ask)["elapsed_ms"] for _ in range(3)]
        figures[f"query: {title}"] = statistics.median(times)
    return figures


def measure(server, long):
    figures = starts(server)
    server.start("--query-timeout-s", "120")
    try:
        session = server.connect()
        submit = {"argv": ["/bin/true"], "queue": "interactive"}
        figures["job.submit"] = median_ms(lambda: session.ask("job.submit", submit), ONE_BY_ONE)
        figures["a short job"] = short_jobs(session)
        figures["a short job beside full queues"] = beside_full_queues(server, session)
        figures.update(lists(session))
        figures["/health after a write"] = health(server, session)
        figures.update(last_lines(session, long))
        figures.update(recipes(session, {} if long else {"job": 5}))
    finally:
        server.stop("--kill-jobs")
    return figures


def main():
    options = argparse.ArgumentParser()
    options.add_argument("binary")
    options.add_argument("--jobs", type=int, default=1_000_000)
    options.add_argument("--queues", type=int, default=100)
    options.add_argument("--gigabytes", type=float, default=5)
    options.add_argument("--keep", help="make the directory here, or use the one that is here")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as home:
        binary = os.path.abspath(args.binary)
        large = Server(binary, os.path.abspath(args.keep) if args.keep else os.path.join(home, "large"))
        if not os.path.exists(large.data_dir):
            began = time.monotonic()
            make(large, args.jobs, args.gigabytes, args.queues)
            print(f"made in {time.monotonic() - began:.0f} s", file=sys.stderr)
        empty = Server(binary, os.path.join(home, "empty"))
        empty.start()
        session = empty.connect()
        for n in range(2, args.queues):
            session.ask("queue.set", {"queue": f"queue-{n:03}", "concurrency": 1})
        empty.stop()
        beside = measure(empty, False)
        print(f"| measure | empty | {args.jobs} jobs | ratio |\n| --- | --- | --- | --- |")
        for name, figure in measure(large, True).items():
            base = beside[name]
            print(f"| {name} | {base:.1f} ms | {figure:.1f} ms | × {figure / max(base, 0.1):.1f} |")


if __name__ == "__main__":
    main()
