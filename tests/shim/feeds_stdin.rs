//! stdin gets its bytes and then ends; without any it is empty from the beginning.

use cc_executor::job::Stream;

use crate::harness::{Shim, code, shell};

#[test]
fn a_megabyte_is_fed_to_a_slow_reader() {
    let shim = Shim::start();
    let mut spec = shell("sleep 0.2; cat");
    let text: String = (0..100_000).map(|i| format!("{i:09}\n")).collect();
    spec.stdin = Some(text.clone());
    assert_eq!(shim.run_to_end(spec).exit, code(0));
    assert!(shim.output(Stream::Stdout) == text.as_bytes());
}

#[test]
fn a_reader_that_does_not_read_is_no_trouble() {
    let shim = Shim::start();
    let mut spec = shell("exec 0<&-; sleep 0.1; echo done");
    spec.stdin = Some("x".repeat(1 << 20));
    assert_eq!(shim.run_to_end(spec).exit, code(0));
    assert_eq!(shim.output(Stream::Stdout), b"done\n");
}

#[test]
fn without_stdin_there_is_nothing_to_read() {
    let shim = Shim::start();
    assert_eq!(
        shim.run_to_end(shell("cat; readlink /proc/self/fd/0")).exit,
        code(0)
    );
    assert_eq!(shim.output(Stream::Stdout), b"/dev/null\n");
}
