"""A program on a terminal of its own, by tmux."""

import os
import shutil
import signal
import subprocess
import tempfile

from waiting import until

COLUMNS = "150"
LINES = "50"
CALL_S = 30


class Terminal:
    """One tmux server with one program in it."""

    def __init__(self, argv, environment, directory):
        # The path of a socket must be short.
        self.folder = tempfile.mkdtemp(prefix="agents-")
        self.environment = environment | {"TERM": "xterm-256color"}
        size = ["-x", COLUMNS, "-y", LINES]
        self.tmux("-f", "/dev/null", "new-session", "-d", "-c", str(directory), *size, *argv)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tmux("kill-server", may_fail=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def tmux(self, *arguments, may_fail=False):
        done = subprocess.run(
            ["tmux", "-S", f"{self.folder}/socket", *arguments], env=self.environment,
            capture_output=True, text=True, timeout=CALL_S, check=False,
        )
        assert may_fail or done.returncode == 0, f"tmux {arguments}: {done.stderr}"
        return done.stdout

    def screen(self):
        """What can be seen, and up to 200 lines above it."""
        text = self.tmux("capture-pane", "-p", "-S", "-200", may_fail=True)
        return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())

    def see(self, text):
        try:
            until(lambda: text in self.screen(), f"{text!r} on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.screen()}") from error

    def say(self, text):
        """Types a line and sends it once the program shows it."""
        self.tmux("send-keys", "-l", text)
        self.see(text)
        self.tmux("send-keys", "Enter")

    def kill(self):
        """SIGKILL for the program and what it has started in its process group."""
        pid = int(self.tmux("list-panes", "-F", "#{pane_pid}"))
        os.killpg(pid, signal.SIGKILL)
