//! Which lines report something, and which only look like it.

use super::*;
use crate::protocol::mcp::excerpt::diagnose::Severity::{
    self, Error, Failure, Mention, Summary, Warning,
};

fn severity(line: &str) -> Option<Severity> {
    rule(body(line)).and_then(|rule| rule.severity)
}

fn all_are(expected: Option<Severity>, lines: &[&str]) {
    for line in lines {
        assert_eq!(severity(line), expected, "{line}");
    }
}

#[test]
fn every_pattern_is_valid() {
    let all = BEGINNINGS.iter().chain(WORDS).map(|rule| rule.pattern);
    for pattern in all.chain(HARMLESS_WORDS.iter().copied()) {
        assert!(compile(&[pattern]).is_ok(), "{pattern}");
    }
}

#[test]
fn errors_are_known_by_their_first_line() {
    all_are(
        Some(Error),
        &[
            "error[E0308]: mismatched types",
            "error: linking with `cc` failed: exit status: 1",
            "thread 'main' panicked at src/main.rs:4:5:",
            "thread 'tests::adds' (5970) panicked at src/main.rs:5:25:",
            "main.c:7:12: error: 'x' undeclared (first use in this function)",
            "src/a b.cpp:1:10: fatal error: missing.h: No such file or directory",
            "/usr/bin/ld: cannot find -lmissing",
            "b.c:(.text+0xf): undefined reference to `missing'",
            "./main.go:9:2: undefined: foo",
            "panic: runtime error: index out of range [3] with length 2",
            "src/a.ts(3,5): error TS2322: Type 'string' is not assignable",
            "src/a.ts:3:5 - error TS2322: Type 'string' is not assignable",
            "Program.cs(3,5): error CS0103: The name 'x' does not exist",
            "  1:12  error    'foo' is not defined  no-undef",
            "  ● math › adds",
            "npm ERR! missing script: build",
            "npm error code ENOENT",
            "Traceback (most recent call last):",
            "  File \"x.py\", line 1",
            "E       assert 1 == 2",
            "ModuleNotFoundError: No module named 'x'",
            "pkg.errors.BadThing.SomeError: broken",
            "java.lang.NullPointerException",
            "AssertionError [ERR_ASSERTION]: 2 == 3",
            "Exception in thread \"main\" java.lang.RuntimeException: x",
            "[ERROR] /src/App.java:[5,9] cannot find symbol",
            "FAILURE: Build failed with an exception.",
            "App.java:5: error: cannot find symbol",
            "make: *** No rule to make target 'x', needed by 'all'.  Stop.",
            "ninja: error: loading 'build.ninja': No such file or directory",
            "CMake Error at CMakeLists.txt:3 (find_package):",
            "Error: no test specified",
            "ERROR: No matching distribution found for x",
            "fatal: not a git repository (or any of the parent directories): .git",
            "#12 3.456 main.c:7:12: error: 'x' undeclared",
            "web_1  | error: port in use",
            "2026-01-02T03:04:05.678Z error: port in use",
        ],
    );
}

#[test]
fn failures_summaries_and_warnings_are_told_apart() {
    all_are(
        Some(Failure),
        &[
            "test tests::adds ... FAILED",
            "--- FAIL: TestAdd (0.00s)",
            "    --- FAIL: TestAdd/sub (0.00s)",
            "FAIL ./sum.test.js",
            " FAIL  src/a.test.ts > adds",
            "    ✕ adds (3 ms)",
            "   × adds 6ms",
            "not ok 1 - adds",
            "FAILED test_x.py::test_key - KeyError: 'b'",
            "ERROR test_x.py::test_fix - RuntimeError: fixture broke",
            "FAIL: test_a (__main__.T.test_a)",
            "test_b (__main__.T.test_b) ... ERROR",
            "[  FAILED  ] Sum.Adds (0 ms)",
            "> Task :compileJava FAILED",
            "FAILED: CMakeFiles/a.dir/a.c.o",
        ],
    );
    all_are(
        Some(Summary),
        &[
            "error: could not compile `demo` (bin \"demo\") due to 2 previous errors",
            "error: test failed, to rerun pass `--bin demo`",
            "warning: `demo` (bin \"demo\") generated 900 warnings",
            "failures:",
            "test result: FAILED. 2 passed; 2 failed; 0 ignored",
            "collect2: error: ld returned 1 exit status",
            "make: *** [Makefile:3: a] Error 1",
            "make[2]: *** [Makefile:3: a] Error 1",
            "FAIL\texample.com/x\t0.003s",
            "✖ 4 problems (3 errors, 1 warning)",
            "Found 3 errors in the same file, starting at: src/a.ts:1",
            "Tests:       2 failed, 1 passed, 3 total",
            "===================== 2 failed, 1 passed, 1 error in 0.04s =====================",
            "FAILED (failures=1, errors=1)",
            "BUILD FAILED in 2s",
            "[INFO] BUILD FAILURE",
            "ninja: build stopped: subcommand failed.",
        ],
    );
    all_are(
        Some(Warning),
        &[
            "warning: unused variable: `x`",
            "a.c:4:9: warning: unused variable 'unused' [-Wunused-variable]",
            "npm warn deprecated inflight@1.0.6: not supported",
            "  1:26  warning  'b' is assigned a value but never used  no-unused-vars",
            "[WARNING] deprecated",
            "x.py:3: DeprecationWarning: old",
            "12:00:01 WARN pool: error: connection lost, trying again",
        ],
    );
}

#[test]
fn words_of_an_error_are_enough() {
    all_are(
        Some(Mention),
        &[
            "bash: foo: command not found",
            "sh: 1: foo: not found",
            "cat: x: No such file or directory",
            "mkdir: cannot create directory 'x': Permission denied",
            "bash: -c: line 1: syntax error near unexpected token `('",
            "2024-01-01 12:00:00 ERROR pool: connection lost",
            "[12:00:00] [ERROR] connection lost",
            "ts=1 level=error msg=\"connection lost\"",
            "{\"level\":\"error\",\"msg\":\"connection lost\"}",
            "Segmentation fault (core dumped)",
            "Killed",
            "./run.sh: line 3:  1234 Killed                  ./big",
            "Out of memory: Killed process 42",
            "Error response from daemon: no such image",
            "app: error: unrecognized arguments: -x",
            "prog: main.c:5: main: Assertion `x == 1' failed.",
            "Failed to connect to server",
            "web: ValueError: bad",
            "tar: write error: No space left on device",
        ],
    );
}

#[test]
fn what_only_looks_like_an_error_is_none() {
    all_are(
        None,
        &[
            "",
            "0 errors",
            "Found 0 errors. Watching for file changes.",
            "build finished with no error",
            "error_count=0",
            "errors: 0",
            "\"error\": null,",
            "Tests run: 5, Failures: 0, Errors: 0",
            "   Compiling thiserror v1.0.0",
            "   Compiling error-chain v0.12.4 (/x/src/error.rs)",
            "Collecting errors",
            "src/error.rs",
            "test error_is_shown ... ok",
            "test panics::error: is shown ... ok",
            "  ✓ ok error: fine",
            "ok 2 - handles error: x",
            "--- PASS: TestError (0.00s)",
            "tests/test_x.py::test_error PASSED [ 50%]",
            "+ echo 'error: x'",
            "    if err != nil { return fmt.Errorf(\"x\") }",
            "curl --fail-with-error http://x/error: y",
            "gcc -Werror -o a a.c",
            "3 | let error = 1;",
            "process exited with exit code 0",
            "On error the job is retried",
        ],
    );
}

#[test]
fn only_what_merges_outputs_is_taken_off() {
    assert_eq!(body("3 |     let x"), "3 |     let x");
    assert_eq!(body("a || b"), "a || b");
    assert_eq!(body("#include <x>"), "#include <x>");
    assert_eq!(body("web-1  |   x"), "  x");
    assert_eq!(body("größe | x"), "größe | x");
    assert_eq!(body("2026-01-02T03:04:05Z x"), "x");
}
