"""The conversation over HTTP, with both revisions' openings and clients in two languages."""

import sys

import conversation
from conversation import nonce
from harness import CLIENTS, NODE, PYTHON, Client, Server, wait_until

# What a client negotiates: with `initialize`, and with `server/discover`.
REVISIONS = {"legacy": "2025-11-25", "auto": "2026-07-28"}


def clients(server):
    for mode in REVISIONS:
        python = [PYTHON, CLIENTS / "python_v2.py", "http", server.url, mode]
        yield mode, Client(server, f"mcp 2.3, {mode}", python)
        node = [NODE, CLIENTS / "node_http.mjs", server.url, mode]
        yield mode, Client(server, f"@modelcontextprotocol/client, {mode}", node)


def survives_a_crash(mode, agent, server):
    """The client goes on as if nothing had been."""
    server.restart()
    word = nonce()
    text = wait_until(lambda: without_connection_error(agent, word), f"{mode}: a call after the crash")
    text.accepted().must_have(word)


def without_connection_error(agent, word):
    from harness import Text

    answer = agent.ask("call", name="run", arguments={"command": f"echo {word}"})
    assert "session" not in str(answer.get("error", "")).lower(), answer
    return Text(answer) if "result" in answer else None


def main(binary):
    with Server(binary) as server:
        for mode, agent in clients(server):
            with agent:
                assert agent.negotiated["protocolVersion"] == REVISIONS[mode], agent.negotiated
                conversation.everything(agent, server)
                survives_a_crash(mode, agent, server)


if __name__ == "__main__":
    main(sys.argv[1])
