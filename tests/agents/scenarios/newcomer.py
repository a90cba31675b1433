"""A model that knows nothing but the list of tools: a server, an error, a prompt, the history."""

from case import Scenario
from script import Call, FollowNext, Say

SERVE = """\
import http.server
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print("compiling the pages", flush=True)
print(f"listening on {server.server_port}", flush=True)
server.serve_forever()
"""

CHECK = """\
import sys
for number in range(2000):
    print(f"checked page {number}: fine")
    if number == 1234:
        print("ERROR: page 1234: link to nowhere.html is dead", file=sys.stderr)
sys.exit(3)
"""

DEPLOY = """\
answer = input("Deploy to production? [yes/no] ")
print("deployed" if answer == "yes" else "nothing done")
"""

LAST_WEEK = """\
SELECT job, name, exit_code FROM history_jobs
WHERE state = 'failed' AND finished_at > ago('7 days') ORDER BY job
"""


def prepare(work):
    (work / "serve.py").write_text(SERVE, encoding="utf-8")
    (work / "check.py").write_text(CHECK, encoding="utf-8")
    (work / "deploy.py").write_text(DEPLOY, encoding="utf-8")


TOOLS = (
    "run", "wait", "read_output", "send_input", "control", "list_jobs", "search_output",
    "query_history", "verify_transcript",
)

# Of our instructions, the part that every agent shows before a model has called anything.
INSTRUCTION = "its job runs on: do not start it again"


def check(case):
    first = case.model.views[0]
    assert INSTRUCTION in first.everything, "the model was not shown our instructions"
    missing = [tool for tool in TOOLS if case.model.view.find(tool) is None]
    assert not missing, f"the model was not told of {missing}"
    serve, failed, grep, question, answer, history, asked, stopped = case.model.view.texts
    assert "listening on" in serve, serve
    assert "exit code 3" in failed and "nowhere.html" in failed, failed
    assert "page 1234: link to nowhere.html is dead" in grep, grep
    assert "Deploy to production?" in question, question
    assert "deployed" in answer, answer
    assert "pages-check" in history and "deploy" not in history, history
    assert "cancel" in asked, asked
    assert "cancelled" in stopped, stopped
    states = [(job["name"], job["state"]) for job in case.server.jobs()]
    assert states == [
        ("dev-server", "cancelled"), ("pages-check", "failed"), ("deploy", "succeeded"),
    ], states
    rows = case.server.rows("SELECT job FROM history_events WHERE to_state = 'cancelled'")
    assert rows == [{"job": 1}], rows


SCENARIO = Scenario(
    name="newcomer",
    steps=(
        Call("run", {"command": "python3 serve.py", "cwd": "{work}", "name": "dev-server",
                     "until": "listening on", "wait_s": 30}),
        Call("run", {"command": "python3 check.py", "cwd": "{work}", "name": "pages-check",
                     "wait_s": 30}),
        Call("read_output", {"job": "pages-check", "grep": "ERROR"}),
        Call("run", {"argv": ["python3", "deploy.py"], "cwd": "{work}", "name": "deploy",
                     "until": r"\[yes/no\]", "wait_s": 30}),
        Call("send_input", {"job": "deploy", "text": "yes", "enter": True, "wait_s": 30}),
        Call("query_history", {"sql": LAST_WEEK}),
        Call("control", {"job": "dev-server", "action": "cancel"}),
        FollowNext(),
        Say("The server has run, a link is dead, the deployment is done."),
    ),
    check=check,
    prepare=prepare,
)
