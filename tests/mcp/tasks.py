"""Durable tasks with `fastmcp-tasks`: created, polled, cancelled, over kills of the server and the client."""

import json
import sys

from conversation import nonce
from harness import CLIENTS, PYTHON, Client, Server, Text, perform, wait_until

UNKNOWN_TASK = -32602


def client(server):
    return Client(server, "fastmcp-tasks", [PYTHON, CLIENTS / "fastmcp_tasks_client.py", server.url])


def create(of, **arguments):
    """A `run` that becomes a task."""
    answer = of.ask("create", name="run", arguments=arguments)
    assert "result" in answer, answer
    return answer["result"]


def end(answer):
    """Status and text of a task that has ended."""
    task = answer["result"]
    return task["status"], Text({"result": task["result"]}) if "result" in task else None


def only_what_takes_long_becomes_a_task(_server, agent):
    word = nonce()
    answer = agent.ask("create", name="run", arguments={"command": f"echo {word}"})
    assert "did not run as a task" in answer["error"]["message"], answer
    # The client waits by itself: it polls and answers with the result.
    late = agent.ask("call", name="run", arguments={"command": f"sleep 1.2; echo late {word}", "wait_s": 0.2})
    Text(late).accepted().must_have(f"late {word}", "succeeded")
    failed = agent.ask("call", name="run", arguments={"command": f"sleep 1; echo {word}; exit 3", "wait_s": 0.2})
    Text(failed).refused(word, "exit code 3")


def a_task_is_a_job(server, agent):
    word = nonce()
    task = create(agent, command=f"sleep 600; echo {word}", wait_s=0.1, name=word)
    assert task["status"] == "working" and task["resultType"] == "task", task
    assert task["pollIntervalMs"] == 1000, task
    job = json.loads(server.cli("show", word, "--json"))
    job = job[0] if isinstance(job, list) else job
    assert str(job["number"]) in task["taskId"] and job["id"] in task["taskId"], (task, job)
    found = agent.ask("call", name="list_jobs", arguments={})
    Text(found).accepted().must_have(str(job["number"]))
    quiet = agent.ask("call", name="wait", arguments={"jobs": [task["taskId"]], "wait_s": 0.1})
    Text(quiet).accepted().must_have("running")
    stopped = agent.ask("call", name="control", arguments={"job": task["taskId"], "action": "kill"})
    Text(stopped).accepted()
    status, text = end(agent.ask("result", task=task["taskId"]))
    assert status == "cancelled" or (status == "completed" and text.is_error), (status, text)


def two_cancels_are_one(server, agent):
    word = nonce()
    task = create(agent, command=f"sleep 600; echo {word}", wait_s=0.1)["taskId"]
    for _ in range(2):
        assert "error" not in (answer := agent.ask("cancel", task=task)), answer
    status, _ = end(agent.ask("result", task=task))
    assert status == "cancelled", status
    assert "error" not in (answer := agent.ask("cancel", task=task)), answer
    assert [job["state"] for job in server.jobs_with(word)] == ["cancelled"]


def unknown_tasks_are_refused(_server, agent):
    for task in ("4711", "never-there", "0197-x", ""):
        for op in ("get", "cancel"):
            answer = agent.ask(op, task=task)
            assert answer["error"]["code"] == UNKNOWN_TASK, answer


def a_task_outlives_server_and_client(server, agent):
    """The last case: its client does not survive it."""
    word = nonce()
    task = create(agent, command=f"echo first {word}; sleep 4; echo last {word}; exit 9", wait_s=0.1)["taskId"]
    before = agent.ask("get", task=task)["result"]
    assert before["status"] == "working", before
    server.restart()
    # The same client polls on; then it is killed too.
    after = wait_until(lambda: agent.ask("get", task=task).get("result"), "the client finds its task again")
    assert after["status"] == "working" and after["createdAt"] == before["createdAt"], (before, after)
    agent.kill()
    with client(server) as other:
        status, text = end(other.ask("result", task=task))
        assert status == "completed", status
        text.refused(f"first {word}", f"last {word}", "exit code 9")
        server.restart()
        again, same = end(wait_until(lambda: answered(other, task), "the result stays"))
        assert again == "completed" and same.text == text.text, (text.text, same.text)
    assert len(server.jobs_with(word)) == 1


def answered(agent, task):
    answer = agent.ask("get", task=task)
    return answer if "result" in answer else None


def a_person_answers_a_prompt(server, agent):
    """`input_required` comes only where it is asked for, and its answer reaches the process."""
    word = nonce()
    command = f"printf 'Really delete {word}? '; read answer; echo answered $answer {word}"
    task = create(agent, command=command, wait_s=0.1)["taskId"]
    wait_until(lambda: server.jobs_with(word), "the job is there")
    assert agent.ask("get", task=task)["result"]["status"] == "working"
    agent.ask("cancel", task=task)
    asked = {"command": f"{command} again", "wait_s": 0.1, "ask_user": True}
    Text(agent.ask("call", name="run", arguments=asked)).accepted().must_have(f"answered yes {word} again")


CASES = [
    only_what_takes_long_becomes_a_task,
    a_task_is_a_job,
    two_cancels_are_one,
    unknown_tasks_are_refused,
    a_person_answers_a_prompt,
    a_task_outlives_server_and_client,
]


def main(binary):
    with Server(binary) as server, client(server) as agent:
        perform(*((case, server, agent) for case in CASES))


if __name__ == "__main__":
    main(sys.argv[1])
