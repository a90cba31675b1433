"""Drives real agents with a scripted model against cc-executor, without a network.

`python3 tests/agents/run.py BINARY [--only AGENT]... [--scenario NAME]... [--transport NAME]...`

`--install` installs the agents first, which needs a network. What each case saw is kept in
`target/agents/SCENARIO-AGENT-TRANSPORT`: `view.txt` is what the model was shown of our tools,
`model.jsonl` has every request to it.
"""

import argparse
import shutil
import sys
import time
import traceback
from pathlib import Path

import install
import namespace
import programs
import scenarios
from case import Case

FOLDER = install.ROOT / "target" / "agents"

# Characters of a failure's beginning and of its end that are printed; the kept files have all.
PROBLEM_END_CHARS = 600


def parse():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("binary", type=Path)
    options.add_argument("--only", action="append", choices=sorted(programs.ALL), metavar="AGENT",
                         help=f"only this agent: {', '.join(sorted(programs.ALL))}")
    options.add_argument("--scenario", action="append", choices=sorted(scenarios.ALL),
                         metavar="NAME", help=f"only this: {', '.join(scenarios.ALL)}")
    options.add_argument("--transport", action="append", choices=["http", "stdio", "ws"])
    options.add_argument("--quick", action="store_true",
                         help="leave out what takes longer than 20 s: for CI")
    options.add_argument("--may-skip", action="store_true",
                         help="what cannot run here, such as an agent that cannot be installed, "
                              "is no failure")
    options.add_argument("--install", action="store_true", help="install the agents first")
    options.add_argument("--tools", type=Path, default=install.DEFAULT_FOLDER,
                         help="where the agents are installed")
    return options.parse_args()


def cases(options, binary):
    """The cases that were asked for; instead of one that cannot run, the reason."""
    for name, program in chosen(options).items():
        package = install.AGENTS[name]
        if not install.is_installed(options.tools, name, package):
            yield f"{name}: {package.name} {package.version} is not installed"
            continue
        for scenario in scenarios.ALL.values():
            for transport in program.transports:
                if is_asked_for(options, scenario, program, transport):
                    case = Case(scenario, program, transport, binary, options.tools, FOLDER)
                    missing = scenario.missing_commands()
                    yield f"{case.name}: install {', '.join(missing)}" if missing else case


def chosen(options):
    names = options.only or programs.ALL
    return {name: programs.ALL[name] for name in names}


def is_asked_for(options, scenario, program, transport):
    return (
        (not options.scenario or scenario.name in options.scenario)
        and (not options.transport or transport in options.transport)
        and not (options.quick and scenario.is_slow(program, transport))
        and scenario.fits(program, transport)
    )


def run(case):
    """Whether the case passed; prints one line, and why if it did not."""
    began = time.monotonic()
    try:
        case.run()
        problem = None
    except Exception as error:  # of whatever kind: the other cases still run
        problem = describe(error)
    took = time.monotonic() - began
    print(f"{'FAILED' if problem else 'ok':6} {took:6.1f} s  {case.name}", flush=True)
    if problem:
        print(f"{problem}\nkept: {case.folder}", flush=True)
    return problem is None


def describe(error):
    """What went wrong, and the line of this harness that has found it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = "".join(traceback.format_exception_only(error)).strip()
    if len(what) > 2 * PROBLEM_END_CHARS:
        what = f"{what[:PROBLEM_END_CHARS]}\n[…]\n{what[-PROBLEM_END_CHARS:]}"
    return f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}\n{what}"


def main():
    options = parse()
    if options.install and not namespace.is_inside():
        problems = install.install_all(options.tools, list(chosen(options)))
        for name, problem in problems.items():
            print(f"{name}: cannot be installed: {problem}", flush=True)
    namespace.enter()
    # A build may replace the binary meanwhile. A file that runs cannot be written, but unlinked.
    copy = FOLDER / "bin" / "cc-executor"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.unlink(missing_ok=True)
    shutil.copy2(options.binary, copy)
    failed, passed, missing = [], 0, []
    for case in cases(options, copy):
        if isinstance(case, str):
            print(f"{'SKIP' if options.may_skip else 'FAILED':6} {case}", flush=True)
            missing.append(case)
        elif run(case):
            passed += 1
        else:
            failed.append(case.name)
    print(f"{passed} passed, {len(failed)} failed, {len(missing)} could not run")
    if failed or not passed or (missing and not options.may_skip):
        sys.exit(1)


if __name__ == "__main__":
    main()
