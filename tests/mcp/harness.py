"""A server of its own, clients that take orders, and what every text for a model must fulfil."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
CLIENTS = HERE / "clients"
NODE = CLIENTS / "node_modules" / ".bin" / "node"
PYTHON = PROJECT / ".venv" / "bin" / "python"
PYTHON_WS = PROJECT / ".venv-mcp-ws" / "bin" / "python"

# Seconds until something that must happen is given up on.
CEILING = 60.0
# Longest text of a result, characters.
CHARS_MAX = 9_500


class Server:
    """The binary under test on a data directory of its own; it keeps its port over restarts."""

    def __init__(self, binary):
        self.binary = str(Path(binary).resolve())
        self.home = tempfile.mkdtemp(prefix="mcp")
        self.data_dir = os.path.join(self.home, "data")
        self.log = open(os.path.join(self.home, "stderr"), "ab")
        self.listen = "127.0.0.1:0"
        self.process = None
        self.start()

    def start(self):
        command = [self.binary, "serve", "--listen", self.listen, "--data-dir", self.data_dir]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, env=self.environment())
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the server ended before it was ready:\n{self.stderr()}")
        ready = json.loads(line)
        self.listen = ready["listen"]
        self.token = Path(ready["token_file"]).read_text(encoding="ascii").strip()

    def environment(self):
        """What clients and server start with: nothing of the developer's own setup."""
        keep = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
        return keep | {"HOME": self.home, "MCP_TOKEN": getattr(self, "token", "")}

    @property
    def url(self):
        return f"http://{self.listen}/mcp"

    @property
    def ws_url(self):
        return f"ws://{self.listen}/ws/mcp"

    def kill(self):
        """As a crash would."""
        self.process.kill()
        self.process.wait()

    def restart(self):
        self.kill()
        self.start()

    def cli(self, *arguments):
        command = [self.binary, arguments[0], "--data-dir", self.data_dir, *arguments[1:]]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment(), timeout=CEILING)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def jobs_with(self, text):
        """The jobs whose command contains this text, the oldest first: number and state."""
        query = "SELECT number, state FROM history_jobs WHERE instr(command, ?) > 0 ORDER BY number"
        return json.loads(self.cli("sql", "--format", "json", "--param", text, query))

    def resident_bytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def stderr(self):
        """The warnings and errors of the server's log, the last ones."""
        lines = Path(self.log.name).read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([line for line in lines if '"level":"INFO"' not in line][-20:])

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            print(f"the server's log:\n{self.stderr()}", file=sys.stderr)
        # The server may be another one than that which was started here.
        subprocess.run([self.binary, "stop", "--kill-jobs", "--data-dir", self.data_dir], check=False,
                       capture_output=True, timeout=CEILING, env=self.environment())
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


class Client:
    """One of the programs in `clients`, driven by lines of JSON."""

    def __init__(self, server, name, command):
        self.name = name
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=server.environment(), cwd=server.home,
        )
        self.negotiated = self.answer()["result"]

    def send(self, order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        assert line, f"{self.name} has ended"
        return json.loads(line)

    def ask(self, op, **order):
        self.send({"op": op, **order})
        return self.answer()

    def call(self, tool, **arguments):
        """The text of the tool's result."""
        return Text(self.ask("call", name=tool, arguments=arguments))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(CEILING)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


class Text:
    """A tool's result, checked for what holds for all of them."""

    def __init__(self, answer):
        assert "result" in answer, f"a tool's result, not {answer}"
        result = answer["result"]
        assert "structuredContent" not in result, result
        content = result["content"]
        assert [block["type"] for block in content] == ["text"], content
        self.text = content[0]["text"]
        self.is_error = result.get("isError", False)
        assert len(self.text) <= CHARS_MAX, f"{len(self.text)} characters"
        lines = self.text.split("\n")
        self.status = lines[0]
        assert self.status.strip(), self.text
        call = re.fullmatch(r"next: (\w+) (\{.*\})", lines[-1])
        assert call, f"the last line is no call that is ready to use: {self.text}"
        self.next = (call[1], json.loads(call[2]))
        self.body = "\n".join(lines[1:-1])

    def job(self):
        """The number of the job that the status line is about."""
        found = re.search(r"\bjob (\d+)\b", self.status)
        assert found, f"the status line names no job:\n{self.text}"
        return int(found[1])

    def must_have(self, *words):
        for word in words:
            assert word.lower() in self.text.lower(), f"{word!r} is missing in:\n{self.text}"
        return self

    def refused(self, *words):
        assert self.is_error, f"not refused:\n{self.text}"
        return self.must_have(*words)

    def accepted(self):
        assert not self.is_error, f"refused:\n{self.text}"
        return self

    def follow(self, client, until, most=20):
        """Makes the calls that the texts name until one contains this; returns all texts."""
        texts = [self]
        for _ in range(most):
            if until in texts[-1].text:
                return texts
            tool, arguments = texts[-1].next
            texts.append(client.call(tool, **arguments))
        raise AssertionError(f"{until!r} did not come by itself:\n" + "\n--\n".join(t.text for t in texts))


def perform(*cases):
    """Runs all cases (a function and its arguments) and fails at the end if one has failed."""
    failed = []
    for case, *arguments in cases:
        try:
            case(*arguments)
        except (Exception, SystemExit):  # a client that breaks is a case that fails
            failed.append(case.__name__)
            print(f"{case.__name__}:\n{traceback.format_exc()}", file=sys.stderr)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def wait_until(condition, what):
    """Waits for a condition that nothing announces."""
    deadline = time.monotonic() + CEILING
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} within {CEILING:.0f} s"
        time.sleep(0.02)
    return value
