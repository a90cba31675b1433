//! Words that make a line that no rule knows a possible error.

use super::rules::{
    Following::{Frames, Nothing},
    Rule,
    Severity::{Mention, Warning},
    rule,
};

/// What a line has in it, where no rule knows how it begins. The leftmost match counts.
pub(super) const WORDS: &[Rule] = &[
    rule(
        r"(^|[\s\[(|])(WARN|WARNING|Warning|warning|warn)([\]):|]|\s*$|\s+[^=\s])",
        Warning,
        Nothing,
    ),
    rule(
        r"(^|[^\w.\-/$])([Ee]rror|ERROR|[Ff]atal|FATAL|[Pp]anic|PANIC|CRITICAL|SEVERE)( \w+)?(\[\w+\])?\s?[:\]!|]",
        Mention,
        Nothing,
    ),
    rule(
        r"(^|[\s\[(|])(ERROR|FATAL|CRITICAL|SEVERE|PANIC|ERR)([\s\]|)]|$)",
        Mention,
        Nothing,
    ),
    rule(
        r"^(E[rR][rR][oO][rR]|[Ff]atal|[Pp]anic|error)\b",
        Mention,
        Nothing,
    ),
    rule(
        r#"\b(level|lvl|severity)"?[=:] ?"?(error|err|fatal|panic|critical|ERROR|FATAL|CRITICAL)\b"#,
        Mention,
        Nothing,
    ),
    rule(
        r"[A-Z]\w*(Error|Exception)(:|\b \[|$)|\bAssertionError\b",
        Mention,
        Frames,
    ),
    rule(
        r"[Ss]egmentation (fault|violation)|\bcore dumped\b|(^|[:\d] +)Killed( |$)|^Aborted\b|\b[Bb]us error\b",
        Mention,
        Nothing,
    ),
    rule(
        r"\b[Oo]ut [Oo]f [Mm]emory\b|OutOfMemory|\boom-kill|[Cc]annot allocate memory|std::bad_alloc|No space left on device",
        Mention,
        Nothing,
    ),
    rule(
        r": (command not found|No such file or directory|Permission denied|Is a directory|Not a directory|cannot execute\b.*|Exec format error|Operation not permitted|Argument list too long|[Cc]onnection refused)",
        Mention,
        Nothing,
    ),
    rule(
        r"^\S+: ((line )?\d+: )?\S+: not found$|(^|: )[Ss]yntax error\b|: unexpected (EOF|end of file)",
        Mention,
        Nothing,
    ),
    rule(
        r"^([\w./\[\]-]+: )?([Ff]ailed to|[Cc]annot|[Cc]an't|[Cc]ould not|[Uu]nable to) \w",
        Mention,
        Nothing,
    ),
    rule(
        r"[Aa]ssertion\b.* failed\b|[Uu]nhandled (promise )?rejection|\bUncaught \w|\bexited with (code|status) [1-9]|\bexit (code|status):? [1-9]|returned non-zero exit",
        Mention,
        Nothing,
    ),
];

/// What a line with one of those words says that reports no error.
pub(super) const HARMLESS_WORDS: &[&str] = &[
    r"\b(0|[Nn]o|NO|zero|[Ww]ithout( any)?|[Ii]gnor\w+) (\w+ )?([Ee]rrors?|ERRORS?|[Ww]arnings?|failures?|panics?)\b",
    r#"\b([Ee]rrors?|ERRORS?|[Ww]arnings?|err)["']?\s*[=:]\s*["']?(0|none|None|null|nil|false|False|\[\]|"")(\W|$)"#,
    r"exit (code|status):? 0\b",
];
