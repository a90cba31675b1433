"""A build fails with 90 KB of output: the model sees the error, the exit code and a next call."""

from case import Scenario
from script import Call, FollowNext, Say

ERROR = "src/parser.c:418:17: error: 'lexer' undeclared (first use in this function)"
EXIT_CODE = 2
OUTPUT_BYTES_MIN = 90_000

# Compiles 1000 files; one of them fails in the middle, while others are still being compiled.
BUILD = f"""\
import sys
for number in range(1000):
    print(f"cc -O2 -Wall -Wextra -Iinclude -Ibuild/generated -c -o build/module_{{number:04}}.o "
          f"src/module_{{number:04}}.c")
    if number == 500:
        print("src/parser.c: In function 'parse_block':")
        print({ERROR!r})
        print("  418 |     token = next(lexer);")
        print("      |                  ^~~~~")
print("make: *** [Makefile:12: build/parser.o] Error 1")
sys.exit({EXIT_CODE})
"""


def prepare(work):
    (work / "build.py").write_text(BUILD, encoding="utf-8")


def check(case):
    first, second = case.model.view.texts
    assert ERROR in first, first
    status = first.replace("\\n", "\n").partition("next:")[0]
    assert f"exit code {EXIT_CODE}" in status, first
    # The second call is the one that the first result has offered.
    assert second.strip() and "next:" in second, second
    [job] = case.server.jobs()
    assert (job["state"], job["exit_code"]) == ("failed", EXIT_CODE), job
    assert job["output_bytes"] > OUTPUT_BYTES_MIN, job
    shown = case.server.ask("show", str(job["number"]))
    assert shown["id"] == job["id"], shown


SCENARIO = Scenario(
    name="build_fails",
    steps=(
        Call("run", {"command": "python3 build.py", "cwd": "{work}", "wait_s": 30}),
        FollowNext(),
        Say("The build fails in src/parser.c."),
    ),
    check=check,
    prepare=prepare,
)
