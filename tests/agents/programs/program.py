"""What the drivers of all agents have in common."""

import json
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import install

# The key of an account that does not exist.
KEY = "placeholder"

# What the user says to the agent. The scripted model does not read it.
PROMPT = "go"

# The name of the variable that a configuration takes the token from.
TOKEN_VARIABLE = "CC_EXECUTOR_TOKEN"


@dataclass(frozen=True)
class Setting:
    """What an agent is to be connected with. `address` is HOST:PORT of our server."""

    home: Path
    work: Path
    transport: str
    address: str
    model_url: str


@dataclass(frozen=True)
class Launch:
    """A command line and what it needs in its environment."""

    argv: list[str]
    environment: dict[str, str] = field(default_factory=dict)


class Program:
    """An agent. `headless` writes its configuration and says how one prompt is run."""

    name = ""
    transports = ("http", "stdio")
    # Steps that its model must make before it can call a tool of ours.
    first_steps = ()

    def headless(self, setting):
        raise NotImplementedError

    def path(self, tools):
        return str(install.programs_of(tools, self.name) / install.AGENTS[self.name].program)


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def run(launch, setting, environment, folder, ceiling_s):
    """Runs a headless agent to its end, in a process group of its own; returns its exit code."""
    with open(folder / "agent.stdout", "ab") as out, open(folder / "agent.stderr", "ab") as err:
        process = subprocess.Popen(
            launch.argv, cwd=setting.work, env=environment | launch.environment,
            stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
        )
    try:
        return process.wait(ceiling_s)
    finally:
        end_group(process)


def end_group(process):
    """Kills what is left of a process that leads its group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
