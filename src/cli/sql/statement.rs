//! Splits typed text into statements: at each `;` that is neither in quotes nor in a comment. Knows
//! SQLite's quotes and comments, not its grammar.

/// Typed text, split into statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed<'a> {
    /// The complete statements, without their `;`. Blank ones are left out.
    pub statements: Vec<&'a str>,
    /// The text after the last `;`; empty if it is only blanks and comments.
    pub rest: &'a str,
    /// Whether the text ends in open quotes or in a comment.
    pub is_open: bool,
}

impl Typed<'_> {
    /// Whether the last statement is complete.
    pub fn is_complete(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Splits typed text.
pub fn cut(text: &str) -> Typed<'_> {
    let mut statements = Vec::new();
    let mut from = 0;
    let mut has_content = false;
    let mut at = 0;
    while at < text.len() {
        let token = token(&text[at..]);
        if token.is_open {
            // An open `--` comment is complete at the end of the text; quotes and `/*` are not.
            let line = text[at..].starts_with("--");
            let rest = if line && !has_content {
                ""
            } else {
                &text[from..]
            };
            return Typed {
                statements,
                rest,
                is_open: true,
            };
        }
        match token.kind {
            TokenKind::End => {
                if has_content {
                    statements.push(text[from..at].trim());
                }
                from = at + token.length;
                has_content = false;
            }
            TokenKind::Nothing => {}
            TokenKind::Something => has_content = true,
        }
        at += token.length;
    }
    let rest = if has_content { text[from..].trim() } else { "" };
    Typed {
        statements,
        rest,
        is_open: false,
    }
}

enum TokenKind {
    /// Blanks and comments.
    Nothing,
    /// A `;`.
    End,
    /// Everything else.
    Something,
}

struct SqlToken {
    kind: TokenKind,
    /// Bytes.
    length: usize,
    /// Whether the text ends before the token does.
    is_open: bool,
}

/// The first token of a text, which must not be empty.
fn token(text: &str) -> SqlToken {
    let closed = |kind, length| SqlToken {
        kind,
        length,
        is_open: false,
    };
    let until = |kind, opening: usize, end: &str| match text[opening..].find(end) {
        Some(at) => closed(kind, opening + at + end.len()),
        None => SqlToken {
            kind,
            length: text.len(),
            is_open: true,
        },
    };
    match text.chars().next().unwrap_or(' ') {
        ';' => closed(TokenKind::End, 1),
        // A doubled quote is read as the end of one text and the beginning of the next, which
        // splits at the same places.
        quote @ ('\'' | '"' | '`') => {
            until(TokenKind::Something, 1, quote.encode_utf8(&mut [0; 4]))
        }
        '[' => until(TokenKind::Something, 1, "]"),
        '-' if text.starts_with("--") => until(TokenKind::Nothing, 2, "\n"),
        '/' if text.starts_with("/*") => until(TokenKind::Nothing, 2, "*/"),
        c if c.is_whitespace() => closed(TokenKind::Nothing, c.len_utf8()),
        c => closed(TokenKind::Something, c.len_utf8()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, statements: &[&str], rest: &str) {
        let typed = cut(text);
        assert_eq!(typed.statements, statements, "{text}");
        assert_eq!(typed.rest.trim(), rest, "{text}");
        assert_eq!(typed.is_complete(), rest.is_empty(), "{text}");
    }

    #[test]
    fn statements_end_at_their_semicolons() {
        check("a;", &["a"], "");
        check("a\n b ;  c;\n", &["a\n b", "c"], "");
        check("a; b", &["a"], "b");
        check("", &[], "");
        check(" ;; \n;", &[], "");
    }

    #[test]
    fn quotes_and_comments_hide_semicolons() {
        check(
            "x ';' \";\" `;` [;] 'it''s;' y;",
            &["x ';' \";\" `;` [;] 'it''s;' y"],
            "",
        );
        check("a -- no; end\n;", &["a -- no; end"], "");
        check("a /* ; */ b;", &["a /* ; */ b"], "");
        check("-- only a comment;\n", &[], "");
        check("a; -- and a word", &["a"], "");
        check("größe ';ß' ;", &["größe ';ß'"], "");
    }

    #[test]
    fn what_is_open_waits_for_its_end() {
        for text in ["a 'b;", "a \"b;", "a [b;", "a /* b;", "a -- b;"] {
            let typed = cut(text);
            assert!(!typed.is_complete() && typed.is_open, "{text}");
        }
        assert!(!cut("a; 'b").is_complete());
        assert!(!cut("a; /* b").is_complete());
    }
}
