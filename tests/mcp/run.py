"""All tests of the MCP interface with other people's clients: `run.py BINARY EXAMPLE [PART…]`.

EXAMPLE is the binary of the example `mcp_conformance`. As root everything runs in a network namespace
that has loopback only, so that no client can reach anything but the servers of the tests.
"""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The longest first.
PARTS = (
    "http_clients", "tasks", "stdio", "websocket", "suite", "progress", "inspector", "doors", "lost_replies",
)
# Parts that run beside each other.
AT_ONCE = 4
# Longest run of one part, seconds.
LONGEST = 300
ALONE = "MCP_TESTS_ALONE"
# How Linux names the requests that read and write a network interface's flags, and the flag for "up".
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def enter_namespace():
    """Goes on in a network namespace of its own, where that is possible."""
    if os.environ.get(ALONE):
        raise_loopback()
        return
    unshare = ["unshare", "--net"]
    if shutil.which("unshare") and subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode == 0:
        os.environ[ALONE] = "1"
        os.execvp("unshare", [*unshare, sys.executable, *sys.argv])
    print("tests/mcp: no network namespace here (only root may make one); using the machine's loopback", flush=True)


def raise_loopback():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        flags = struct.unpack("16sH14s", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", flags | IFF_UP, b""))


def run(part, binary, example):
    """Whether the part passed."""
    began = time.monotonic()
    command = [sys.executable, HERE / f"{part}.py", example if part == "suite" else binary]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=LONGEST, check=False)
    verdict = "passed" if done.returncode == 0 else "FAILED"
    print(f"mcp {part}: {verdict} in {time.monotonic() - began:.1f} s", flush=True)
    if done.returncode != 0:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr, flush=True)
    elif done.stdout:
        print(done.stdout.rstrip(), flush=True)
    return done.returncode == 0


def main():
    binary, example, *parts = sys.argv[1:]
    unknown = set(parts) - set(PARTS)
    if unknown:
        sys.exit(f"there is no part {', '.join(sorted(unknown))}; parts: {', '.join(PARTS)}")
    enter_namespace()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda part: run(part, binary, example), parts or PARTS))
    sys.exit(0 if all(results) else "tests/mcp: not all parts have passed")


if __name__ == "__main__":
    main()
