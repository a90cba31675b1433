#!/usr/bin/env python3
"""Whether running jobs survive servers that have hardly any descriptors.

    benches/restarts.py BINARY [--restarts 1000] [--running 40] [--seed N] [--low 40] [--high 200]

It starts jobs that run (every other one with `on_lost: "retry"`), and then kills the server with SIGKILL
and starts it again, each time under a limit of open files drawn between the two bounds, with a pause drawn
between nothing and a second and a half, so that some are killed while they still look for their shims.
Each job writes and syncs a line into a file at its start and at its end, with its process id. In the end,
under the limit of before, all jobs are cancelled. It checks that every job started once, that all
processes were the same ones all the time, that no job was lost, and that every job ended as cancelled.
It uses nothing but the command line, limits and /proc.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time

# One job: a line when it starts, and one when it is asked to end, each on the disk before it goes on.
JOB = ("sync -d {ledger} 2>/dev/null; echo start {n} $$ >>{ledger}; sync {ledger}; "
       "trap 'echo end {n} $$ >>{ledger}; sync {ledger}; exit 0' TERM; "
       "while :; do sleep 1000 & wait $!; done")


class Run:
    def __init__(self, args, home):
        self.binary, self.args = args.binary, args
        self.data_dir, self.ledger = str(home / "data"), home / "ledger"
        self.log = (home / "log").open("ab")
        self.server, self.not_ready = None, 0

    def start(self, limit=None):
        """Starts a server under a limit; returns whether it became ready, and in how many seconds."""
        began = time.monotonic()
        bound = None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_NOFILE,
                                                                      (limit, limit))
        self.server = subprocess.Popen(
            [self.binary, "serve", "--listen", "none", "--data-dir", self.data_dir,
             "--log-level", "warn"],
            stdout=subprocess.PIPE, stderr=self.log, preexec_fn=bound, text=True)
        line = self.server.stdout.readline()
        ready = line and json.loads(line)["event"] == "ready"
        return ready, time.monotonic() - began

    def kill(self):
        self.server.kill()
        self.server.wait()

    def end(self):
        """Whatever has failed: nothing of it goes on."""
        if self.server.poll() is None:
            self.kill()
        mark = self.data_dir.encode()
        for place in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                ours = mark in (place / "cmdline").read_bytes() and place.name != str(os.getpid())
                if ours:
                    os.kill(int(place.name), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                pass

    def cli(self, verb, *words, check=True):
        done = subprocess.run([self.binary, *verb.split(), "--data-dir", self.data_dir, *words],
                              capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            sys.exit(f"{verb}: {done.stderr}")
        return done.stdout

    def lines(self):
        return [line.split() for line in self.ledger.read_text().splitlines()]

    def submit(self):
        self.cli("queue set", "restarts", "--concurrency", str(self.args.running))
        numbers = []
        for n in range(self.args.running):
            words = ["--on-lost", "retry"] if n % 2 else []
            line = JOB.format(ledger=self.ledger, n=n)
            numbers.append(self.cli("submit", "--queue", "restarts", "--grace", "20s", *words, "--",
                                    "sh", "-c", line).strip())
        wait_for(lambda: len(self.lines()) == self.args.running, "all jobs run")
        return numbers


def wait_for(condition, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"waited in vain until {what}")
        time.sleep(0.05)


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("binary")
    parser.add_argument("--restarts", type=int, default=1000)
    parser.add_argument("--running", type=int, default=40)
    parser.add_argument("--low", type=int, default=40)
    parser.add_argument("--high", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    print(f"seed {args.seed}", flush=True)
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="cc-executor-restarts-",
                                     ignore_cleanup_errors=True) as home:
        run = Run(args, pathlib.Path(home))
        try:
            check(run, args, draw)
        finally:
            run.end()


def check(run, args, draw):
    run.ledger.touch()
    ready, _ = run.start()
    assert ready
    numbers = run.submit()
    leaders = {n: int(pid) for _, n, pid in run.lines()}
    times, never_ready, killed_early, dead_at = [], [], 0, None
    for round_ in range(args.restarts):
        run.kill()
        limit = draw.randint(args.low, args.high)
        ready, took = run.start(limit)
        if not ready:
            never_ready.append(limit)
            continue
        times.append(took)
        time.sleep(draw.choice([0, 0.02, 0.1, 0.4, 1.5]) * draw.random())
        if run.server.poll() is not None:
            killed_early += 1
        if dead_at is None and not all(alive(pid) for pid in leaders.values()):
            dead_at = (round_, limit)
        if (round_ + 1) % 50 == 0:
            print(f"{round_ + 1} restarts, {len(run.lines())} lines", flush=True)
    run.kill()
    # Once more with the least, to see that they answer in turn, then as before.
    ready, _ = run.start(args.low)
    states = collections.Counter()
    began = time.monotonic()
    half = numbers[: len(numbers) // 2]
    for number in half:
        run.cli("cancel", number)
    for number in half:
        run.cli("wait", number, check=False)
    low = time.monotonic() - began
    run.kill()
    run.start()
    for number in numbers[len(half):]:
        run.cli("cancel", number)
    run.cli("wait", *numbers, check=False)
    lost = twice = 0
    for number in numbers:
        job = json.loads(run.cli("show", number, "--json"))
        states[job["state"], job["reason"]] += 1
        lost += job["reason"] == "lost"
        twice += job["attempts"] != 1
    run.server.terminate()
    run.server.wait()
    starts = collections.Counter(n for what, n, _ in run.lines() if what == "start")
    again = sum(count - 1 for count in starts.values())
    ends = sum(what == "end" for what, _, _ in run.lines())
    times.sort()
    print(json.dumps({
        "restarts": args.restarts, "running": args.running, "lost": lost, "attempts_more": twice,
        "started_twice": again, "ends": ends, "states": {str(k): v for k, v in states.items()},
        "never_ready": never_ready, "ended_by_themselves": killed_early, "dead_at": dead_at,
        "ready_ms_median": round(1000 * times[len(times) // 2]) if times else None,
        "ready_ms_longest": round(1000 * times[-1]) if times else None,
        "half_cancelled_under_the_least_s": round(low, 1),
    }, indent=1))
    fine = not lost and not twice and not again and ends == args.running and not never_ready
    fine = fine and not killed_early and states == {("cancelled", None): args.running}
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
