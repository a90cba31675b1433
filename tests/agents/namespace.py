"""Runs this program in a network namespace that has loopback and nothing else."""

import fcntl
import os
import socket
import struct
import subprocess
import sys

# Set in the environment of the program that runs inside.
INSIDE = "AGENTS_IN_NAMESPACE"

# From Linux' sockios.h and if.h: reads and sets an interface's flags; the flag for "up".
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def enter():
    """Starts the program again inside, unless it is there already; then brings loopback up."""
    if INSIDE in os.environ:
        bring_loopback_up()
        refuse_other_routes()
        return
    # Root needs no user namespace; other users get one in which they may configure loopback.
    for options in (["--net"], ["--map-root-user", "--net"]):
        unshare = ["unshare", *options]
        if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode == 0:
            os.environ[INSIDE] = "1"
            os.execvp("unshare", [*unshare, sys.executable, *sys.argv])
    sys.exit("tests/agents: no network namespace: run it as root, or allow user namespaces")


def bring_loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack_from("16xH", fcntl.ioctl(control, SIOCGIFFLAGS, request))
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def refuse_other_routes():
    """An agent that could reach a network would not show that it works without one."""
    with open("/proc/net/route", encoding="ascii") as file:
        routes = file.readlines()[1:]
    if routes:
        sys.exit(f"tests/agents: {INSIDE} is set, but there are routes: {routes}")
