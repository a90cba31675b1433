"""What an agent asks of the tools, with any client: the same questions, and what the texts must say."""

import json
import random
import re
import secrets
from pathlib import Path

from harness import perform

TOOLS = {
    "run", "wait", "read_output", "control", "send_input",
    "list_jobs", "query_history", "search_output", "verify_transcript",
}
# Tools that change nothing.
READERS = {"wait", "read_output", "list_jobs", "query_history", "search_output", "verify_transcript"}
# Longest list of tools, bytes of JSON without blanks; longest description, longest instructions.
LIST_BYTES_MAX = 8_000
DESCRIPTION_CHARS_MAX = 1_000
INSTRUCTIONS_CHARS_MAX = 4_000
# The part of the instructions that some agents show alone, characters.
FIRST_CHARS = 240


def nonce():
    """A word that no other job has."""
    return f"w{secrets.token_hex(6)}"


def negotiated(client, _server):
    told = client.negotiated
    assert told["serverInfo"]["name"] == "cc-executor", told
    assert "io.modelcontextprotocol/tasks" in told["capabilities"]["extensions"], told
    assert "tasks" not in told["capabilities"], told
    instructions = told["instructions"]
    assert len(instructions) <= INSTRUCTIONS_CHARS_MAX, len(instructions)
    first = instructions[:FIRST_CHARS].lower()
    assert "job" in first and "do not start it again" in first, first


def tools_are_described(client, _server):
    listed = client.ask("tools")["result"]["tools"]
    assert {tool["name"] for tool in listed} == TOOLS, listed
    assert len(listed) == len(TOOLS), listed
    size = len(json.dumps({"tools": listed}, separators=(",", ":"), ensure_ascii=False).encode())
    assert size < LIST_BYTES_MAX, f"{size} bytes"
    for tool in listed:
        assert 0 < len(tool["description"]) < DESCRIPTION_CHARS_MAX, tool
        assert "outputSchema" not in tool, tool
        assert tool["annotations"]["readOnlyHint"] == (tool["name"] in READERS), tool
    words = json.dumps(listed).lower()
    for word in ("shell", "command", "terminal", "background", "log", "build", "test"):
        assert word in words, word


def resources_and_prompts(client, _server):
    uris = {resource["uri"] for resource in client.ask("resources")["result"]["resources"]}
    assert "history://schema" in uris, uris
    schema = client.ask("read", uri="history://schema")["result"]["contents"][0]["text"]
    assert "history_jobs" in schema and "exit_code" in schema, schema
    prompts = {prompt["name"] for prompt in client.ask("prompts")["result"]["prompts"]}
    assert prompts == {"start_and_watch", "why_did_it_fail", "what_ran_today"}, prompts
    today = client.ask("prompt", name="what_ran_today")["result"]["messages"]
    assert today and today[0]["content"]["type"] == "text", today


def a_short_command(client, _server):
    word = nonce()
    text = client.call("run", command=f"echo {word}").accepted()
    text.must_have("succeeded", "exit code 0", word)
    job = text.job()
    details = client.ask("read", uri=f"job://{job}")["result"]["contents"][0]
    assert str(job) in details["text"], details
    output = client.ask("read", uri=f"job://{job}/output")["result"]["contents"][0]
    assert word in output["text"], output
    # An argument list needs no shell: nothing in it is expanded.
    client.call("run", argv=["printf", "%s", "$HOME;*"]).accepted().must_have("$HOME;*")


def a_failing_command(client, _server):
    word = nonce()
    command = f"echo 'main.c:3:5: error: {word}' >&2; exit 7"
    text = client.call("run", command=command)
    assert text.is_error, text.text
    text.must_have("failed", "exit code 7", f"main.c:3:5: error: {word}")
    client.call("run", argv=["/no/such/program"]).refused("cannot start")
    # Looking at a failure is no failure.
    client.call("read_output", job=text.job()).accepted().must_have(word)


def a_command_that_outlives_the_call(client, _server):
    word = nonce()
    text = client.call("run", command=f"echo first {word}; sleep 1.5; echo last {word}", wait_s=0.2)
    text.accepted().must_have("running")
    job = text.job()
    assert str(job) in json.dumps(text.next), text.next
    texts = text.follow(client, f"last {word}")
    texts[-1].accepted().must_have("succeeded", "exit code 0")
    client.call("wait", jobs=[job]).accepted().must_have("succeeded")


def a_server_that_listens(client, _server):
    word = nonce()
    command = f"echo starting; sleep 0.3; echo listening on {word}; exec sleep 600"
    text = client.call("run", command=command, until=f"listening on {word}", wait_s=30, name=word)
    text.accepted().must_have("running", f"listening on {word}")
    # By its name, as long as it is the newest of that name.
    client.call("wait", jobs=[word], until={"idle_s": 0.2}, wait_s=20).accepted().must_have("running")
    empty = client.call("wait", jobs=[text.job()], wait_s=0.1).accepted()
    again = client.call("wait", jobs=[text.job()], wait_s=0.1).accepted()
    assert again.text != empty.text, "the same empty wait twice names a better one"
    client.call("control", job=text.job(), action="cancel").accepted()
    end = client.call("wait", jobs=[text.job()], wait_s=30)
    end.must_have("cancelled")


def a_prompt_is_answered(client, _server):
    word = nonce()
    text = client.call("run", command=f"printf 'name? '; read name; echo hello $name {word}",
                       until="name", wait_s=30)
    text.accepted().must_have("running", "name?")
    answer = client.call("send_input", job=text.job(), text="Ada", enter=True, until=word, wait_s=20)
    answer.accepted().must_have(f"hello Ada {word}")


def much_output(client, server):
    word = nonce()
    # No two lines are alike, so that none is folded.
    lines = [f"line {number} of {word}: {prose()}" for number in range(1, 20_001)]
    file = Path(server.home) / word
    file.write_text("\n".join(lines) + "\n", encoding="ascii")
    text = client.call("run", argv=["cat", str(file)], wait_s=30).accepted()
    job = text.job()
    for line in (*lines[:5], *lines[-5:]):
        assert line in text.body, f"{line!r} is missing in:\n{text.text}"
    # What is left out is named, and can be read from there.
    left_out = re.search(r"bytes (\d+)-(\d+)", text.body)
    assert left_out, text.text
    start, end = int(left_out[1]), int(left_out[2])
    omitted = file.read_bytes()[start:end].decode().split("\n")
    assert omitted[0] in lines, f"{left_out[0]} does not begin with a line: {omitted[0]!r}"
    part = client.call("read_output", job=job, **{"from": start}).accepted()
    for line in omitted[:5]:
        assert line in part.body, f"{line!r} is missing in:\n{part.text}"
    assert len(part.text) <= 8_000, len(part.text)
    tail = client.call("read_output", job=job, tail_lines=2).accepted()
    assert lines[-2] in tail.body and lines[-3] not in tail.body, tail.text
    grep = client.call("read_output", job=job, grep=f"line 777 of {word}").accepted()
    assert lines[776] in grep.body and lines[777] not in grep.body, grep.text
    short = client.call("read_output", job=job, max_chars=500).accepted()
    assert len(short.text) <= 500, len(short.text)
    longest = client.call("read_output", job=job, max_chars=1_000_000).accepted()
    assert len(longest.text) > 4_000, len(longest.text)


def prose():
    """Words that are not alike."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(random.choices(letters, k=random.randint(2, 9))) for _ in range(5))


def the_past(client, _server):
    word = nonce()
    job = client.call("run", command=f"echo found {word}").accepted().job()
    client.call("list_jobs").accepted().must_have(str(job), word)
    client.call("search_output", pattern=f"found {word}", job=job).accepted().must_have(f"found {word}")
    rows = client.call("query_history", sql=f"SELECT state FROM history_jobs WHERE number = {job}")
    rows.accepted().must_have("succeeded")
    client.call("query_history", sql="DELETE FROM history_jobs").refused()
    claims = [{"contains": f"found {word}"}, {"contains": f"never printed {word}"}]
    text = client.call("verify_transcript", job=job, claims=claims)
    verdicts = {line for line in text.body.splitlines() if word in line}
    assert any("not" in line.lower() and "never printed" in line for line in verdicts), text.text
    assert any("not" not in line.lower() and "found" in line for line in verdicts), text.text
    client.call("verify_transcript", job="last", claims=claims[:1]).accepted()


def all_history_is_searched(client, _server):
    word = nonce()
    jobs = [client.call("run", command=f"echo {number} times {word}").job() for number in (1, 2)]
    text = client.call("search_output", pattern=f"[12] times {word}").accepted()
    text.must_have(str(jobs[0]), str(jobs[1]), f"1 times {word}", f"2 times {word}")


def bad_input(client, server):
    """Each refusal says what would be right; the session goes on."""
    unknown = client.ask("call", name="rum", arguments={})
    assert "run" in json.dumps(unknown) and "read_output" in json.dumps(unknown), unknown
    client.call("run", command="true", comand="false").refused("comand")
    client.call("run").refused("command", "argv")
    client.call("run", command="true", argv=["true"]).refused("command", "argv")
    client.call("run", command=["true"]).refused("command")
    client.call("run", command="true", wait_s=-1).refused("wait_s")
    client.call("run", command="true", until="(").refused("until")
    client.call("search_output", pattern="(").refused("pattern")
    client.call("wait", jobs=[]).refused("jobs")
    client.call("wait", jobs=["no-such-name"]).refused("no-such-name", "list_jobs")
    client.call("read_output", job=10**9).refused()
    client.call("control", job="last", action="explode").refused("action", "cancel")
    client.call("query_history", sql="SELECT nonsense FROM nowhere").refused("nowhere")
    word = nonce()
    gone = client.call("run", command=f"echo {word}").accepted().job()
    server.cli("rm", str(gone))
    client.call("read_output", job=gone).refused(str(gone))
    client.call("wait", jobs=[gone]).refused(str(gone))
    client.call("send_input", job=gone, text="x").refused(str(gone))
    client.call("run", command=f"echo still {nonce()}").accepted().must_have("still")


CASES = [
    negotiated,
    tools_are_described,
    resources_and_prompts,
    a_short_command,
    a_failing_command,
    a_command_that_outlives_the_call,
    a_server_that_listens,
    a_prompt_is_answered,
    much_output,
    the_past,
    all_history_is_searched,
    bad_input,
]


def everything(client, server):
    """All questions, in the order in which an agent would come to them."""
    perform(*((case, client, server) for case in CASES))
