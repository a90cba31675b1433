"""The conformance suite of the protocol's authors against our whole stack, for both revisions.

The server is the example `mcp_conformance`: the binary's own `serve` with the suite's tools, prompts and
resources added to ours. The suite knows no tokens; `suite_token.mjs` adds one to each of its requests.
Its exit code counts no extension and no warning, so the checks are read from what it writes.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from harness import CLIENTS, HERE, NODE, Server

SUITE = CLIENTS / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
# Each revision: how the suite is told, and how many checks pass at least; fewer means that it did not run.
REVISIONS = {
    "2025-06-18": ("--spec-version", 56),
    "2025-11-25": ("--requirements", 81),
    "2026-07-28": ("--requirements", 197),
}
# Checks that may fail or be skipped, and why.
EXPECTED = {
    "server-sse-polling:server-sse-priming-event": "recommended only, and two agents in use hang or lose their session \
over it: docs/design/mcp.md",
    "server-sse-polling:server-sse-retry-field": "the same",
    "tasks-status-notifications:tasks-status-notifications": "skipped for every server: the suite does not \
read the stream on which these optional notifications would come",
}
# Longest run of one revision, seconds.
LONGEST = 240


def run(server, revision, option):
    """What the suite found, those of extensions included: (scenario and check, the check)."""
    results = Path(server.home) / revision
    command = [NODE, "--import", HERE / "suite_token.mjs", SUITE, "server", "--url", server.url,
               option, revision, "--output-dir", results]
    with open(results.with_suffix(".log"), "wb") as log:
        subprocess.run([str(word) for word in command], stdout=log, stderr=log, timeout=LONGEST,
                       env=server.environment(), cwd=server.home, check=False)
    checks = []
    for file in sorted(results.glob("*/checks.json")):
        scenario = file.parent.name.removeprefix("server-").rsplit("-20", 1)[0]
        for check in json.loads(file.read_text(encoding="utf-8")):
            checks.append((f"{scenario}:{check['id']}", check))
    return checks


def examine(server, revision, option, passed_min):
    checks = run(server, revision, option)
    counts = Counter(check["status"] for _, check in checks)
    others = [(name, check) for name, check in checks if check["status"] not in ("SUCCESS", "INFO")]
    unexpected = [(name, check) for name, check in others if name not in EXPECTED]
    for name, check in unexpected:
        print(f"{revision} {name} {check['status']}: {check.get('errorMessage')}", file=sys.stderr)
    print(f"conformance {revision}: {dict(counts)}")
    return not unexpected and counts["SUCCESS"] >= passed_min


def main(example):
    with Server(example) as server:
        results = [examine(server, revision, *how) for revision, how in REVISIONS.items()]
        assert all(results), "the conformance suite is not content"


if __name__ == "__main__":
    main(sys.argv[1])
