#!/usr/bin/env python3
"""A runaway job, measured: how fast it goes, what it costs, and how much of it lies on the disk.

    benches/runaway.py BINARY [--seconds 60] [--max 64M] [--policy drop-oldest] [--where DIR]

It starts a server of its own, runs `yes` under a bound, samples the memory of server and shim and
the size of the data directory, and ends with what the job says of itself. It uses nothing but the
command line and /proc.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import time

EVERY_S = 0.05


def files_bytes(directory):
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            pass
    return total


def cpu_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def shim_of(job):
    """The shim is the parent of the job's leader, which carries the job's id."""
    mark = f"CC_EXECUTOR_JOB_ID={job}\0".encode()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes() + b"\0":
                status = (process / "status").read_text()
                return int(status.split("PPid:\t")[1].split()[0])
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            pass
    return None


class Sampled:
    """One process over the time of the measurement."""

    def __init__(self, pid):
        self.pid, self.cpu_before, self.rss = pid, cpu_s(pid), []

    def sample(self):
        self.rss.append(rss_bytes(self.pid))

    def figures(self, seconds):
        middle = len(self.rss) // 2
        return {
            "cpu_percent": round(100 * (cpu_s(self.pid) - self.cpu_before) / seconds, 1),
            "rss_max_first_half": max(self.rss[:middle]),
            "rss_max_second_half": max(self.rss[middle:]),
        }


def measure(cli, data, server, args):
    job = cli("submit", "--max-output", args.max, "--when-full", args.policy, "--", *args.command)
    shim = None
    while shim is None:
        shim = shim_of(job)
        time.sleep(EVERY_S)
    server = Sampled(server)
    shim = Sampled(shim)
    begun, most = time.monotonic(), 0
    while time.monotonic() < begun + args.seconds:
        most = max(most, files_bytes(data))
        server.sample()
        shim.sample()
        time.sleep(EVERY_S)
    seconds = time.monotonic() - begun
    figures = {"server": server.figures(seconds), "shim": shim.figures(seconds)}
    cli("cancel", job)
    cli("wait", job)
    end = json.loads(cli("show", "--json", job))
    return {
        "seconds": round(seconds, 1),
        "mib_per_s": round(end["output_bytes"] / seconds / 2**20),
        "most_on_disk": most,
        **figures,
        **{key: end[key] for key in ("state", "output_bytes", "dropped_bytes", "dropped_lines")},
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--max", default="64M")
    parser.add_argument("--policy", default="drop-oldest")
    parser.add_argument("--where", default=None)
    parser.add_argument("command", nargs="*", default=["yes"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.where) as place:
        data = pathlib.Path(place, "data")
        serve = [args.binary, "serve", "--listen", "none", "--data-dir", data]
        server = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        server.stdout.readline()

        def cli(verb, *words):
            line = [args.binary, verb, "--data-dir", data, *words]
            return subprocess.run(line, stdout=subprocess.PIPE, text=True).stdout.strip()

        try:
            print(json.dumps(measure(cli, data, server.pid, args), indent=1))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
