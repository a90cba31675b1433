"""`cc-executor mcp` with the package `mcp`: the conversation, and a server that is killed during a call."""

import json
import os
import signal
import subprocess
import sys
import time

import conversation
from conversation import nonce
from harness import CEILING, CLIENTS, PYTHON, Client, Server, Text, perform, wait_until

# Longest time after its client's end in which the process ends, seconds.
END_S = 5.0


def client(server):
    command = [PYTHON, CLIENTS / "python_v2.py", "stdio", server.binary, "mcp", "--data-dir", server.data_dir]
    return Client(server, "mcp over stdio", command)


def a_call_is_answered_after_a_restart(server):
    """Its user starts the server again, after a crash and after a planned stop."""
    with client(server) as agent:
        word = call_in_flight(server, agent)
        server.restart()
        is_answered(server, agent, word)
        word = call_in_flight(server, agent)
        server.cli("stop")
        server.process.wait(CEILING)
        server.start()
        is_answered(server, agent, word)


def a_client_starts_the_server_it_needs(server):
    """At its first connection, and again when that server is killed during a call."""
    server.cli("stop")
    with client(server) as agent:
        word = nonce()
        agent.call("run", command=f"echo {word}; pwd").accepted().must_have(word, server.home)
        word = call_in_flight(server, agent)
        os.kill(json.loads(server.cli("status", "--json"))["pid"], signal.SIGKILL)
        is_answered(server, agent, word)


def call_in_flight(server, agent):
    """Asks for a job of some seconds, whose command has this word, and returns once it is there."""
    word = nonce()
    arguments = {"command": f"sleep 2; echo {word}", "wait_s": 30}
    agent.send({"op": "call", "name": "run", "arguments": arguments})
    wait_until(lambda: server.jobs_with(word), "the job is there")
    return word


def is_answered(server, agent, word):
    """The one job's end reaches the client, by the calls that the texts name."""
    Text(agent.answer()).follow(agent, "succeeded")[-1].must_have(word)
    assert len(server.jobs_with(word)) == 1, server.jobs_with(word)


def nothing_but_the_protocol_is_on_stdout(server):
    word = nonce()
    requests = [
        {"id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {},
                                                     "clientInfo": {"name": "raw", "version": "1"}}},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "run", "arguments": {
            "command": f"sleep 600; echo {word}", "wait_s": 0.1}}},
    ]
    process = subprocess.Popen([server.binary, "mcp", "--data-dir", server.data_dir], text=True, env=server.environment(),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for request in requests:
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **request}) + "\n")
    process.stdin.write("not json\n")
    process.stdin.flush()
    answers = {}
    while not {1, 2} <= answers.keys():
        message = json.loads(process.stdout.readline())
        assert message["jsonrpc"] == "2.0", message
        answers[message.get("id")] = message
    assert answers[1]["result"]["protocolVersion"] == "2025-06-18", answers[1]
    began = time.monotonic()
    rest, errors = process.communicate(timeout=CEILING)
    for line in rest.splitlines():
        assert json.loads(line)["jsonrpc"] == "2.0", line
    assert process.returncode == 0, (process.returncode, errors)
    assert time.monotonic() - began < END_S
    # The end of a client is none of its job's.
    assert [job["state"] for job in server.jobs_with(word)] == ["running"]


CASES = [
    nothing_but_the_protocol_is_on_stdout,
    a_call_is_answered_after_a_restart,
    a_client_starts_the_server_it_needs,
]


def talk(server):
    with client(server) as agent:
        conversation.everything(agent, server)


def main(binary):
    with Server(binary) as server:
        perform((talk, server), *((case, server) for case in CASES))


if __name__ == "__main__":
    main(sys.argv[1])
