//! Whole excerpts: what is in them, their length, and that every byte is accounted for.

use std::ops::Range;

use super::{Bounds, Piece, Pieces, fixtures, lay};

fn bounds(chars_max: usize) -> Bounds {
    Bounds {
        chars_max,
        ..Bounds::default()
    }
}

fn of(bytes: &[u8], chars_max: usize) -> String {
    checked(&Pieces::whole(bytes), chars_max)
}

/// An excerpt whose length and ranges are checked.
pub(super) fn checked(pieces: &Pieces<'_>, chars_max: usize) -> String {
    checked_with(pieces, bounds(chars_max))
}

fn checked_with(pieces: &Pieces<'_>, bounds: Bounds) -> String {
    let chars_max = bounds.chars_max;
    let laid = lay(&pieces.parts(), bounds);
    let chars = laid.text.chars().count();
    assert!(chars <= chars_max, "{chars} of {chars_max}: {}", laid.text);
    let mut covered = laid.shown;
    covered.extend(ranges(&laid.text));
    covered.sort_by_key(|range| range.start);
    let mut at = pieces.from;
    for range in &covered {
        assert!(
            range.start <= at,
            "bytes {at}-{} are missing: {}",
            range.start,
            laid.text
        );
        at = at.max(range.end);
    }
    let end = pieces.parts().last().map_or(0, |part| part.range().end);
    assert!(
        chars_max < Bounds::CHARS_MIN || at >= end,
        "bytes {at}-{end} are missing: {}",
        laid.text
    );
    laid.text
}

/// The ranges that the notes of the output name.
fn ranges(text: &str) -> Vec<Range<u64>> {
    let output = match text.starts_with("diagnostics (") {
        true => text
            .split_once("\noutput:\n")
            .map_or("", |(_, output)| output),
        false => text,
    };
    let notes = output.lines().filter(|line| line.starts_with('['));
    let named = notes.filter_map(|line| line.split_once("bytes "));
    let ranges = named.filter_map(|(_, range)| {
        let end = range.find(|c: char| !c.is_ascii_digit() && c != '-')?;
        let (from, to) = range[..end].split_once('-')?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    ranges.collect()
}

#[test]
fn an_output_that_fits_is_shown_and_nothing_else() {
    assert_eq!(of(b"", 200), "");
    assert_eq!(of(b"a\nerror: b\n\x1b[1mc\x1b[0m", 200), "a\nerror: b\nc");
    let lines: String = (0..500).map(|n| format!("{n}\n")).collect();
    assert_eq!(of(lines.as_bytes(), 2_000), lines.trim_end());
    let long = "x".repeat(2_000);
    assert_eq!(of(long.as_bytes(), 2_000), long);
}

#[test]
fn repeats_and_progress_are_folded_in_any_case() {
    let text = format!("a\n{}b\n{}c\n", "same\n".repeat(41), "twice\n".repeat(3));
    assert_eq!(
        of(text.as_bytes(), 8_000),
        "a\nsame\n[last line repeated 40 times, bytes 7-207]\nb\ntwice\ntwice\ntwice\nc"
    );
    let text: String = (1..=100).map(|n| format!("Downloading {n}%\n")).collect();
    assert_eq!(
        of(text.as_bytes(), 8_000),
        "Downloading 1%\n[… 98 similar lines, bytes 15-1575]\nDownloading 100%"
    );
    assert_eq!(
        of(&b"\n".repeat(1_000_000), 200),
        "\n[last line repeated 999,999 times, bytes 1-1000000]"
    );
    let text = "a\nb 1%\n\x1b[1A\x1b[Kb 2%\n\x1b[1A\x1b[Kb 3%\nc\n";
    assert_eq!(
        of(text.as_bytes(), 200),
        "a\nb 3%\n[1 line above redrawn 2 times, bytes 2-31]\nc"
    );
}

#[test]
fn lines_that_differ_in_digits_are_folded_where_there_is_no_room() {
    let text: String = (0..1_000)
        .map(|n| format!("test case_{n} ... ok\n"))
        .collect();
    assert_eq!(of(text.as_bytes(), 50_000), text.trim_end());
    let short = of(text.as_bytes(), 8_000);
    let lines: Vec<&str> = short.lines().collect();
    assert_eq!(lines.len(), 17);
    assert_eq!(lines[8], "[… 984 similar lines, bytes 152-20722]");
    assert_eq!(lines[16], "test case_999 ... ok");
    // Each of the errors counts.
    let text: String = (0..1_000).map(|n| format!("error: case {n}\n")).collect();
    assert!(!of(text.as_bytes(), 8_000).contains("similar"));
}

#[test]
fn a_long_output_has_a_beginning_and_an_end() {
    let word = |n: usize| ["alpha", "beta", "gamma", "delta", "epsilon"][n % 5];
    let text: String = (0..3_000).map(|n| format!("{} {n}\n", word(n))).collect();
    let short = of(text.as_bytes(), 4_000);
    let lines: Vec<&str> = short.lines().collect();
    assert_eq!(lines.len(), 81);
    assert_eq!((lines[0], lines[19]), ("alpha 0", "epsilon 19"));
    assert_eq!(lines[20], "[… 2,920 lines omitted, bytes 174-31818]");
    assert_eq!((lines[21], lines[80]), ("alpha 2940", "epsilon 2999"));
    let at = text.find("alpha 2940\n").expect("in it");
    assert_eq!((&text[174..182], at), ("alpha 20", 31_818));
}

#[test]
fn the_errors_of_a_build_come_first() {
    let build = fixtures::cargo_build();
    assert!(build.len() > 90_000, "{}", build.len());
    let text = of(build.as_bytes(), 8_000);
    let head = "diagnostics (524 found, 4 shown; 2 errors, 520 warnings, 2 summaries):\n[line 1202, bytes ";
    assert!(text.starts_with(head), "{text}");
    assert!(text.contains(fixtures::CARGO_ERROR.trim_end()), "{text}");
    assert!(
        text.contains("error[E0425]: cannot find value `total` in this scope"),
        "{text}"
    );
    assert!(text.contains(" lines omitted, bytes "), "{text}");
    assert!(
        text.ends_with("2 previous errors; 520 warnings emitted"),
        "{text}"
    );
}

#[test]
fn a_terminal_shows_a_model_the_same_as_a_pipe() {
    let build = fixtures::cargo_build();
    let plain = of(build.as_bytes(), 8_000);
    let coloured = of(&fixtures::on_a_terminal(&build), 8_000);
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.contains("bytes "));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(lines(&coloured), lines(&plain));
    assert!(!coloured.contains('\x1b'));
}

#[test]
fn the_first_error_is_there_however_short_the_text_is() {
    let build = fixtures::cargo_build();
    for chars_max in [200, 237, 300, 400, 700]
        .into_iter()
        .chain((1_000..=9_500).step_by(850))
    {
        let text = of(build.as_bytes(), chars_max);
        assert!(
            text.starts_with("diagnostics (524 found"),
            "{chars_max}: {text}"
        );
        assert!(text.contains("error[E0308]"), "{chars_max}: {text}");
        if chars_max >= 400 {
            assert!(
                text.contains("error[E0308]: mismatched types"),
                "{chars_max}: {text}"
            );
            assert!(text.contains("520 warnings emitted"), "{chars_max}: {text}");
        }
        if chars_max >= 1_000 {
            assert!(text.contains("--> src/sum.rs:3:18"), "{chars_max}: {text}");
            assert!(text.contains("error[E0425]"), "{chars_max}: {text}");
        }
    }
}

#[test]
fn of_many_errors_the_first_and_the_last_are_shown() {
    let text: String = (0..2_000)
        .map(|n| {
            format!("src/f{n}.c:{n}:5: error: number {n} is odd\n   {n} | odd();\n     | ^~~\n")
        })
        .collect();
    let text = of(text.as_bytes(), 8_000);
    assert!(text.starts_with("diagnostics (2,000 found, "), "{text}");
    for n in [0, 1, 1_999] {
        assert!(
            text.contains(&format!("error: number {n} is odd")),
            "{n}: {text}"
        );
    }
}

#[test]
fn what_was_not_read_or_is_gone_is_said() {
    let line = "a line of the output\n".repeat(2);
    let head = (0..400).map(|n| format!("{n}: {line}")).collect::<String>();
    let piece = |from, text: &'static str| Piece {
        from,
        bytes: text.as_bytes(),
    };
    let mut pieces = Pieces::new(vec![piece(0, "a\n"), piece(8 << 30, "b\n")], (8 << 30) + 2);
    pieces.dropped.push(100..200);
    assert_eq!(
        checked(&pieces, 300),
        "a\n[… bytes 2-100 not scanned]\n[… bytes 100-200 dropped]\n[… bytes 200-8589934592 not scanned]\nb"
    );
    let end = 9_000_000_000;
    let pieces = vec![
        Piece {
            from: 0,
            bytes: head.as_bytes(),
        },
        Piece {
            from: end,
            bytes: head.as_bytes(),
        },
    ];
    let mut pieces = Pieces::new(pieces, end + head.len() as u64);
    pieces.dropped.push(1_000_000..1_000_500);
    let text = checked(&pieces, 4_000);
    let note = text
        .lines()
        .find(|line| line.starts_with("[… "))
        .expect("a note");
    let absent = format!(
        "; not scanned: {}-1000000, 1000500-{end}; dropped: 1000000-1000500]",
        head.len()
    );
    assert!(note.ends_with(&absent), "{note}");
    let short = checked(&pieces, 400);
    assert!(
        short.contains(", partly not scanned, partly dropped]"),
        "{short}"
    );
}

#[test]
fn ranges_without_lines_can_be_all_that_is_omitted() {
    let lines: Vec<String> = (0..30)
        .map(|n| format!("{}\n", "ab".repeat(n + 1)))
        .collect();
    let mut pieces = Pieces::default();
    for (n, line) in lines.iter().enumerate() {
        pieces.pieces.push(Piece {
            from: 1_000 * n as u64,
            bytes: line.as_bytes(),
        });
    }
    // One row, a range without bytes, is in neither end.
    for chars_max in 1_200..2_000 {
        let bounds = Bounds {
            chars_max,
            head_lines: 1,
            tail_lines: 57,
        };
        checked_with(&pieces, bounds);
    }
}

#[test]
fn an_excerpt_can_begin_in_the_middle() {
    let mut pieces = Pieces::whole(b"a\nb\nc\n");
    pieces.from = 2;
    assert_eq!(checked(&pieces, 200), "b\nc");
    pieces.from = 6;
    assert_eq!(checked(&pieces, 200), "");
}

#[test]
fn one_long_line_is_cut_in_its_middle() {
    let text = of(&b"x".repeat(2 << 20), 8_000);
    let (head, rest) = text.split_once("[… ").expect("a cut");
    let (note, tail) = rest.split_once(']').expect("its end");
    assert!(head.len() > 3_900 && tail.len() > 3_900);
    let from = head.len();
    let to = (2 << 20) - tail.len();
    assert_eq!(
        note,
        format!(
            "{} bytes cut, bytes {from}-{to}",
            super::notes::grouped((to - from) as u64)
        )
    );
}

#[test]
fn garbage_is_text_without_controls() {
    let mut state = 1u32;
    let garbage: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(200_000)
    .collect();
    for chars_max in [200, 1_000, 8_000] {
        let text = of(&garbage, chars_max);
        assert!(
            text.chars()
                .all(|c| c == '\n' || c == '\t' || !c.is_control())
        );
    }
}

#[test]
fn outputs_of_known_programs_are_cut_to_any_length() {
    let java = fixtures::java();
    let all = [
        fixtures::PYTEST,
        fixtures::CHAINED,
        fixtures::MAKE,
        fixtures::TSC,
        fixtures::MAVEN,
        fixtures::GO,
        fixtures::JAVASCRIPT,
        &java,
    ];
    for text in all {
        for chars_max in (0..1_500).step_by(127) {
            of(text.as_bytes(), chars_max);
        }
        of(text.repeat(200).as_bytes(), 3_000);
    }
}
