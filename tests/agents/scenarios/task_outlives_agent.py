"""Claude Code on a terminal starts a job as a task and is killed, and so is the server.

With `--continue` it finds the task again and gives its result to the model.
"""

import os

from case import Scenario
from script import Call, Say
from terminal import Terminal
from waiting import until

RESULT = "RESULT 4711"

# Seconds for which the job works, beyond all kills: `AGENTS_JOB_S=600` for a long one.
JOB_S = float(os.environ.get("AGENTS_JOB_S", "20"))

# Longest time from the end of the job until the model is told: the slowest poll, and reconnecting.
TOLD_S = 120

WORK = f"""\
import time
began = time.monotonic()
while time.monotonic() - began < {JOB_S}:
    print("still working", flush=True)
    time.sleep(1)
print({RESULT!r})
"""

WAITING = "I am told when it has ended."
DONE = "It has ended."


def prepare(work):
    (work / "work.py").write_text(WORK, encoding="utf-8")


def drive(case):
    launch = case.program.interactive(case.setting())
    environment = case.agent_environment() | launch.environment
    with Terminal(launch.argv, environment, case.work) as terminal:
        terminal.see("❯")
        prompt_until_connected(case, terminal)
        terminal.see(WAITING)
        keep_screen(case, terminal, "screen_before_kill.txt")
        until(lambda: is_stored(case), "the conversation in the agent's own file")
        terminal.kill()
    case.server.kill()
    case.server.restart_after_kill()
    with Terminal([*launch.argv, "--continue"], environment, case.work) as terminal:
        terminal.see(WAITING)
        until(lambda: case.model.is_finished, "the result of the task", JOB_S + TOLD_S)
        terminal.see(DONE)
        keep_screen(case, terminal, "screen_after_continue.txt")


def prompt_until_connected(case, terminal):
    """On a terminal, Claude Code takes prompts before it has connected with our server."""
    model = case.model
    while not model.views:
        before = model.side_requests
        terminal.say("Start it.")
        until(lambda: model.views or model.side_requests > before, "the prompt at the model")


def is_stored(case):
    """Claude Code writes a conversation down a little later than it shows it."""
    files = (case.home / ".claude" / "projects").glob("*/*.jsonl")
    return any(WAITING in file.read_text(encoding="utf-8") for file in files)


def keep_screen(case, terminal, name):
    (case.folder / name).write_text(terminal.screen() + "\n", encoding="utf-8")


def check(case):
    view = case.model.view
    [started] = view.texts
    assert "background" in started, started
    [told] = view.notifications
    assert "<status>completed</status>" in told, told
    assert RESULT in told, told
    [job] = case.server.jobs()
    assert (job["state"], job["exit_code"], job["attempts"]) == ("succeeded", 0, 1), job


SCENARIO = Scenario(
    name="task_outlives_agent",
    steps=(
        Call("run", {"command": "python3 work.py", "cwd": "{work}", "wait_s": 2}),
        Say(WAITING),
        Say(DONE),
    ),
    check=check,
    drive=drive,
    prepare=prepare,
    programs=("claude",),
    transports=("http", "stdio"),
    slow=("*",),
    commands=("tmux",),
)
