"""The conversation over HTTP, with both revisions' openings and clients in two languages."""

import sys
from itertools import product

import conversation
from conversation import nonce
from harness import CLIENTS, NODE, PYTHON, Client, Server, Text, perform, wait_until

# What a client negotiates: with `initialize`, and with `server/discover`.
REVISIONS = {"legacy": "2025-11-25", "auto": "2026-07-28"}


# `mcp` 2.3 and `@modelcontextprotocol/client` 2.4.
LANGUAGES = {
    "python": [PYTHON, CLIENTS / "python_v2.py", "http"],
    "node": [NODE, CLIENTS / "node_http.mjs"],
}


def talk(server, language, mode):
    with Client(server, f"{language}, {mode}", [*LANGUAGES[language], server.url, mode]) as agent:
        assert agent.negotiated["protocolVersion"] == REVISIONS[mode], agent.negotiated
        conversation.everything(agent, server)
        survives_a_crash(agent, server)


def survives_a_crash(agent, server):
    """The client goes on as if nothing had been."""
    server.restart()
    word = nonce()
    text = wait_until(lambda: without_connection_error(agent, word), "a call after the crash")
    text.accepted().must_have(word)


def without_connection_error(agent, word):
    answer = agent.ask("call", name="run", arguments={"command": f"echo {word}"})
    assert "session" not in str(answer.get("error", "")).lower(), answer
    return Text(answer) if "result" in answer else None


def main(binary):
    with Server(binary) as server:
        perform(*((talk, server, *how) for how in product(LANGUAGES, REVISIONS)))


if __name__ == "__main__":
    main(sys.argv[1])
