#!/usr/bin/env python3
"""How soon a server is ready whose shims are all dead, and how soon their jobs are told as lost.

    benches/dead_shims.py BINARY [--jobs 200] [--rounds 3] [--where DIR]

Each round has a data directory of its own: jobs that run, each with a process in a session of its own
and one with an empty environment; then every shim and the server get SIGKILL by their numbers. Measured
are the time from the start of the next server to its ready line, and from there until all jobs are
final. In the end it looks that none of their processes is left, or that their job says so. It uses
nothing but the command line and /proc.
"""

import argparse
import json
import os
import signal
import subprocess
import tempfile
import time


def start(binary, data_dir):
    began = time.monotonic()
    server = subprocess.Popen(
        [binary, "serve", "--listen", "none", "--data-dir", data_dir, "--log-level", "error"],
        stdout=subprocess.PIPE, text=True)
    line = server.stdout.readline()
    assert json.loads(line)["event"] == "ready", line
    return server, time.monotonic() - began


def cli(binary, data_dir, verb, *words, stdin=None):
    done = subprocess.run([binary, verb, "--data-dir", data_dir, *words], input=stdin,
                          capture_output=True, text=True, check=True)
    return done.stdout


def words_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def pids(is_wanted):
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and is_wanted(words_of(name))]


def round_of(binary, count, where):
    with tempfile.TemporaryDirectory(dir=where) as data_dir:
        server, _ = start(binary, data_dir)
        cli(binary, data_dir, "queue", "set", "dead", "--concurrency", str(count))
        # A number that names our processes.
        naptime = f"10{os.getpid()}"
        line = f"setsid sleep {naptime} & env -i setsid sleep {naptime} & wait"
        jobs = "".join(json.dumps({"shell": line, "queue": "dead"}) + "\n" for _ in range(count))
        cli(binary, data_dir, "submit", "--clean-env", "--many", "-", stdin=jobs)
        sleeps = lambda words: words[:2] == [b"sleep", naptime.encode()]
        while len(pids(sleeps)) < 2 * count:
            time.sleep(0.1)
        is_shim = lambda words: words[1:2] == [b"shim"] and os.fsencode(data_dir) in words
        # Before they can be replaced.
        os.kill(server.pid, signal.SIGSTOP)
        for pid in pids(is_shim):
            os.kill(pid, signal.SIGKILL)
        server.kill()
        server.wait()
        server, ready = start(binary, data_dir)
        began = time.monotonic()
        query = ("SELECT count(*) FILTER (WHERE state = 'failed' AND reason = 'lost') AS lost,"
                 " count(*) FILTER (WHERE survivors_unknown IS NOT NULL) AS unknown FROM history_jobs")
        while True:
            told = json.loads(cli(binary, data_dir, "sql", "--json", query))
            row = told["rows"][0] if isinstance(told, dict) else told[0]
            lost, unknown = row.values() if isinstance(row, dict) else row
            if lost == count:
                break
            time.sleep(0.05)
        final = time.monotonic() - began
        left = pids(sleeps)
        print(f"ready after {ready:.2f} s, all lost {final:.2f} s later, "
              f"{len(left)} processes left, {unknown} jobs say that there may be some", flush=True)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        cli(binary, data_dir, "stop")
        server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("binary")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--where")
    options = parser.parse_args()
    for _ in range(options.rounds):
        round_of(os.path.abspath(options.binary), options.jobs, options.where)


if __name__ == "__main__":
    main()
