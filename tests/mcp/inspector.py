"""The Inspector's command line, which people try a server with: over HTTP and stdio, both revisions."""

import json
import subprocess
import sys

from conversation import TOOLS, nonce
from harness import CEILING, CLIENTS, NODE, Server, Text, perform

INSPECTOR = CLIENTS / "node_modules" / ".bin" / "inspector"
# Its exit code for a tool that answers with isError.
TOOL_FAILED = 5


def inspect(server, target, method, *options):
    """Exit code and JSON of one call."""
    command = [NODE, INSPECTOR, "--cli", *target, "--method", method, "--format", "json", *options]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          env=server.environment(), timeout=CEILING, cwd=server.home)
    assert done.stdout, (command, done.stderr)
    return done.returncode, json.loads(done.stdout), done.stderr


def everything(server, target):
    code, listed, complaints = inspect(server, target, "tools/list", "--strict")
    assert code == 0, (code, complaints)
    assert {tool["name"] for tool in listed["result"]["tools"]} == TOOLS, listed
    word = nonce()
    arguments = json.dumps({"command": f"echo {word}"})
    code, answer, _ = inspect(server, target, "tools/call", "--tool-name", "run", "--tool-args-json", arguments)
    assert code == 0, answer
    Text(answer).accepted().must_have(word, "exit code 0")
    arguments = json.dumps({"command": f"echo {word}; exit 4"})
    code, answer, _ = inspect(server, target, "tools/call", "--tool-name", "run", "--tool-args-json", arguments)
    assert code == TOOL_FAILED, (code, answer)
    Text(answer).refused(word, "exit code 4")


def main(binary):
    with Server(binary) as server:
        header = f"Authorization: Bearer {server.token}"
        http = ["--transport", "http", "--server-url", server.url, "--header", header]
        eras = [[*http, "--protocol-era", era] for era in ("legacy", "modern")]
        stdio = [server.binary, "mcp", "--data-dir", server.data_dir]
        perform(*((everything, server, target) for target in (*eras, stdio)))


if __name__ == "__main__":
    main(sys.argv[1])
