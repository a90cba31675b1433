//! Which lines are folded, and to what.

use super::*;
use crate::protocol::mcp::excerpt::{clean_lines::CleanLines, pieces::Pieces};

/// What is left: `text`, `text x3`, or `first…count…last`.
fn folded(text: &str, folds_digits: bool, is_diagnostic: bool) -> Vec<String> {
    let texts = |lines: &[CleanLine<'_>]| -> String {
        let texts: Vec<&str> = lines.iter().map(|line| &*line.text).collect();
        texts.join(",")
    };
    let mut all = Vec::new();
    let mut out = |folded: Folded<'_>| {
        all.push(match folded {
            Folded::Line(line) => line.text.to_string(),
            Folded::Repeated { line, times, range } => {
                format!("{} x{times} {range:?}", line.text)
            }
            Folded::Similar {
                first,
                lines,
                range,
                last,
            } => format!("{}…{lines} {range:?}…{}", texts(&first), texts(&last)),
            Folded::Redrawn(rows) => format!("redrawn {}", rows.times),
            Folded::Absent(range, _) => format!("absent {range:?}"),
        });
    };
    let pieces = Pieces::whole(text.as_bytes());
    let parts = pieces.parts();
    let mut folder = Folder::new(folds_digits);
    for entry in CleanLines::new(&parts) {
        folder.push(entry, is_diagnostic, &mut out);
    }
    folder.finish(&mut out);
    all
}

#[test]
fn equal_lines_are_folded_from_four_on() {
    assert_eq!(folded("a\na\na\nb\n", false, false), ["a", "a", "a", "b"]);
    assert_eq!(folded("a\na\na\na\nb\n", false, false), ["a x3 2..8", "b"]);
    assert_eq!(folded("a\na\na\na\n", false, true), ["a x3 2..8"]);
}

#[test]
fn progress_is_folded_to_its_first_and_last_report() {
    let text = "get 1%\nget 2%\nget 2%\nget 5%\nget 6%\nget 7%\nget 50%\nget 100%\ndone\n";
    assert_eq!(
        folded(text, false, false),
        ["get 1%…6 7..50…get 100%", "done"]
    );
    assert_eq!(folded(text, false, true).len(), 9);
    let few = text.split_once('\n').map_or("", |(_, few)| few);
    assert_eq!(folded(few, false, false).len(), 8);
}

#[test]
fn lines_that_differ_in_digits_can_be_data() {
    let text: String = (0..30).map(|n| format!("test a_{n} ... ok\n")).collect();
    assert_eq!(folded(&text, false, false).len(), 30);
    assert_eq!(folded(&text, true, true).len(), 30);
    let all = folded(&text, true, false);
    assert_eq!(all.len(), 1);
    assert!(
        all[0].contains("a_7 ... ok…14 128..364…test a_22"),
        "{all:?}"
    );
    let few: String = text
        .lines()
        .take(23)
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(folded(&few, true, false).len(), 23);
}
