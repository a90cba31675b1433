"""A client written from the documented protocol alone: asyncio and the library `websockets`.

It starts the binary that it is given, submits a job that works for some seconds, and reads it from
offset 0 while it drops its own connection five times and kills the server with SIGKILL twice. Its
SHA-256 must be that of `job.end` and that of a download by `job.read`, for text and for binary
frames. It knows nothing of how the program is built.
"""

import asyncio
import base64
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time

import websockets

CEILING = 60.0
DROPS = 5
KILLS = 2


class Server:
    """The binary under test on a data directory of its own."""

    def __init__(self, binary, home):
        self.binary = binary
        self.data_dir = os.path.join(home, "data")
        self.log = open(os.path.join(home, "stderr"), "ab")
        self.process = None
        self.ready = None

    def start(self):
        command = [self.binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", self.data_dir]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline()
        assert line, "the server ended before it was ready"
        self.ready = json.loads(line)
        assert self.ready["event"] == "ready", line

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(CEILING)
        assert code == 0, f"a planned stop ended with {code}"
        assert time.monotonic() - began < 5, "a planned stop took too long"

    def token(self):
        with open(self.ready["token_file"], encoding="ascii") as file:
            return file.read().strip()


class Session:
    """One connection: requests and what arrives beside their replies."""

    def __init__(self, socket):
        self.socket = socket
        self.next_id = 1
        self.inbox = []

    @classmethod
    async def open(cls, server):
        headers = {"Authorization": f"Bearer {server.token()}"}
        url = f"ws://{server.ready['listen']}/ws"
        socket = await websockets.connect(
            url, additional_headers=headers, max_size=1 << 20, proxy=None
        )
        hello = json.loads(await socket.recv())
        assert hello["method"] == "server.hello", hello
        assert hello["params"]["auth"] == "ok", hello
        return cls(socket)

    async def call(self, method, **params):
        request_id = self.next_id
        self.next_id += 1
        request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        await self.socket.send(json.dumps(request))
        while True:
            message = await self.receive()
            if isinstance(message, dict) and "method" not in message:
                assert message["id"] == request_id, message
                assert "error" not in message, message
                return message["result"]
            self.inbox.append(message)

    async def event(self):
        return self.inbox.pop(0) if self.inbox else await self.receive()

    async def receive(self):
        message = await asyncio.wait_for(self.socket.recv(), CEILING)
        return json.loads(message) if isinstance(message, str) else message


class Reader:
    """Assembles a job's output over any number of connections."""

    def __init__(self, encoding=None):
        self.options = {} if encoding is None else {"encoding": encoding}
        self.offset = 0
        self.digest = hashlib.sha256()
        self.end = None

    def take(self, offset, data):
        assert offset == self.offset, f"offset {offset} instead of {self.offset}"
        self.offset += len(data)
        self.digest.update(data)

    def take_event(self, event):
        if isinstance(event, bytes):
            (_, stream, zero, attempt, also_zero, at, offset) = struct.unpack_from("<IB3sIIQQ", event)
            assert stream in (0, 1) and zero == b"\0\0\0" and also_zero == 0, event[:32]
            assert attempt == 1 and at > 0, event[:32]
            self.take(offset, event[32:])
            return
        params = event["params"]
        if event["method"] == "job.output":
            if "data" in params:
                data = params["data"].encode()
            else:
                data = base64.b64decode(params["data_base64"], validate=True)
            assert params["next_offset"] == params["offset"] + len(data), params
            self.take(params["offset"], data)
        elif event["method"] == "job.end":
            self.end = params["job"]
        else:
            assert event["method"] in ("job.state", "job.caught_up"), event

    async def read(self, session, job, until):
        """Reads until so many bytes are there, or the end."""
        await session.call("job.tail", job=job, **{"from": self.offset}, **self.options)
        while self.end is None and self.offset < until:
            self.take_event(await session.event())


async def follow_with_interruptions(server, job, reader, step):
    """Every `step` bytes the connection is dropped or the server is killed."""
    interruptions = ["drop", "drop", "kill", "drop", "kill", "drop", "drop"]
    assert interruptions.count("drop") == DROPS and interruptions.count("kill") == KILLS
    for number, interruption in enumerate(interruptions, start=1):
        session = await Session.open(server)
        await reader.read(session, job, number * step)
        assert reader.end is None, "the job ended before it could be interrupted"
        if interruption == "kill":
            server.kill()
            server.start()
        session.socket.transport.abort()
    session = await Session.open(server)
    await reader.read(session, job, float("inf"))
    await session.socket.close()


async def download(session, job):
    digest = hashlib.sha256()
    offset = 0
    while True:
        reply = await session.call("job.read", job=job, max_bytes=500_000, **{"from": offset})
        for chunk in reply["chunks"]:
            assert chunk["offset"] == offset, chunk["offset"]
            text = chunk.get("data")
            data = base64.b64decode(chunk["data_base64"]) if text is None else text.encode()
            offset = chunk["next_offset"]
            digest.update(data)
        assert reply["next_offset"] == offset
        if reply.get("end"):
            return digest.hexdigest()


async def interrupted_tail(server, encoding):
    # About seven seconds of text and bytes on both streams, 2.8 MB: several megabytes of records.
    line = (
        "i=0; while [ $i -lt 700 ]; do i=$((i+1)); "
        "printf 'Zeile %s: grüße\\n' $i; head -c 4000 /dev/urandom; "
        "printf 'err %s\\n' $i >&2; sleep 0.01; done; exit 5"
    )
    session = await Session.open(server)
    reply = await session.call("job.submit", shell=line)
    job = reply["job"]["id"]
    await session.socket.close()
    reader = Reader(encoding)
    await follow_with_interruptions(server, job, reader, 300_000)
    assert reader.end["state"] == "failed", reader.end
    assert reader.end["exit_code"] == 5, reader.end
    assert reader.end["attempts"] == 1, reader.end
    assert reader.end["output_bytes"] == reader.offset
    assert reader.end["output_sha256"] == reader.digest.hexdigest()
    session = await Session.open(server)
    assert await download(session, job) == reader.digest.hexdigest()
    await session.socket.close()
    print(f"ok: {encoding or 'text'}: {reader.offset} bytes over {DROPS} drops and {KILLS} kills")


async def keep_alive(server):
    """A client that says nothing answers pings by itself and keeps its connection."""
    session = await Session.open(server)
    latency = await asyncio.wait_for(await session.socket.ping(), CEILING)
    assert latency >= 0
    await session.socket.close()
    print("ok: ping and pong")


async def main():
    with tempfile.TemporaryDirectory(prefix="cc-executor-python-") as home:
        server = Server(os.path.abspath(sys.argv[1]), home)
        server.start()
        try:
            await keep_alive(server)
            await interrupted_tail(server, None)
            await interrupted_tail(server, "binary")
            server.stop()
        except BaseException:
            server.kill()
            with open(os.path.join(home, "stderr"), encoding="utf-8", errors="replace") as log:
                sys.stderr.write(log.read()[-8000:])
            raise
    print("conformance: ok")


if __name__ == "__main__":
    asyncio.run(main())
