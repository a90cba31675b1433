"""A build fails with 90 KB of output: the model sees the error, the exit code and a next call."""

from case import Scenario
from script import Call, FollowNext, Say

ERROR = "src/parser.c:418:17: error: 'lexer' undeclared (first use in this function)"
EXIT_CODE = 2
OUTPUT_BYTES_MIN = 90_000

# Compiles some hundred files, no two lines alike, with warnings before and after the one error.
BUILD = f"""\
import random, sys
choose = random.Random(4711)
words = "alpha beta gamma delta echo fox golf hotel india julia kilo lima mike oscar papa".split()
def name():
    return "_".join(choose.sample(words, 2))
for number in range(1200):
    file = f"src/{{name()}}/{{name()}}.c"
    flags = " ".join(f"-D{{name().upper()}}={{choose.randrange(100)}}" for _ in range(2))
    print(f"cc {{flags}} -c {{file}} -o build/{{number}}.o")
    if number % 25 == 0:
        print(f"{{file}}:{{choose.randrange(900)}}:7: warning: unused variable '{{name()}}'")
    if number == 600:
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
    assert "next:" in second and "refused (" not in second, second
    [job] = case.server.jobs()
    assert (job["state"], job["exit_code"]) == ("failed", EXIT_CODE), job
    assert job["output_bytes"] > OUTPUT_BYTES_MIN, job
    shown = case.server.ask("show", str(job["number"]))
    assert case.program.name in shown["labels"]["mcp.client"], shown["labels"]
    [row] = case.server.rows("SELECT exit_code, output_bytes FROM history_jobs")
    assert row == {"exit_code": EXIT_CODE, "output_bytes": job["output_bytes"]}, row


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
