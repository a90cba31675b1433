#!/usr/bin/env python3
"""Holds a conversation with a long-running agent through one job, and survives a lost connection.

    cc-executor serve --listen 127.0.0.1:8003 &
    python3 examples/conversation.py ws://127.0.0.1:8003/ws "$(cc-executor token)"

The agent is `stream_json_stand_in.py` beside this file; give another command behind the token to
talk to it instead, for example `claude -p --input-format stream-json --output-format stream-json
--verbose`. Needs the library `websockets` (`pip install websockets`).

Three things make it safe to lose the connection at any moment:

- `job.submit` has an `idempotency_key`: submitting again returns the same job;
- `job.input` has a `write_id`: sending again does not write twice;
- `job.tail` begins at the offset behind the last byte that was seen.

So every step can simply be repeated on a new connection.
"""

import base64
import contextlib
import hashlib
import json
import os
import socket
import sys
import time
import uuid

from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.sync.client import connect

HERE = os.path.dirname(os.path.abspath(__file__))
STAND_IN = [sys.executable, os.path.join(HERE, "stream_json_stand_in.py")]
# A connection that broke, or was never made because the server is just restarting.
LOST = (ConnectionClosed, InvalidMessage, OSError)
# How long a lost server is waited for, from the loss on.
PATIENCE_S = 60.0


class Refused(Exception):
    """The server answered with an error: repeating the same request would not help."""


class Session:
    """One connection: requests, and the notifications that arrive beside their replies."""

    def __init__(self, url, token):
        headers = {"Authorization": f"Bearer {token}"}
        self.stack = contextlib.ExitStack()
        self.socket = self.stack.enter_context(
            connect(url, additional_headers=headers, proxy=None, close_timeout=1,
                    max_size=None))  # the server has a bound of its own: message_bytes_max
        self.notices = []
        self.next_id = 1
        json.loads(self.socket.recv())  # server.hello

    def call(self, method, **params):
        request = {"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params}
        self.next_id += 1
        self.socket.send(json.dumps(request))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") != request["id"]:
                self.notices.append(message)
            elif "error" in message:
                raise Refused(f"{method}: {message['error']['message']}")
            else:
                return message["result"]

    def notice(self):
        return self.notices.pop(0) if self.notices else json.loads(self.socket.recv())

    def lose(self):
        """What a closed laptop does: no close frame, no goodbye."""
        self.socket.socket.shutdown(socket.SHUT_RDWR)


class Conversation:
    """One agent, one job, any number of connections."""

    def __init__(self, url, token, argv):
        self.url, self.token = url, token
        self.session = None
        self.job = None
        self.new_job = {
            "argv": argv, "interactive": True, "name": "conversation",
            "idempotency_key": str(uuid.uuid4()),
        }
        self.offset = 0  # the first byte that has not been seen
        self.line = b""  # what has been seen of the line that is being written
        self.digest = hashlib.sha256()
        self.end = None

    def once(self, step):
        """Does a step on a living session; on a lost one it is done again on the next."""
        patience = None
        while True:
            try:
                if self.session is None:
                    self.session = self.resume()
                return step(self.session)
            except LOST:
                if patience is None:
                    patience = time.monotonic() + PATIENCE_S
                elif time.monotonic() > patience:
                    raise
                if self.session is not None:
                    print("  (the connection is lost)")
                self.close()
                time.sleep(0.2)

    def close(self):
        session, self.session = self.session, None
        if session is not None:
            with contextlib.suppress(*LOST):
                session.stack.close()

    def resume(self):
        session = Session(self.url, self.token)
        if self.job is None:
            self.job = session.call("job.submit", **self.new_job)["job"]["id"]
        session.call("job.tail", job=self.job, **{"from": self.offset})
        if self.offset > 0:
            print(f"  (connected again, reading on at byte {self.offset})")
        return session

    def say(self, text):
        print(f"> {text}")
        content = [{"type": "text", "text": text}]
        line = json.dumps({"type": "user", "message": {"role": "user", "content": content}})
        self.write(line + "\n")

    def write(self, data, eof=False):
        write_id = str(uuid.uuid4())
        self.once(lambda session: session.call(
            "job.input", job=self.job, data=data, eof=eof, write_id=write_id))

    def messages(self):
        """What the agent says, line by line, until it ends."""
        while self.end is None:
            notice = self.once(Session.notice)
            params = notice.get("params", {})
            if notice["method"] == "job.end":
                self.end = params["job"]
            elif notice["method"] == "job.output":
                *lines, self.line = (self.line + self.take(params)).split(b"\n")
                yield from (json.loads(line) for line in lines if line.strip())

    def take(self, params):
        if "data" in params:
            data = params["data"].encode()
        else:
            data = base64.b64decode(params["data_base64"])
        self.offset = params["next_offset"]
        self.digest.update(data)
        if params["stream"] == "stderr":
            sys.stderr.buffer.write(data)
            return b""
        return data


def main(url, token, *argv):
    talk = Conversation(url, token, list(argv) or STAND_IN)
    messages = talk.messages()

    def answer(question, lose_after=None):
        talk.say(question)
        said = 0
        for message in messages:
            if message["type"] == "assistant":
                for block in message["message"]["content"]:
                    print(f"< {block.get('text', block['type'])}")
                said += 1
                if said == lose_after:
                    talk.session.lose()
            elif message["type"] == "result":
                return message["result"]
        raise SystemExit(f"the agent ended instead of answering: {talk.end['state']}")

    answer("Remember that the colour is blue.")
    answer("Count to 8.", lose_after=3)
    answer("What is the colour?")
    talk.write("", eof=True)
    for message in messages:
        print(f"< {message}")
    job = talk.end
    talk.close()
    whole = job["output_sha256"] == talk.digest.hexdigest()
    print(f"job {job['number']} {job['state']}, {job['output_bytes']} bytes, "
          f"{'every one of them seen once' if whole else 'NOT the bytes that were seen'}")
    return 0 if whole and job["state"] == "succeeded" else 1


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
