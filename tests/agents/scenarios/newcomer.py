"""A model that knows nothing but the list of tools: a server, an error, a prompt, the history."""

from case import Scenario
from script import Call, Say

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


def check(case):
    serve, failed, grep, question, answer, history, stopped = case.model.view.texts
    assert "listening on" in serve, serve
    assert "exit code 3" in failed and "nowhere.html" in failed, failed
    assert "page 1234: link to nowhere.html is dead" in grep, grep
    assert "Deploy to production?" in question, question
    assert "deployed" in answer, answer
    assert "pages-check" in history and "deploy" not in history, history
    assert "cancel" in stopped, stopped
    states = [(job["name"], job["state"]) for job in case.server.jobs()]
    assert states == [
        ("dev-server", "cancelled"), ("pages-check", "failed"), ("deploy", "succeeded"),
    ], states
    rows = case.server.rows("SELECT DISTINCT actor FROM history_events WHERE job = 1")
    assert rows, "the ledger has no events of the job"


SCENARIO = Scenario(
    name="newcomer",
    steps=(
        Call("run", {"command": "python3 serve.py", "cwd": "{work}", "until": "listening on", "wait_s": 30,
                     "name": "dev-server"}),
        Call("run", {"command": "python3 check.py", "cwd": "{work}", "wait_s": 30, "name": "pages-check"}),
        Call("read_output", {"job": "pages-check", "grep": "ERROR"}),
        Call("run", {"argv": ["python3", "deploy.py"], "cwd": "{work}", "until": r"\[yes/no\]", "wait_s": 30,
                     "name": "deploy"}),
        Call("send_input", {"job": "deploy", "text": "yes", "enter": True, "wait_s": 30}),
        Call("query_history", {"sql": LAST_WEEK}),
        Call("control", {"job": "dev-server", "action": "cancel"}),
        Say("The server has run, a link is dead, the deployment is done."),
    ),
    check=check,
    prepare=prepare,
)
