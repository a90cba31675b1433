"""The server is killed and started again while a call waits for a job."""

from case import Scenario
from script import Call, Say

RESULT = "RESULT 4711"

# Works until a file says that the server is back, so that no clock decides the order.
WORK = f"""\
import pathlib, time
print("started", flush=True)
while not pathlib.Path("server-is-back").exists():
    time.sleep(0.05)
print({RESULT!r})
"""

# Lines of the SDK's log, the only place where a call that waits can be seen from outside.
CALLED = 'name: \\"wait\\", arguments'
CONNECTED = "Service initialized as server"


def prepare(work):
    (work / "work.py").write_text(WORK, encoding="utf-8")


def drive(case):
    def restart():
        try:
            case.until(lambda: is_waiting(case), "a call of wait at the server")
            # Where the agent gives up the call at once, the model asks again after the restart.
            case.model.hold()
            case.server.kill()
            case.server.restart_after_kill()
            if case.transport == "ws":
                case.until(lambda: log(case).count(CONNECTED) == 2, "a new connection of the agent")
        finally:
            case.model.go_on()
            (case.work / "server-is-back").touch()

    case.run_beside(restart)


def is_waiting(case):
    return CALLED in log(case)


def log(case):
    return case.server.log_path.read_text(encoding="utf-8")


def check(case):
    texts = case.model.view.texts
    assert RESULT in texts[-1], texts
    if case.transport == "stdio":
        assert RESULT in texts[1], f"the call was not answered after the restart: {texts[1]}"
    [job] = case.server.jobs()
    assert (job["state"], job["exit_code"], job["attempts"]) == ("succeeded", 0, 1), job


STEPS = (
    Call("run", {"command": "python3 work.py", "cwd": "{work}", "wait_s": 1}),
    Call("wait", {"wait_s": 50}, taken={"jobs": [r"job (\d+)"]}),
    Call("wait", {"wait_s": 50}, taken={"jobs": [r"job (\d+)"]}),
    Say("The job has ended."),
)

SCENARIO = Scenario(
    name="restart_while_waiting",
    steps=STEPS,
    check=check,
    drive=drive,
    prepare=prepare,
    server_options=("--log-level", "info,rmcp=debug"),
)
