//! What is found in the outputs of known programs: where it begins and ends, what is shown of it.

use super::Severity::{self, Error, Failure, Mention, Summary, Warning};
use crate::protocol::mcp::excerpt::{Pieces, diagnostics, fixtures};

/// The diagnostics of one severity: the number of the first line, then all lines.
fn found(text: &str, severity: Severity) -> Vec<(u64, Vec<String>)> {
    let found = diagnostics(&Pieces::whole(text.as_bytes()));
    let all = found.kept(severity).map(|each| {
        let bytes = &text.as_bytes()[each.from as usize..each.to as usize];
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        // The range is that of the lines, whole ones.
        assert!(
            bytes.ends_with(b"\n") && lines + 1 >= each.text.len(),
            "{each:?}"
        );
        (each.number.expect("known"), each.text.clone())
    });
    all.collect()
}

/// The same as one text each.
fn texts(text: &str, severity: Severity) -> Vec<String> {
    let all = found(text, severity);
    all.into_iter().map(|(_, lines)| lines.join("\n")).collect()
}

#[test]
fn an_error_of_rustc_is_shown_to_the_blank_line() {
    let build = fixtures::cargo_build();
    let errors = texts(&build, Error);
    assert_eq!(errors.len(), 2);
    assert_eq!(errors[0], fixtures::CARGO_ERROR.trim_end());
    let all = diagnostics(&Pieces::whole(build.as_bytes()));
    assert_eq!(all.found(Warning), 520);
    assert_eq!(all.found(Summary), 2);
    assert_eq!(all.found(Mention), 0);
    let first = all.kept(Error).next().expect("an error");
    assert_eq!(first.number, Some(1 + 200 * 6 + 1));
    let from = first.from as usize;
    assert!(build[from..first.to as usize].starts_with("error[E0308]"));
}

#[test]
fn a_panic_is_shown_to_its_backtrace() {
    let text = "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\n\nthread 'b' panicked at \
                src/lib.rs:5:9:\nassertion `left == right` failed\n  left: 2\n right: 3\nnote: run with \
                `RUST_BACKTRACE=1`\n\n\nfailures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed\n";
    let panic = "thread 'b' panicked at src/lib.rs:5:9:\nassertion `left == right` failed\n  left: 2\n right: 3";
    assert_eq!(texts(text, Error), [panic]);
    assert_eq!(texts(text, Failure), ["test b ... FAILED"]);
    assert_eq!(
        texts(text, Summary),
        [
            "failures:",
            "failures:\n    b",
            "test result: FAILED. 1 passed; 1 failed"
        ]
    );
}

#[test]
fn pytest_is_shown_with_the_statement_and_the_place() {
    let errors = found(fixtures::PYTEST, Error);
    assert_eq!(errors.len(), 2);
    assert_eq!(errors[0].0, 10);
    assert_eq!(
        errors[0].1,
        [
            ">   def bad(): raise RuntimeError(\"broke\")",
            "E   RuntimeError: broke",
            "",
            "test_x.py:11: RuntimeError"
        ]
    );
    assert_eq!(errors[1].1.len(), 6);
    assert_eq!(texts(fixtures::PYTEST, Failure).len(), 2);
    assert_eq!(texts(fixtures::PYTEST, Summary).len(), 1);
    assert!(texts(fixtures::PYTEST, Mention).is_empty());
}

#[test]
fn a_chain_of_exceptions_is_one_error_with_all_of_them() {
    let errors = texts(fixtures::CHAINED, Error);
    assert_eq!(errors.len(), 1);
    let lines: Vec<&str> = errors[0].lines().collect();
    assert_eq!(lines[0], "Traceback (most recent call last):");
    assert_eq!(lines[4], "ZeroDivisionError: division by zero");
    assert!(lines.contains(&"ValueError: bad"), "{lines:#?}");
    assert_eq!(lines.last(), Some(&"that is the second line"));
    assert_eq!(
        texts(fixtures::CHAINED, Summary),
        ["make: *** [Makefile:2: run] Error 1"]
    );
}

#[test]
fn a_compiler_error_has_its_snippet_and_its_notes() {
    let errors = found(fixtures::MAKE, Error);
    assert_eq!(errors.len(), 3);
    assert_eq!((errors[0].0, errors[0].1.len()), (6, 4));
    assert_eq!(
        errors[1].1,
        [
            "/usr/bin/ld: /tmp/b.o: in function `main':",
            "b.c:(.text+0xf): undefined reference to `missing'"
        ]
    );
    assert_eq!(found(fixtures::MAKE, Warning)[0].1.len(), 3);
    assert_eq!(texts(fixtures::MAKE, Summary).len(), 3);
}

#[test]
fn a_snippet_after_a_blank_line_belongs_to_it() {
    let errors = texts(fixtures::TSC, Error);
    assert_eq!(
        errors,
        [
            "src/a.ts:1:7 - error TS2322: Type 'string' is not assignable to type 'number'.\n\n1 const x: \
          number = \"a\";\n        ~"
        ]
    );
    assert_eq!(
        texts(fixtures::TSC, Summary),
        ["Found 1 error in src/a.ts:1"]
    );
}

#[test]
fn maven_goes_on_where_the_next_line_is_indented() {
    let errors = found(fixtures::MAVEN, Error);
    let lines: Vec<usize> = errors.iter().map(|(_, lines)| lines.len()).collect();
    assert_eq!(lines, [1, 3, 1]);
    assert_eq!(texts(fixtures::MAVEN, Summary), ["[INFO] BUILD FAILURE"]);
}

#[test]
fn javac_shows_the_statement_before_it_points_into_it() {
    let text = "App.java:3: error: cannot find symbol\nint x = foo();\n        ^\n  symbol: foo()\n1 error\n";
    assert_eq!(
        texts(text, Error),
        ["App.java:3: error: cannot find symbol\nint x = foo();\n        ^\n  symbol: foo()"]
    );
}

#[test]
fn every_cause_of_a_long_trace_is_shown() {
    let errors = texts(&fixtures::java(), Error);
    assert_eq!(errors.len(), 1);
    for cause in [
        "outer",
        "IOException: middle",
        "ConnectException: refused",
        "... 3 more",
    ] {
        assert!(errors[0].contains(cause), "{}", errors[0]);
    }
    assert!(
        errors[0].contains(" lines omitted, bytes "),
        "{}",
        errors[0]
    );
    assert!(errors[0].lines().count() <= 8 + 1 + 4 + 4);
    assert!(!errors[0].contains("done"));
}

#[test]
fn go_is_shown_with_its_messages_and_the_goroutine() {
    assert_eq!(
        texts(fixtures::GO, Failure),
        ["--- FAIL: TestAdd (0.00s)\n    add_test.go:9: got 3, want 4"]
    );
    let panic = &texts(fixtures::GO, Error)[0];
    assert!(panic.starts_with("panic: runtime error"), "{panic}");
    assert!(panic.ends_with("\t/src/main.go:12"), "{panic}");
    assert_eq!(
        texts(fixtures::GO, Summary),
        ["FAIL\texample.com/add\t0.003s"]
    );
}

#[test]
fn javascript_runners_and_linters_are_known() {
    let errors = texts(fixtures::JAVASCRIPT, Error);
    assert_eq!(errors.len(), 3, "{errors:#?}");
    assert!(errors[0].starts_with("  ● math › adds\n") && errors[0].ends_with("Received: 2"));
    assert_eq!(
        errors[1],
        "/src/e.js\n  1:5   error    'a' is never reassigned  prefer-const"
    );
    assert!(errors[2].starts_with("  1) math\n") && errors[2].contains("2 == 3"));
    assert_eq!(
        texts(fixtures::JAVASCRIPT, Failure),
        ["FAIL ./sum.test.js", "    ✕ adds (3 ms)"]
    );
    assert_eq!(texts(fixtures::JAVASCRIPT, Warning).len(), 1);
}

#[test]
fn npm_is_one_error_however_many_lines_it_writes() {
    let text = "npm error code 1\nnpm error path /src\nnpm error command failed\nrest\nnpm ERR! code 1\nnpm ERR!\n";
    let errors = texts(text, Error);
    assert_eq!(
        errors,
        [
            "npm error code 1\nnpm error path /src\nnpm error command failed",
            "npm ERR! code 1\nnpm ERR!"
        ]
    );
}

#[test]
fn the_same_text_is_kept_once_and_counted() {
    let text = "a.h:1:2: warning: old\nx\napp ERROR no route\n".repeat(50);
    let all = diagnostics(&Pieces::whole(text.as_bytes()));
    for severity in [Warning, Mention] {
        assert_eq!(all.found(severity), 50);
        let kept: Vec<_> = all.kept(severity).collect();
        assert_eq!((kept.len(), kept[0].times), (1, 50));
    }
    assert_eq!(all.found_all(), 100);
}

#[test]
fn the_first_and_the_last_of_many_are_kept() {
    let text: String = (0..2_000)
        .map(|n| format!("error: number {n} is odd\n"))
        .collect();
    let all = diagnostics(&Pieces::whole(text.as_bytes()));
    assert_eq!(all.found(Error), 2_000);
    let kept: Vec<&str> = all.kept(Error).map(|each| &each.text[0][..]).collect();
    assert_eq!(kept.len(), 64);
    assert_eq!(kept[31], "error: number 31 is odd");
    assert_eq!(kept[63], "error: number 1999 is odd");
}

#[test]
fn a_diagnostic_ends_where_bytes_are_missing() {
    use crate::protocol::mcp::excerpt::Piece;
    let piece = |from, text: &'static str| Piece {
        from,
        bytes: text.as_bytes(),
    };
    let pieces = Pieces::new(
        vec![piece(0, "error: a\n  b\n"), piece(100, "  c\nerror: d\n")],
        113,
    );
    let all = diagnostics(&pieces);
    let kept: Vec<_> = all
        .kept(Error)
        .map(|each| (each.number, each.from, each.to))
        .collect();
    assert_eq!(kept, [(Some(1), 0, 13), (None, 104, 113)]);
}
