//! The last lines of an output.

use super::{
    Bounds, clean_line::CleanLines, diagnose::Diagnostics, fold::Folder, gather::Gathered,
    layout::Layout, pieces::Pieces,
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
    let (head, tail, between) = gathered.rows();
    let layout = Layout {
        bounds,
        parts: &parts,
        head,
        tail,
        between,
        diagnostics: Diagnostics::default(),
    };
    let laid = layout.lay();
    let end = parts.last().map_or(pieces.from, |part| part.range().end);
    LastLines {
        text: laid.text,
        from: laid.shown.first().map_or(end, |range| range.start),
    }
}
