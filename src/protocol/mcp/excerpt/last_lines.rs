//! The last lines of an output.

use super::{
    Bounds, clean_lines::CleanLines, diagnose::Diagnostics, fold::Folder, gather::Gathered,
    pieces::Pieces,
};

/// The end of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastLines {
    /// The lines, after a note about what precedes them.
    pub text: String,
    /// The offset of the first line that is shown; the end of the output if none is.
    pub from: u64,
}

/// The last `lines` lines, in at most `chars_max` characters: the last ones of them if there is no room
/// for all. Repeats and reports of progress are folded; a fold counts as one line. A line that is longer
/// than its share is cut in its middle.
pub fn last_lines(pieces: &Pieces<'_>, lines: usize, chars_max: usize) -> LastLines {
    let parts = pieces.parts();
    let bounds = Bounds {
        chars_max,
        head_lines: 0,
        tail_lines: lines,
    };
    let mut gathered = Gathered::new(bounds);
    let mut folder = Folder::new(false);
    for entry in CleanLines::new(&parts) {
        folder.push(entry, false, &mut |folded| gathered.push(folded));
    }
    folder.finish(&mut |folded| gathered.push(folded));
    let laid = gathered.layout(&parts, Diagnostics::default()).lay();
    let end = parts.last().map_or(pieces.from, |part| part.range().end);
    LastLines {
        text: laid.text,
        from: laid.shown.first().map_or(end, |range| range.start),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8], lines: usize, chars_max: usize) -> (String, u64) {
        let last = last_lines(&Pieces::whole(bytes), lines, chars_max);
        (last.text, last.from)
    }

    #[test]
    fn the_last_lines_come_after_a_note() {
        let bytes = b"ab\ncd\nef\n\x1b[1mgh\x1b[0m\n";
        assert_eq!(
            of(bytes, 2, 200),
            ("[… 2 lines omitted, bytes 0-6]\nef\ngh".into(), 6)
        );
        assert_eq!(of(bytes, 4, 200), ("ab\ncd\nef\ngh".into(), 0));
        assert_eq!(of(bytes, 99, 200), ("ab\ncd\nef\ngh".into(), 0));
        assert_eq!(
            of(bytes, 0, 200),
            ("[… 4 lines omitted, bytes 0-20]".into(), 20)
        );
        assert_eq!(of(b"", 5, 200), (String::new(), 0));
    }

    #[test]
    fn the_last_ones_count_most() {
        let text: String = (0..50)
            .map(|n| format!("{} line\n", "abcde"[n % 5..].repeat(9)))
            .collect();
        let (last, from) = of(text.as_bytes(), 40, 300);
        assert!(last.starts_with("[… 4"), "{last}");
        assert!(text.ends_with(last.split_once('\n').expect("lines").1) || last.ends_with("line"));
        assert_eq!(
            text[from as usize..].lines().count(),
            last.lines().count() - 1
        );
    }

    #[test]
    fn repeats_are_one_line() {
        let text = format!("first\n{}last\n", "again\n".repeat(500));
        assert_eq!(
            of(text.as_bytes(), 4, 200).0,
            "first\nagain\n[last line repeated 499 times, bytes 12-3006]\nlast"
        );
    }
}
