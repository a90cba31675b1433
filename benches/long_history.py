"""Makes the data directory of a server that has run for thirty days. Imported by the benches.

The large outputs, most of the bytes, are written by real jobs under a clock that is set back
(tests/fixtures/clock). The small jobs are rows that are written into the stopped server's ledger.
Needs the package `websockets`.
"""

import json
import os
import pathlib
import random
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import uuid

from websockets.sync.client import unix_connect

ROOT = pathlib.Path(__file__).resolve().parent.parent
DAYS = 30
LARGE_BYTES = 3_800_000
WORDS = "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike".split()


class Server:
    """A server on a data directory, and its log on our stderr."""

    def __init__(self, binary, data_dir):
        self.binary, self.data_dir, self.process = binary, data_dir, None

    def start(self, *options, env=None):
        """Starts it and returns after how many seconds it was ready."""
        began = time.monotonic()
        self.process = subprocess.Popen(
            [self.binary, "serve", "--listen", "none", "--data-dir", self.data_dir,
             "--log-level", "error", *options],
            stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
        line = self.process.stdout.readline()
        assert json.loads(line)["event"] == "ready", line
        return time.monotonic() - began

    def stop(self, *words):
        subprocess.run([self.binary, "stop", "--data-dir", self.data_dir, *words], check=True,
                       stdout=subprocess.DEVNULL)
        self.process.wait()

    def connect(self):
        return Session(os.path.join(self.data_dir, "server.sock"))


class Session:
    """A WebSocket session that waits for each reply."""

    def __init__(self, path):
        self.socket = unix_connect(path, "ws://localhost/ws", max_size=None, compression=None)
        self.socket.recv()
        self.number = 0

    def ask(self, method, params):
        self.number += 1
        self.socket.send(json.dumps({"jsonrpc": "2.0", "id": self.number, "method": method,
                                     "params": params}))
        while True:
            reply = json.loads(self.socket.recv())
            if reply.get("id") == self.number:
                if "error" in reply:
                    sys.exit(f"{method} {params}: {reply['error']}")
                return reply["result"]

    def notification(self):
        return json.loads(self.socket.recv())


def make(server, jobs, gigabytes, queues=2):
    """Makes the directory of a server that is not started: four fifths of the bytes are large outputs."""
    large = int(gigabytes * 0.8e9 / LARGE_BYTES)
    small_bytes = int(gigabytes * 0.2e9 / jobs)
    with tempfile.TemporaryDirectory() as home:
        names = write_large(server, home, large, queues)
    write_small(server, jobs - large, small_bytes, names)


def write_large(server, home, count, queues):
    """Real jobs with large outputs, spread over thirty days; returns the names of all queues."""
    library, shift = os.path.join(home, "shift.so"), os.path.join(home, "shift")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, f'-DSHIFT_FILE="{shift}"',
                    ROOT / "tests/fixtures/clock/shift.c"], check=True)
    pathlib.Path(shift).write_bytes(struct.pack("q", 0))
    server.start(env={"LD_PRELOAD": library})
    session = server.connect()
    names = ["default", "interactive"] + [f"queue-{n:03}" for n in range(2, queues)]
    for name in names[2:]:
        session.ask("queue.set", {"queue": name, "concurrency": 1 + len(name) % 3})
    spool = pathlib.Path(server.data_dir, "spool")
    for day in range(DAYS, 0, -1):
        back = day * 86400
        with open(shift, "r+b") as file:
            file.write(struct.pack("q", -back))
        jobs = [{"shell": f"yes 'line {n} {' '.join(WORDS)}' | head -c {LARGE_BYTES}",
                 "labels": {"team": random.choice(WORDS[:5])}}
                for n in range(count // DAYS)]
        before = set(os.listdir(spool))
        jobs = session.ask("job.submit_many", {"jobs": jobs})["jobs"]
        for at in range(0, len(jobs), 500):
            numbers = [job["number"] for job in jobs[at:at + 500]]
            assert session.ask("job.wait", {"jobs": numbers, "mode": "all"})["met"]
        then = time.time() - back
        for name in set(os.listdir(spool)) - before:
            os.utime(spool / name, (then, then))
    server.stop()
    return names


def write_small(server, count, bytes_each, queues):
    """Rows of small jobs, made after the first large one."""
    db = sqlite3.connect(os.path.join(server.data_dir, "cc-executor.db"))
    # Older versions of SQLite call NULL no valid JSON, and refuse our CHECKs.
    db.execute("PRAGMA ignore_check_constraints = ON")
    db.row_factory = sqlite3.Row
    job, attempt = (dict(db.execute(f"SELECT * FROM {table} LIMIT 1").fetchone())
                    for table in ("jobs", "attempts"))
    job.pop("stdin_length", None)
    spec = json.loads(job["spec"])
    events = [dict(row) for row in db.execute("SELECT * FROM events WHERE job = ? ORDER BY id",
                                              (job["number"],))]
    first = db.execute("SELECT max(number) FROM jobs").fetchone()[0] + 1
    now, chance = time.time_ns() // 1000, random.Random(1)
    text = " ".join(chance.choice(WORDS) for _ in range(20 * bytes_each // 6))

    def insert(table, rows):
        names = ", ".join(f'"{name}"' for name in rows[0])
        marks = ", ".join("?" * len(rows[0]))
        db.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})",
                       [tuple(row.values()) for row in rows])

    for start in range(0, count, 10_000):
        jobs, attempts, changes, chunks = [], [], [], []
        for n in range(start, min(start + 10_000, count)):
            number = first + n
            at = now - int((count - n) / count * DAYS * 86400e6)
            began = at + chance.randrange(50_000_000)
            ended = began + int(chance.expovariate(1 / 30e6))
            state, code = chance.choices(
                [("succeeded", 0), ("failed", 1), ("failed", 2), ("failed", 137),
                 ("cancelled", None)], [800, 140, 40, 10, 10])[0]
            reason = "exit_code" if state == "failed" else None
            stop = None
            if state == "cancelled":
                stop = json.dumps({"by": "cli", "cause": "cancel", "asked_at_us": ended - 20_000,
                                   "signals": ["SIGTERM"], "killed": False})
            offset = chance.randrange(len(text) - bytes_each)
            data = text[offset:offset + bytes_each].encode()
            if n % 97 == 0:
                data = data[:-8] + b" needle\n"
            name = f"{chance.choice(WORDS)}-{chance.randrange(50)}" if n % 3 else None
            jobs.append({**job, "number": number, "id": str(uuid.UUID(int=chance.getrandbits(128))),
                         "state": state, "reason": reason, "exit_code": code, "stop": stop,
                         "spec": json.dumps({**spec, "argv": None, "shell": f"make -j8 {n}"}),
                         "queue": chance.choice(queues), "name": name,
                         "labels": json.dumps({"team": chance.choice(WORDS[:5]), "run": str(n)}),
                         "submitted_at": at, "started_at": began, "finished_at": ended,
                         "output_bytes": len(data), "idempotency_key": None})
            attempts.append({**attempt, "job": number, "shim": f"s{number}", "claimed_at": began,
                             "started_at": began, "ended_at": ended, "end_offset": len(data)})
            for event, when in zip(events, (at, began, ended)):
                to = event["to_state"] if event["to_state"] != "succeeded" else state
                changes.append({**event, "id": None, "job": number, "at": when, "to_state": to,
                                "reason": reason if to == "failed" else None})
            chunks.append({"job": number, "offset": 0, "length": len(data), "attempt": 1,
                           "stream": "stdout", "at": ended, "gap": None, "data": data})
        insert("jobs", jobs)
        insert("attempts", attempts)
        insert("events", changes)
        insert("output_chunks", chunks)
        db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
