"""The HTTP door without a client: what must be there, what is refused, and what nobody else notices."""

import http.client
import json
import sys
import time

from conversation import nonce
from harness import CEILING, Server, perform
from raw_http import Http, initialize, raw, session

# More than the longest message that the server takes, bytes.
TOO_LONG = 10_000_000
# How many clients never read, and how much memory they may cost the server, bytes.
DEAF = 40
DEAF_MEMORY = 300_000_000
# Longest time that another session's call may take meanwhile, seconds.
SWIFT = 5.0


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
    ten_megabytes_are_refused,
    clients_that_never_read,
]


def main(binary):
    with Server(binary) as server:
        perform(*((case, server) for case in CASES))


if __name__ == "__main__":
    main(sys.argv[1])
