"""The reply to `run` is lost, and the model runs the same again: that is one job, not two."""

from case import Scenario
from relay import Relay
from script import Call, Say
from waiting import until

# Only a call of `run` has this in its body.
MARKER = b"python3 migrate.py"

# Where the relay listens. The namespace is ours alone, so every port is free.
RELAY_PORT = 8004
RELAY = f"127.0.0.1:{RELAY_PORT}"

# Works until the model has asked for it twice, so that the first is still running then.
WORK = """\
import pathlib, time
with open("runs", "a") as runs:
    print("run", file=runs)
while not pathlib.Path("may-end").exists():
    time.sleep(0.05)
print("migrated")
"""


def prepare(work):
    (work / "migrate.py").write_text(WORK, encoding="utf-8")


def drive(case):
    port = int(case.server.ready["listen"].rpartition(":")[2])

    def job_runs():
        until((case.work / "runs").exists, "a job that has started")

    def let_it_end():
        try:
            case.until_asked(2)
        finally:
            (case.work / "may-end").touch()

    with Relay(RELAY_PORT, port, MARKER, job_runs) as relay:
        case.run_beside(let_it_end, RELAY)
        assert relay.has_lost_one, "the relay has seen no call of run"


def check(case):
    lost, again, end = case.model.view.texts
    assert "job 1" not in lost, f"this reply should be lost: {lost}"
    assert "job 1" in again, again
    assert "migrated" in end, end
    [job] = case.server.jobs()
    assert job["state"] == "succeeded", job
    assert (case.work / "runs").read_text(encoding="utf-8") == "run\n", "it ran twice"


SCENARIO = Scenario(
    name="lost_reply",
    steps=(
        Call("run", {"command": MARKER.decode(), "cwd": "{work}", "wait_s": 5}),
        Call("run", {"command": MARKER.decode(), "cwd": "{work}", "wait_s": 5}),
        Call("wait", {"wait_s": 50}, taken={"jobs": [r"job (\d+)"]}),
        Say("Migrated."),
    ),
    check=check,
    drive=drive,
    prepare=prepare,
    transports=("http",),
    server_options=("--allowed-hosts", RELAY),
)
