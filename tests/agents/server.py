"""The server under test, and the ledger as its own command line shows it."""

import json
import subprocess

from waiting import until

START_S = 60
STOP_S = 30
CLI_S = 60


class Server:
    """`cc-executor serve` of one case, on the default address and data directory of its HOME."""

    def __init__(self, binary, options, environment, log_path):
        self.binary = binary
        self.options = options
        self.environment = environment
        self.log_path = log_path
        self.process = None
        self.ready = None

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", *self.options], env=self.environment,
                stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            )
        line = self.process.stdout.readline()
        assert line, f"the server ended before it was ready; see {self.log_path}"
        self.ready = json.loads(line)

    def kill(self):
        """As a crash would: SIGKILL."""
        self.process.kill()
        self.process.wait()

    def restart_after_kill(self):
        """Starts it again, unless `cc-executor mcp` was faster: it starts one where none is."""
        try:
            self.start()
        except AssertionError:
            until(self.answers, "a server that cc-executor mcp has started", START_S)

    def answers(self):
        done = self.run_cli("status", "--json")
        return done.returncode == 0

    def stop(self):
        """Ends all jobs and whichever server serves them."""
        self.run_cli("stop", "--kill-jobs")
        if self.process is not None:
            self.process.wait(STOP_S)
            self.process.stdout.close()

    @property
    def token(self):
        with open(self.ready["token_file"], encoding="ascii") as file:
            return file.read().strip()

    def run_cli(self, *arguments):
        return subprocess.run(
            [self.binary, *arguments], env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=CLI_S, check=False,
        )

    def ask(self, *arguments):
        """What a verb with `--json` prints."""
        done = self.run_cli(*arguments, "--json")
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return json.loads(done.stdout)

    def jobs(self):
        """All jobs, the oldest first."""
        return sorted(self.ask("ls", "--all"), key=lambda job: job["number"])

    def rows(self, query):
        return self.ask("sql", query)
