"""Installs the agents with npm, each into a folder of its own below `.agents/`.

`python3 tests/agents/install.py [--only NAME]... [--folder DIR]`

The versions are those that the scenarios have been seen to pass with. npm chooses an older release
of a package by itself where Node.js is too old for the newest, so the exact version is named.
"""

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_FOLDER = ROOT / ".agents"

# The oldest major version of Node.js that every agent accepts.
NODE_MAJOR_MIN = 22

# A package of several hundred megabytes on a slow line.
NPM_TIMEOUT_S = 900


@dataclass(frozen=True)
class Package:
    """An npm package and the program that it brings."""

    name: str
    version: str
    program: str


NODE = Package("node", "24.21.0", "node")
AGENTS = {
    "claude": Package("@anthropic-ai/claude-code", "2.1.332", "claude"),
    "codex": Package("@openai/codex", "0.171.0", "codex"),
    "gemini": Package("@google/gemini-cli", "0.61.0", "gemini"),
    "opencode": Package("opencode-ai", "1.18.33", "opencode"),
}


def programs_of(folder, name):
    """The directory with the programs of an installed package."""
    return Path(folder) / name / "node_modules" / ".bin"


def search_path(folder):
    """`PATH` with the installed Node.js first, where there is one."""
    path = os.environ.get("PATH", os.defpath)
    node = programs_of(folder, "node")
    return f"{node}{os.pathsep}{path}" if node.is_dir() else path


def is_installed(folder, name, package):
    stamp = Path(folder) / name / "installed"
    wanted = f"{package.name}@{package.version}\n"
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted


def install(folder, name, package):
    """Installs the package unless that version is there; raises `OSError` with npm's words."""
    if is_installed(folder, name, package):
        return
    place = Path(folder) / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    # Without a file of its own, npm would install into a project above this directory.
    (place / "package.json").write_text('{"private": true}\n', encoding="utf-8")
    wanted = f"{package.name}@{package.version}"
    command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", wanted]
    environment = os.environ | {"PATH": search_path(folder)}
    done = subprocess.run(
        command, cwd=place, env=environment, timeout=NPM_TIMEOUT_S,
        capture_output=True, text=True, check=False,
    )
    if done.returncode != 0:
        raise OSError(f"npm install {wanted} ended with {done.returncode}: {done.stderr.strip()}")
    (place / "installed").write_text(f"{wanted}\n", encoding="utf-8")


def node_is_too_old():
    try:
        version = subprocess.run(
            ["node", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return True
    return int(version.lstrip("v").split(".")[0]) < NODE_MAJOR_MIN


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--only", action="append", choices=sorted(AGENTS), metavar="NAME",
                         help=f"install this one: {', '.join(sorted(AGENTS))}")
    options.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    chosen = options.parse_args()
    if shutil.which("npm") is None:
        sys.exit("tests/agents/install.py: npm is missing; install it (Debian: apt install npm)")
    wanted = {name: AGENTS[name] for name in chosen.only or AGENTS}
    if node_is_too_old():
        wanted = {"node": NODE} | wanted
    for name, package in wanted.items():
        try:
            install(chosen.folder, name, package)
        except (OSError, subprocess.TimeoutExpired) as error:
            sys.exit(f"tests/agents/install.py: {error}")
        print(f"{name}: {package.name} {package.version}")


if __name__ == "__main__":
    main()
