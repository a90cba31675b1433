"""One scenario with one agent over one transport: its folder, its server, its scripted model."""

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import install
from programs.program import TOKEN_VARIABLE, Setting, run
from scripted_model import ScriptedModel
from server import Server
from waiting import until

# Longest time of one headless agent, its start included.
AGENT_S = 240


def run_agent(case):
    """The usual course of a scenario: one prompt, to its end."""
    case.run_headless()


@dataclass(frozen=True)
class Scenario:
    """What the scripted model does, and what must be true afterwards.

    `drive` does what happens meanwhile, `prepare` writes files into the agent's directory. Without
    `programs` and `transports` it is meant for all that there are, but for those in `without`.
    `slow` names those for which it takes longer than 20 s. Both hold names such as `codex-stdio`;
    in `slow`, `*` means all.
    """

    name: str
    steps: tuple
    check: Callable
    drive: Callable = run_agent
    prepare: Callable | None = None
    programs: tuple = ()
    transports: tuple = ()
    without: tuple = ()
    slow: tuple = ()
    server_options: tuple = ()
    commands: tuple = ()

    def missing_commands(self):
        """Commands that it needs and this machine does not have."""
        return [command for command in self.commands if shutil.which(command) is None]

    def is_slow(self, program, transport):
        return "*" in self.slow or f"{program.name}-{transport}" in self.slow

    def fits(self, program, transport):
        return (
            (not self.programs or program.name in self.programs)
            and (not self.transports or transport in self.transports)
            and f"{program.name}-{transport}" not in self.without
        )


class Case:
    """`folder` keeps what the agent, the model and the server have written."""

    def __init__(self, scenario, program, transport, binary, tools, folder):
        self.scenario = scenario
        self.program = program
        self.transport = transport
        self.binary = binary
        self.tools = tools
        self.name = f"{scenario.name}-{program.name}-{transport}"
        self.folder = Path(folder) / self.name
        self.home = self.folder / "home"
        self.work = self.folder / "work"
        self.server = None
        self.model = None
        self.agent = None

    def run(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.home.mkdir(parents=True)
        self.work.mkdir()
        # Agents look for a project's files above their directory, up to the top of a repository.
        subprocess.run(["git", "init", "--quiet", str(self.work)], check=True)
        if self.scenario.prepare is not None:
            self.scenario.prepare(self.work)
        options = self.scenario.server_options
        log = self.folder / "server.log"
        self.server = Server(self.binary, options, self.environment(), log)
        steps = [*self.program.first_steps, *self.scenario.steps]
        with contextlib.ExitStack() as stack:
            stack.callback(self.server.stop)
            log = self.folder / "model.jsonl"
            self.model = stack.enter_context(ScriptedModel(steps, self.work, log))
            stack.callback(self.keep_view)
            self.server.start()
            self.scenario.drive(self)
            assert not self.model.problems, "\n".join(self.model.problems)
            assert self.model.is_finished, "the model was not asked for its last step"
            self.scenario.check(self)

    def environment(self):
        """What server and agent get; nothing of the user's but `PATH`."""
        programs = install.programs_of(self.tools, self.program.name)
        path = [str(programs), str(self.binary.parent), install.search_path(self.tools)]
        return {
            "HOME": str(self.home),
            "PATH": os.pathsep.join(path),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "DO_NOT_TRACK": "1",
        }

    def setting(self, address=None):
        address = address or self.server.ready["listen"]
        return Setting(self.home, self.work, self.transport, address, self.model.url)

    def agent_environment(self):
        environment = self.environment()
        if self.transport != "stdio":
            environment[TOKEN_VARIABLE] = self.server.token
        return environment

    def run_headless(self, address=None):
        setting = self.setting(address)
        launch = self.program.headless(setting)
        code = run(launch, setting, self.agent_environment(), self.folder, AGENT_S)
        assert code == 0, f"the agent ended with {code}; see {self.folder}/agent.stderr"
        assert self.model.views, f"the model never saw a tool of ours; see {self.folder}"

    def run_beside(self, act, address=None):
        """Calls `act` while the agent runs; what either of them raises is raised here."""
        problems = []

        def agent():
            try:
                self.run_headless(address)
            except Exception as error:  # raised below, in the thread of the case
                problems.append(error)

        self.agent = threading.Thread(target=agent)
        self.agent.start()
        try:
            act()
        finally:
            self.agent.join()
            # What the agent itself has met tells more than what was waited for in vain.
            if problems:
                raise problems[0]

    def until(self, condition, what):
        """Waits for a condition while the agent runs."""
        until(lambda: condition() or not self.agent.is_alive(), what)
        assert condition(), f"the agent ended before: {what}"

    def until_asked(self, replies):
        """Waits until the model is asked for the step that follows this many of the script's."""
        wanted = len(self.program.first_steps) + replies + 1
        self.until(lambda: len(self.model.views) >= wanted, f"the model's request {wanted}")

    def keep_view(self):
        if self.model.views:
            text = self.model.view.describe()
            (self.folder / "view.txt").write_text(text, encoding="utf-8")
