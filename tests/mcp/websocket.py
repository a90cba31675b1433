"""MCP over a WebSocket: the conversation with two clients, then what a client could do to the others."""

import asyncio
import functools
import json
import socket
import sys
import time

import websockets

import conversation
from conversation import nonce
from harness import CEILING, CLIENTS, NODE, PYTHON_WS, Client, Server, perform

# Longest message, bytes; close code of a longer one.
MESSAGE_BYTES_MAX = 1 << 20
TOO_BIG = 1009
# Calls whose answers a client does not read, and the bytes that it has room for.
UNREAD = 2_000
ROOM_BYTES = 4_096
# How much memory that may cost the server, bytes.
DEAF_MEMORY = 100_000_000
# Longest time that another session's call may take meanwhile, seconds.
SWIFT = 5.0


def python(server):
    return Client(server, "mcp[ws] 1.30", [PYTHON_WS, CLIENTS / "python_ws.py", server.ws_url])


def node(server):
    return Client(server, "@modelcontextprotocol/sdk", [NODE, CLIENTS / "node_ws.mjs", server.ws_url])


async def connect(server, path="/ws/mcp", token=True, **options):
    headers = {"Authorization": f"Bearer {server.token}"} if token else {}
    return await websockets.connect(
        f"ws://{server.listen}{path}", additional_headers=headers, subprotocols=["mcp"], proxy=None,
        max_size=4 * MESSAGE_BYTES_MAX, **options,
    )


async def request(link, request_id, method, params):
    await link.send(json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}))


async def reply(link, request_id):
    while (message := json.loads(await link.recv())).get("id") != request_id:
        assert "method" in message, message
    return message


async def opened(server, **options):
    link = await connect(server, **options)
    assert link.subprotocol == "mcp", link.subprotocol
    info = {"name": "raw", "version": "1"}
    opening = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
    await request(link, 0, "initialize", opening)
    # No greeting: the first message is the answer.
    first = json.loads(await link.recv())
    assert first["id"] == 0 and first["result"]["protocolVersion"] == "2025-11-25", first
    await link.send(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}))
    return link


async def run(link, request_id, command, **arguments):
    call = {"name": "run", "arguments": {"command": command, **arguments}}
    await request(link, request_id, "tools/call", call)
    return (await reply(link, request_id))["result"]["content"][0]["text"]


async def both_paths_and_the_guards(server):
    for path in ("/ws", "/ws/mcp"):
        async with await opened(server, path=path) as link:
            word = nonce()
            assert word in await run(link, 1, f"echo {word}")
    try:
        await connect(server, token=False)
        raise AssertionError("a client without a token was let in")
    except websockets.InvalidStatus as refused:
        assert refused.response.status_code == 401, refused
    for origin in ("http://evil.example", "null"):
        try:
            await connect(server, origin=origin)
            raise AssertionError(f"{origin} was let in")
        except websockets.InvalidStatus as refused:
            assert refused.response.status_code == 403, refused


async def ten_megabytes_close_only_their_session(server):
    async with await opened(server) as other:
        link = await opened(server)
        call = {"name": "run", "arguments": {"command": "true " + "x" * 10_000_000}}
        try:
            await request(link, 1, "tools/call", call)
            await link.recv()
            raise AssertionError("10 MB were taken")
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd is None or closed.rcvd.code == TOO_BIG, closed
        word = nonce()
        assert word in await run(other, 1, f"echo {word}")


async def a_client_that_never_reads(server):
    async with await opened(server) as other:
        word = nonce()
        await run(other, 1, f"seq -f 'line %.0f of {word}' 20000", name=word, wait_s=30)
        before = server.resident_bytes()
        deaf = await opened(server, sock=narrow(server), max_queue=1)
        arguments = {"job": word, "max_chars": 9500}
        try:
            for number in range(UNREAD):
                call = request(deaf, number + 1, "tools/call", {"name": "read_output", "arguments": arguments})
                await asyncio.wait_for(call, 2)
        except (TimeoutError, websockets.ConnectionClosed):
            pass  # the server takes no more from it
        for number in range(5):
            began = time.monotonic()
            alive = nonce()
            assert alive in await run(other, 10 + number, f"echo {alive}")
            assert time.monotonic() - began < SWIFT, "another session had to wait"
        grown = server.resident_bytes() - before
        assert grown < DEAF_MEMORY, f"{grown} bytes more"
        deaf.transport.abort()


def narrow(server):
    """A connection into which hardly anything fits that nobody reads."""
    host, port = server.listen.rsplit(":", 1)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM_BYTES)
    connection.connect((host, int(port)))
    connection.setblocking(False)
    return connection


async def concurrent_calls_answer_as_they_end(server):
    async with await opened(server) as link:
        slow, fast = nonce(), nonce()
        for request_id, command in ((1, f"sleep 2; echo {slow}"), (2, f"echo {fast}")):
            call = {"name": "run", "arguments": {"command": command, "wait_s": 20}}
            await request(link, request_id, "tools/call", call)
        first = json.loads(await link.recv())
        assert first["id"] == 2 and fast in json.dumps(first), first
        assert slow in json.dumps(await reply(link, 1))


CASES = [
    both_paths_and_the_guards,
    concurrent_calls_answer_as_they_end,
    ten_megabytes_close_only_their_session,
    a_client_that_never_reads,
]


def talk(client, server):
    with client(server) as agent:
        conversation.everything(agent, server)


def asynchronous(case):
    @functools.wraps(case)
    def run_it(server):
        asyncio.run(asyncio.wait_for(case(server), 2 * CEILING))

    return run_it


def main(binary):
    with Server(binary) as server:
        talks = [(talk, client, server) for client in (python, node)]
        perform(*talks, *((asynchronous(case), server) for case in CASES))


if __name__ == "__main__":
    main(sys.argv[1])
