//! Outputs of known programs, abridged, and their makers.

/// A cargo build that fails: two errors among some 90 KB of warnings.
pub(super) fn cargo_build() -> String {
    let mut text = "   Compiling demo v0.1.0 (/src/demo)\n".to_owned();
    for n in 0..520 {
        if n == 200 {
            text += CARGO_ERROR;
        }
        if n == 400 {
            text += "error[E0425]: cannot find value `total` in this scope\n  --> src/sum.rs:44:12\n   |\n\
                     44 |     print(total);\n   |           ^^^^^ not found in this scope\n\n";
        }
        text += &format!(
            "warning: unused variable: `spare_{n}`\n  --> src/many.rs:{}:9\n   |\n{:3} |     let spare_{n} = \
             error();\n   |         ^^^^^^^^ help: prefix it with an underscore: `_spare_{n}`\n\n",
            4 * n + 2,
            4 * n + 2
        );
    }
    text + "Some errors have detailed explanations: E0308, E0425.\n\
            warning: `demo` (bin \"demo\") generated 520 warnings\n\
            error: could not compile `demo` (bin \"demo\") due to 2 previous errors; 520 warnings emitted\n"
}

/// The first error of [`cargo_build`].
pub(super) const CARGO_ERROR: &str = "\
error[E0308]: mismatched types
  --> src/sum.rs:3:18
   |
3  |     let x: u32 = \"a\";
   |            ---   ^^^ expected `u32`, found `&str`
   |            |
   |            expected due to this

";

/// The same build on a terminal: colours, hyperlinks, a progress bar, CR before each newline.
pub(super) fn on_a_terminal(text: &str) -> Vec<u8> {
    let mut bytes = b"\x1b]0;cargo build\x07\x1b[?25l".to_vec();
    for (n, line) in text.lines().enumerate() {
        bytes.extend(format!("    Building [==>   ] {n}/2000: demo\r\x1b[K").bytes());
        let (word, rest) = line.split_at(line.find([':', ' ']).unwrap_or(line.len()));
        bytes.extend(format!("\x1b[1m\x1b[38;5;9m{word}\x1b[0m{rest}\x1b(B\r\n").bytes());
    }
    bytes.extend(b"\x1b[?25h");
    bytes
}

/// pytest with a failed assertion and a broken fixture.
pub(super) const PYTEST: &str = "\
============================= test session starts ==============================
collected 3 items

test_x.py .FE                                                            [100%]

==================================== ERRORS ====================================
__________________________ ERROR at setup of test_fix __________________________

    @pytest.fixture
>   def bad(): raise RuntimeError(\"broke\")
E   RuntimeError: broke

test_x.py:11: RuntimeError
=================================== FAILURES ===================================
_________________________________ test_assert __________________________________

    def test_assert():
>       assert sizes() == [1, 2, 4]
E       assert [1, 2, 3] == [1, 2, 4]
E         
E         At index 2 diff: 3 != 4

test_x.py:7: AssertionError
=========================== short test summary info ============================
FAILED test_x.py::test_assert - assert [1, 2, 3] == [1, 2, 4]
ERROR test_x.py::test_fix - RuntimeError: broke
===================== 1 failed, 1 passed, 1 error in 0.04s =====================
";

/// An exception that was raised from another one.
pub(super) const CHAINED: &str = "\
Traceback (most recent call last):
  File \"chain.py\", line 3, in a
    1/0
    ~^~
ZeroDivisionError: division by zero

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File \"chain.py\", line 9, in <module>
    a()
  File \"chain.py\", line 5, in a
    raise ValueError(\"bad\") from e
ValueError: bad
that is the second line
make: *** [Makefile:2: run] Error 1
";

/// make and gcc: warnings, errors, and a linker that misses two functions.
pub(super) const MAKE: &str = "\
gcc -Wall -c a.c
a.c: In function ‘main’:
a.c:6:5: warning: implicit declaration of function ‘prinf’ [-Wimplicit-function-declaration]
    6 |     prinf(\"x %s\\n\", 3);
      |     ^~~~~
a.c:7:12: error: ‘undeclared’ undeclared (first use in this function)
    7 |     return undeclared;
      |            ^~~~~~~~~~
a.c:7:12: note: each undeclared identifier is reported only once
make: *** [Makefile:3: a] Error 1
gcc -Wall -o b b.c
/usr/bin/ld: /tmp/b.o: in function `main':
b.c:(.text+0xf): undefined reference to `missing'
/usr/bin/ld: b.c:(.text+0x16): undefined reference to `other'
collect2: error: ld returned 1 exit status
make: *** [Makefile:5: b] Error 1
";

/// tsc for people, with its colours.
pub(super) const TSC: &str = "\
\x1b[96msrc/a.ts\x1b[0m:\x1b[93m1\x1b[0m:\x1b[93m7\x1b[0m - \x1b[91merror\x1b[0m\x1b[90m TS2322: \x1b[0mType 'string' \
is not assignable to type 'number'.

\x1b[7m1\x1b[0m const x: number = \"a\";
\x1b[7m \x1b[0m \x1b[91m      ~\x1b[0m


Found 1 error in src/a.ts\x1b[90m:1\x1b[0m

";

/// A Maven build with an error of two lines.
pub(super) const MAVEN: &str = "\
[INFO] Compiling 3 source files
[ERROR] COMPILATION ERROR :
[ERROR] /src/App.java:[5,9] cannot find symbol
[ERROR]   symbol:   variable total
[ERROR]   location: class App
[INFO] 1 error
[INFO] BUILD FAILURE
[ERROR] Failed to execute goal compile on project app: Compilation failure
[ERROR] -> [Help 1]
";

/// A Java exception with a cause far below.
pub(super) fn java() -> String {
    let frames: String = (1..40)
        .map(|n| format!("\tat app.Main.step{n}(Main.java:{n})\n"))
        .collect();
    format!(
        "Exception in thread \"main\" java.lang.RuntimeException: outer\n{frames}Caused by: \
         java.io.IOException: middle\n{frames}Caused by: java.net.ConnectException: refused\n{frames}\t... 3 more\ndone\n"
    )
}

/// Go: a test that fails and a panic.
pub(super) const GO: &str = "\
=== RUN   TestAdd
    add_test.go:9: got 3, want 4
--- FAIL: TestAdd (0.00s)
    add_test.go:9: got 3, want 4
panic: runtime error: index out of range [3] with length 2

goroutine 7 [running]:
main.pick(...)
\t/src/main.go:12
exit status 2
FAIL\texample.com/add\t0.003s
";

/// Jest, ESLint and mocha.
pub(super) const JAVASCRIPT: &str = "\
FAIL ./sum.test.js
  math
    ✕ adds (3 ms)
    ✓ shows error: fine

  ● math › adds

    expect(received).toBe(expected)

    Expected: 3
    Received: 2

Tests:       1 failed, 1 passed, 2 total

/src/e.js
  1:5   error    'a' is never reassigned  prefer-const
  1:26  warning  'b' is never used        no-unused-vars

✖ 2 problems (1 error, 1 warning)

  1 passing (4ms)
  1 failing

  1) math
       adds:

      AssertionError [ERR_ASSERTION]: 2 == 3
      at Context.<anonymous> (m.js:1:82)

";
