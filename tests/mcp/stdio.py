"""`cc-executor mcp` with the package `mcp`: the conversation, and a server that is killed during a call."""

import json
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


def a_call_is_answered_after_a_kill(server):
    """Nobody starts the server again but the process of the client itself."""
    with client(server) as agent:
        word = nonce()
        command = f"sleep 3; echo {word}"
        agent.send({"op": "call", "name": "run", "arguments": {"command": command, "wait_s": 30}})
        wait_until(lambda: server.jobs_with(word), "the job is there")
        server.kill()
        text = Text(agent.answer())
        text.follow(agent, f"succeeded")[-1].must_have(word)
        assert len(server.jobs_with(word)) == 1, server.jobs_with(word)
        # An idle client does not notice a restart either.
        server.cli("stop")
        after = nonce()
        agent.call("run", command=f"echo {after}").accepted().must_have(after)


def a_first_client_starts_the_server(server):
    server.cli("stop")
    with client(server) as agent:
        word = nonce()
        agent.call("run", command=f"echo {word}; pwd").accepted().must_have(word, server.home)


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
    a_call_is_answered_after_a_kill,
    a_first_client_starts_the_server,
]


def talk(server):
    with client(server) as agent:
        conversation.everything(agent, server)


def main(binary):
    with Server(binary) as server:
        perform((talk, server), *((case, server) for case in CASES))


if __name__ == "__main__":
    main(sys.argv[1])
