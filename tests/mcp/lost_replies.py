"""What a client meets that has lost a reply: its session, its job, and no second run by accident."""

import http.client
import json
import sys
import threading

from conversation import nonce
from harness import Server, perform, wait_until
from raw_http import raw, session


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


def a_job_knows_where_it_came_from(server):
    """Its labels name the client and its call; the process can go on with the client's trace."""
    client = session(server)
    word = nonce()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer, _ = client.request("tools/call", {
        "name": "run", "arguments": {"command": "echo trace=$TRACEPARENT", "name": word},
        "_meta": {"claudecode/toolUseId": f"toolu_{word}", "traceparent": trace}})
    assert f"trace={trace}" in answer["result"]["content"][0]["text"], answer
    labels = json.loads(server.cli("sql", "--format", "json", "--param", word,
                                   "SELECT labels FROM history_jobs WHERE name = ?"))[0]["labels"]
    for value in ("doors", f"toolu_{word}", trace):
        assert value in labels, labels


CASES = [
    a_job_knows_where_it_came_from,
    a_repeated_command_names_the_first_job,
    the_same_call_is_one_job,
    a_session_survives_a_crash,
]


def main(binary):
    with Server(binary) as server:
        perform(*((case, server) for case in CASES))


if __name__ == "__main__":
    main(sys.argv[1])
