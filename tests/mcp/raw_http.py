"""Requests to `/mcp` without a client in between: every header and every byte is the test's own."""

import http.client
import json
import socket

from harness import CEILING

# The newest revision that has sessions.
LEGACY = "2025-11-25"


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


def raw(server, client, data, length=None):
    """A request on a socket of its own, whose answer is not read."""
    host, port = server.listen.rsplit(":", 1)
    opened = socket.create_connection((host, int(port)), CEILING)
    headers = {"Host": server.listen, "Content-Length": str(length or len(data)), **client.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    opened.sendall(f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + data)
    return opened
