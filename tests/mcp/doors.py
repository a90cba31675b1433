"""The HTTP door without a client: what must be there, what is refused, and what nobody else notices."""

import http.client
import json
import socket
import sys
import threading
import time

from conversation import nonce
from harness import CEILING, Server, wait_until

LEGACY = "2025-11-25"
# More than the longest message that the server takes, bytes.
TOO_LONG = 10_000_000
# How many clients never read, and how much memory they may cost the server, bytes.
DEAF = 40
DEAF_MEMORY = 300_000_000
# Longest time that another session's call may take meanwhile, seconds.
SWIFT = 5.0


class Http:
    """Requests to `/mcp` whose headers are the test's own."""

    def __init__(self, server, token=True, **headers):
        self.server = server
        self.headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        if token:
            self.headers["Authorization"] = f"Bearer {server.token}"
        self.headers |= headers
        self.next_id = 1

    def send(self, method, body=None, **headers):
        """Status, headers and body of the answer."""
        host, port = self.server.listen.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=CEILING)
        merged = {**self.headers, **{key.replace("_", "-"): value for key, value in headers.items()}}
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, "/mcp", data, {k: v for k, v in merged.items() if v is not None})
        answer = connection.getresponse()
        try:
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def request(self, method, params, **headers):
        """The JSON-RPC reply, from a body or from a stream of events."""
        body = {"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params}
        self.next_id += 1
        status, got, data = self.send("POST", body, **headers)
        assert status == 200, (status, data)
        return reply(body["id"], data), got

    def call(self, tool, **arguments):
        answer, _ = self.request("tools/call", {"name": tool, "arguments": arguments})
        return answer["result"]["content"][0]["text"]


def reply(request_id, data):
    text = data.decode()
    events = [line[5:] for line in text.splitlines() if line.startswith("data:")]
    for message in [json.loads(event) for event in events if event.strip()] if events else [json.loads(text)]:
        if message.get("id") == request_id:
            return message
    raise AssertionError(f"no reply to {request_id} in {text!r}")


def initialize(**client_info):
    return {
        "protocolVersion": LEGACY,
        "capabilities": {},
        "clientInfo": {"name": "doors", "version": "1"} | client_info,
    }


def session(server, **headers):
    """A session of the revisions that have them."""
    client = Http(server, **headers)
    answer, got = client.request("initialize", initialize())
    assert answer["result"]["protocolVersion"] == LEGACY, answer
    client.headers["Mcp-Session-Id"] = got["mcp-session-id"]
    client.headers["MCP-Protocol-Version"] = LEGACY
    status, _, data = client.send("POST", {"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert status == 202, (status, data)
    return client


def a_missing_version_is_the_negotiated_one(server):
    client = session(server)
    del client.headers["MCP-Protocol-Version"]
    word = nonce()
    assert word in client.call("run", command=f"echo {word}")


def guards_are_those_of_the_other_doors(server):
    opening = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": initialize()}
    client = Http(server)
    for refused in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        status, _, data = client.send("POST", opening, **refused)
        assert status == 403, (refused, status, data)
    for token in (None, "Bearer wrong", "Basic d3Jvbmc=", "Bearer "):
        status, got, data = client.send("POST", opening, Authorization=token)
        assert status == 401, (token, status, data)
        assert got["www-authenticate"].startswith("Bearer"), dict(got)
    status, _, data = client.send("POST", opening, Origin=f"http://{server.listen}")
    assert status == 200, (status, data)
    # Without a token there is no other method either.
    for method in ("GET", "DELETE"):
        status, _, _ = client.send(method, Authorization=None, Mcp_Session_Id="x")
        assert status == 401, (method, status)
    # A session is no token: another session's id without the token opens nothing.
    known = session(server).headers["Mcp-Session-Id"]
    status, _, _ = client.send("POST", opening, Authorization=None, Mcp_Session_Id=known)
    assert status == 401, status


def sessions_end_when_their_client_says_so(server):
    client = session(server)
    status, _, data = client.send("DELETE")
    assert 200 <= status < 300, (status, data)
    body = {"jsonrpc": "2.0", "id": 9, "method": "tools/list", "params": {}}
    status, _, data = client.send("POST", body)
    assert status == 404, (status, data)
    status, _, data = client.send("POST", body, Mcp_Session_Id="never-there")
    assert status == 404, (status, data)


def a_session_survives_a_crash(server):
    client = session(server)
    word = nonce()
    assert word in client.call("run", command=f"echo {word}")
    server.restart()
    after = nonce()
    assert after in client.call("run", command=f"echo {after}")
    # The session ended by its client stays ended.
    client.send("DELETE")
    server.restart()
    body = {"jsonrpc": "2.0", "id": 9, "method": "tools/list", "params": {}}
    status, _, data = client.send("POST", body)
    assert status == 404, (status, data)


def the_same_call_is_one_job(server):
    """A client that lost the reply sends its call again, by the same id of its own."""
    client = session(server)
    word = nonce()
    call = {
        "name": "run",
        "arguments": {"command": f"sleep 1; echo {word}", "wait_s": 20},
        "_meta": {"claudecode/toolUseId": f"toolu_{word}"},
    }
    lost = threading.Thread(target=ignoring_loss, args=(client, call))
    lost.start()
    wait_until(lambda: server.jobs_with(word), "the job is there")
    server.restart()
    lost.join()
    answer, _ = client.request("tools/call", call)
    assert word in answer["result"]["content"][0]["text"], answer
    # Explicit keys hold in every session.
    keyed = nonce()
    again = {"command": f"echo {keyed}", "idempotency_key": keyed}
    first = client.call("run", **again)
    other = session(server).call("run", **again)
    assert first.split(",")[0] == other.split(",")[0], (first, other)
    for text in (word, keyed):
        assert len(server.jobs_with(text)) == 1, server.jobs_with(text)


def ignoring_loss(client, call):
    try:
        client.request("tools/call", call)
    except (AssertionError, OSError, http.client.HTTPException):
        pass


def a_repeated_command_names_the_first_job(server):
    """The same command again, while the first runs and nobody was told of it."""
    client = session(server)
    word = nonce()
    command = f"sleep 600; echo {word}"
    opened = abandoned(server, client, {"command": command, "wait_s": 40})
    job = wait_until(lambda: server.jobs_with(word), "the job is there")[0]["number"]
    opened.close()
    text = wait_until(lambda: named(client, command, job), "the second run names the first job")
    assert len(server.jobs_with(word)) == 1, text
    client.call("control", job=job, action="kill")


def named(client, command, job):
    text = client.call("run", command=command, wait_s=0.1)
    return text if f"job {job}" in text else None


def abandoned(server, client, arguments):
    """A call whose client is about to leave: the connection, with the answer still to come."""
    client.next_id += 1
    body = {"jsonrpc": "2.0", "id": client.next_id, "method": "tools/call",
            "params": {"name": "run", "arguments": arguments}}
    return raw(server, client, json.dumps(body).encode())


def raw(server, client, data, length=None):
    """A request on a socket of its own, whose answer is not read."""
    host, port = server.listen.rsplit(":", 1)
    opened = socket.create_connection((host, int(port)), CEILING)
    headers = {"Host": server.listen, "Content-Length": str(length or len(data)), **client.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    opened.sendall(f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + data)
    return opened


def ten_megabytes_are_refused(server):
    client, other = session(server), session(server)
    body = {"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {
        "name": "run", "arguments": {"command": "true " + "x" * TOO_LONG}}}
    began = time.monotonic()
    status, _, data = oversized(server, client, json.dumps(body).encode())
    assert status == 413, (status, data)
    assert len(data) > 20, f"a text that says what to do, not {data!r}"
    word = nonce()
    assert word in other.call("run", command=f"echo {word}")
    assert time.monotonic() - began < CEILING
    word = nonce()
    assert word in client.call("run", command=f"echo {word}"), "the session goes on"


def oversized(server, client, data):
    """Sends as much as the server takes, then reads its answer."""
    host, port = server.listen.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=CEILING)
    connection.putrequest("POST", "/mcp")
    for name, value in (client.headers | {"Content-Length": str(len(data))}).items():
        connection.putheader(name, value)
    connection.endheaders()
    try:
        connection.send(data)
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before the end: the answer is there already
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def clients_that_never_read(server):
    """They cost the others no time and the server no memory worth mentioning."""
    other = session(server)
    word = nonce()
    other.call("run", command=f"seq -f 'line %.0f of {word}' 100000", name=word, wait_s=30)
    before = server.resident_bytes()
    deaf = [session(server) for _ in range(4)]
    sockets = []
    for number in range(DEAF):
        client = deaf[number % len(deaf)]
        call = {"jsonrpc": "2.0", "id": 1000 + number, "method": "tools/call", "params": {
            "name": "read_output", "arguments": {"job": word, "max_chars": 9_500}}}
        sockets.append(raw(server, client, json.dumps(call).encode()))
    for _ in range(5):
        began = time.monotonic()
        alive = nonce()
        assert alive in other.call("run", command=f"echo {alive}")
        assert time.monotonic() - began < SWIFT, "another session had to wait"
    grown = server.resident_bytes() - before
    assert grown < DEAF_MEMORY, f"{grown} bytes more"
    for opened in sockets:
        opened.close()
    alive = nonce()
    assert alive in deaf[0].call("run", command=f"echo {alive}"), "their sessions go on"


def a_cancel_of_an_answered_call_is_ignored(server):
    client = session(server)
    word = nonce()
    text = client.call("run", command=f"sleep 600; echo {word}", wait_s=0.1)
    for request_id in (client.next_id - 1, 4711):
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}
        status, _, data = client.send("POST", cancelled)
        assert status == 202, (status, data)
    assert "running" in client.call("read_output", job=int(text.split()[1]))
    client.call("control", job=int(text.split()[1]), action="kill")


def malformed_requests_are_answered(server):
    client = session(server)
    for body in (b"{", b"[]", b'"text"', b'{"jsonrpc": "2.0", "id": 1}', b"\xff\xfe"):
        opened = raw(server, client, body)
        answer = opened.recv(1 << 16).decode(errors="replace")
        assert answer.startswith("HTTP/1.1 4"), (body, answer[:200])
        opened.close()
    word = nonce()
    assert word in client.call("run", command=f"echo {word}")


CASES = [
    a_missing_version_is_the_negotiated_one,
    guards_are_those_of_the_other_doors,
    sessions_end_when_their_client_says_so,
    a_cancel_of_an_answered_call_is_ignored,
    malformed_requests_are_answered,
    a_repeated_command_names_the_first_job,
    ten_megabytes_are_refused,
    clients_that_never_read,
    the_same_call_is_one_job,
    a_session_survives_a_crash,
]


def main(binary):
    with Server(binary) as server:
        for case in CASES:
            case(server)


if __name__ == "__main__":
    main(sys.argv[1])
