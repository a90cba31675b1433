//! How the value of a secret may be written: as it is, line by line, and as other programs quote and encode
//! it.

use std::collections::BTreeSet;

use base64::{
    Engine,
    engine::{GeneralPurpose, general_purpose},
};
use serde_json::Value;
use zeroize::Zeroize;

/// The shortest form that is looked for, bytes. The server refuses shorter values.
const FORM_BYTES_MIN: usize = 4;

/// Characters that `encodeURIComponent` of JavaScript leaves as they are beside the unreserved ones.
const URI_COMPONENT: &[u8] = b"!'()*";
/// Those that `encodeURI` leaves.
const URI: &[u8] = b"!'()*;/?:@&=+$,#";

/// All forms of all values of an attempt. They are overwritten when they are dropped.
#[derive(Default)]
pub struct Forms {
    /// Texts in which every byte counts.
    pub exact: BTreeSet<Vec<u8>>,
    /// Encodings that programs break into lines (`base64`, `xxd -p`): a line end inside of them does not count.
    pub wrapped: BTreeSet<Vec<u8>>,
}

impl Forms {
    /// The forms of these values.
    pub fn of<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut forms = Self::default();
        for value in values {
            forms.add(value);
            // A program that reads a line takes off what is around it.
            value.lines().for_each(|line| forms.add(line.trim()));
            forms.add(value.trim());
        }
        forms
    }

    /// The forms of one text.
    fn add(&mut self, text: &str) {
        if text.len() < FORM_BYTES_MIN {
            return;
        }
        let exact = [
            json(text),
            shell(text),
            doubled(text),
            repr(text),
            percent(text),
            xml(text),
        ];
        self.exact.insert(text.as_bytes().to_vec());
        self.exact
            .extend(exact.into_iter().flatten().map(String::into_bytes));
        for hex in hex(text) {
            keep(&mut self.wrapped, hex.into_bytes());
        }
        for engine in [&general_purpose::STANDARD, &general_purpose::URL_SAFE] {
            for before in 0..3 {
                for form in base64(engine, before, text.as_bytes()) {
                    keep(&mut self.wrapped, form);
                }
            }
        }
    }
}

impl Drop for Forms {
    fn drop(&mut self) {
        for set in [&mut self.exact, &mut self.wrapped] {
            std::mem::take(set)
                .into_iter()
                .for_each(|mut form| form.zeroize());
        }
    }
}

fn keep(forms: &mut BTreeSet<Vec<u8>>, form: Vec<u8>) {
    if form.len() >= FORM_BYTES_MIN {
        forms.insert(form);
    }
}

/// Inside of a JSON string: as most programs write it, with `/` escaped, with ASCII alone (Python), with both (PHP), safe
/// inside of HTML (Go), and as a string inside of a string.
fn json(text: &str) -> Vec<String> {
    let plain = in_json(text);
    let html = ['<', '>', '&'].iter().fold(plain.clone(), |text, &c| {
        text.replace(c, &format!("\\u{:04x}", u32::from(c)))
    });
    let ascii = |upper: bool| {
        let units = |c: char| c.encode_utf16(&mut [0; 2]).to_vec();
        let escaped = |unit: u16| match upper {
            true => format!("\\u{unit:04X}"),
            false => format!("\\u{unit:04x}"),
        };
        let written = plain.chars().map(|c| match c.is_ascii() {
            true => c.to_string(),
            false => units(c).into_iter().map(escaped).collect(),
        });
        written.collect::<String>()
    };
    vec![
        plain.replace('/', "\\/"),
        ascii(false).replace('/', "\\/"),
        ascii(false),
        ascii(true),
        in_json(&plain),
        in_json(&ascii(false)),
        html,
        plain,
    ]
}

/// A JSON string without its quotes.
fn in_json(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// Inside of the quotes of a shell, or escaped without quotes.
fn shell(text: &str) -> Vec<String> {
    let escaped = |special: &dyn Fn(char) -> bool| {
        let mut written = String::with_capacity(text.len());
        for c in text.chars() {
            if special(c) {
                written.push('\\');
            }
            written.push(c);
        }
        written
    };
    let is_plain = |c: char| c.is_alphanumeric() || "%+,-./:=@_".contains(c);
    let bash = " \t\n'\"\\|&;()<>!{}*[?]^$`,";
    let mut written = vec![
        // 'it'\''s', and 'it'"'"'s' of Python's shlex
        text.replace('\'', "'\\''"),
        text.replace('\'', "'\"'\"'"),
        // "…", what printf %q of bash writes, and escapes of everything that may be special
        escaped(&|c| "\"$`\\".contains(c)),
        escaped(&|c| bash.contains(c)),
        escaped(&|c| !is_plain(c)),
    ];
    for ascii in [false, true] {
        written.extend(["\\033", "\\E"].map(|escape| ansi_c(text, ascii, escape)));
    }
    written
}

/// Inside of `$'…'`; with `ascii` as bash writes it where the locale has no other characters.
fn ansi_c(text: &str, ascii: bool, escape: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '\'' => written.extend(['\\', c]),
            '\n' => written.push_str("\\n"),
            '\t' => written.push_str("\\t"),
            '\r' => written.push_str("\\r"),
            '\u{7}' => written.push_str("\\a"),
            '\u{8}' => written.push_str("\\b"),
            '\u{b}' => written.push_str("\\v"),
            '\u{c}' => written.push_str("\\f"),
            '\u{1b}' => written.push_str(escape),
            c if c.is_ascii_control() || (ascii && !c.is_ascii()) => {
                let octal = |byte: u8| format!("\\{byte:03o}");
                written.extend(c.encode_utf8(&mut [0; 4]).bytes().map(octal));
            }
            c => written.push(c),
        }
    }
    written
}

/// Inside of quotes that are doubled: of YAML, SQL and PowerShell, and of CSV.
fn doubled(text: &str) -> Vec<String> {
    vec![text.replace('\'', "''"), text.replace('"', "\"\"")]
}

/// As `repr` of Python shows a text or its bytes, inside of either quotes.
fn repr(text: &str) -> Vec<String> {
    let shown = |is_bytes: bool, quote: Option<char>| {
        let mut written = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '\\' => written.push_str("\\\\"),
                '\n' => written.push_str("\\n"),
                '\t' => written.push_str("\\t"),
                '\r' => written.push_str("\\r"),
                c if Some(c) == quote => written.extend(['\\', c]),
                c if c.is_ascii_control() || (is_bytes && !c.is_ascii()) => {
                    let hex = |byte: u8| format!("\\x{byte:02x}");
                    written.extend(c.encode_utf8(&mut [0; 4]).bytes().map(hex));
                }
                c => written.push(c),
            }
        }
        written
    };
    [false, true]
        .into_iter()
        .flat_map(|is_bytes| [None, Some('\''), Some('"')].map(|quote| shown(is_bytes, quote)))
        .collect()
}

/// As part of an address: with the usual sets of characters that are left as they are, in upper and lower
/// case, and as a field of a form, where a blank is a `+`.
fn percent(text: &str) -> Vec<String> {
    let mut written = Vec::new();
    for kept in [b"" as &[u8], b"/", URI_COMPONENT, URI] {
        for upper in [true, false] {
            let one = percent_with(text, kept, upper);
            written.push(one.replace("%20", "+"));
            written.push(one);
        }
    }
    for upper in [true, false] {
        // As URLSearchParams of browsers writes a field.
        let field = percent_with(text, b"* ", upper).replace(' ', "+");
        let tilde = if upper { "%7E" } else { "%7e" };
        written.push(field.replace('~', tilde));
    }
    written
}

fn percent_with(text: &str, kept: &[u8], upper: bool) -> String {
    let mut written = String::with_capacity(text.len());
    for byte in text.bytes() {
        let is_kept = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if is_kept || kept.contains(&byte) {
            written.push(char::from(byte));
        } else if upper {
            written.push_str(&format!("%{byte:02X}"));
        } else {
            written.push_str(&format!("%{byte:02x}"));
        }
    }
    written
}

/// Inside of XML or HTML: a text, whose quotes may stay as they are, and an attribute, where line ends do not.
fn xml(text: &str) -> Vec<String> {
    const TEXT: [(&str, &str); 3] = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")];
    const LINES: [(&str, &str); 3] = [("\n", "&#10;"), ("\r", "&#13;"), ("\t", "&#9;")];
    let escaped = |text: &str, pairs: &[(&str, &str)]| {
        let pairs = pairs.iter();
        pairs.fold(text.to_owned(), |text, (c, entity)| text.replace(c, entity))
    };
    let plain = escaped(text, &TEXT);
    let quotes = [
        ("\"", "'"),
        ("&quot;", "'"),
        ("&quot;", "&apos;"),
        ("&quot;", "&#x27;"),
        ("&quot;", "&#39;"),
        ("&#34;", "&#39;"),
    ];
    let mut written = Vec::new();
    for (double, single) in quotes {
        let one = escaped(&plain, &[("\"", double), ("'", single)]);
        written.push(escaped(&one, &LINES));
        written.push(escaped(&one, &LINES).replace("&#9;", "&#09;"));
        written.push(one);
    }
    written
}

fn hex(text: &str) -> [String; 2] {
    let lower: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    [lower.to_ascii_uppercase(), lower]
}

/// What base64 writes for these bytes behind `before` others, as far as it does not depend on those and on
/// what follows; and the same with the last digit that it writes where nothing follows.
fn base64(engine: &GeneralPurpose, before: usize, bytes: &[u8]) -> [Vec<u8>; 2] {
    let written = engine
        .encode([&vec![0; before], bytes].concat())
        .into_bytes();
    let bits = (before + bytes.len()) * 8;
    // The first digit that has no bit of what is before, and the one after the last that is full.
    let (first, end) = ((before * 8).div_ceil(6), bits / 6);
    let last = bits.div_ceil(6);
    [written[first..end].to_vec(), written[first..last].to_vec()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(value: &str) -> BTreeSet<String> {
        let forms = Forms::of([value].into_iter());
        let all = forms.exact.iter().chain(&forms.wrapped);
        all.map(|form| String::from_utf8(form.clone()).expect("UTF-8"))
            .collect()
    }

    #[test]
    fn a_plain_token_has_few_forms() {
        let forms = forms("ghp_0123456789");
        // Itself, hexadecimal, and base64 at three places, with and without a last digit.
        assert_eq!(forms.len(), 1 + 2 + 5, "{forms:?}");
        assert!(forms.contains("6768705f30313233343536373839"));
        assert!(forms.contains("6768705F30313233343536373839"));
    }

    #[test]
    fn what_other_programs_write_is_among_the_forms() {
        let value = "it's \"a\" $b/<&é\\";
        let forms = forms(value);
        for written in [
            // JSON: serde_json, PHP, Python, Go.
            r#"it's \"a\" $b/<&é\\"#,
            r#"it's \"a\" $b\/<&é\\"#,
            r#"it's \"a\" $b/<&\u00e9\\"#,
            r#"it's \"a\" $b/\u003c\u0026é\\"#,
            r#"it's \\\"a\\\" $b/<&é\\\\"#,
            // Shells: '…', shlex.quote, "…", printf %q, $'…'.
            r#"it'\''s "a" $b/<&é\"#,
            r#"it'"'"'s "a" $b/<&é\"#,
            r#"it's \"a\" \$b/<&é\\"#,
            r#"it\'s\ \"a\"\ \$b/\<\&é\\"#,
            r#"it\'s "a" $b/<&é\\"#,
            // Addresses: quote of Python with and without a slash, encodeURIComponent, encodeURI, a form.
            "it%27s%20%22a%22%20%24b/%3C%26%C3%A9%5C",
            "it%27s%20%22a%22%20%24b%2F%3C%26%C3%A9%5C",
            "it%27s%20%22a%22%20%24b%2f%3c%26%c3%a9%5c",
            "it's%20%22a%22%20%24b%2F%3C%26%C3%A9%5C",
            "it's%20%22a%22%20$b/%3C&%C3%A9%5C",
            "it%27s+%22a%22+%24b%2F%3C%26%C3%A9%5C",
            "it&apos;s &quot;a&quot; $b/&lt;&amp;é\\",
            // XML and HTML: a text, an attribute, html.escape of Python, Go.
            "it's \"a\" $b/&lt;&amp;é\\",
            "it's &quot;a&quot; $b/&lt;&amp;é\\",
            "it&#x27;s &quot;a&quot; $b/&lt;&amp;é\\",
            "it&#39;s &#34;a&#34; $b/&lt;&amp;é\\",
            // PHP, and ASCII as a string in a string.
            r#"it's \"a\" $b\/<&\u00e9\\"#,
            r#"it's \\\"a\\\" $b/<&\\u00e9\\\\"#,
            // Bash without a locale, YAML, CSV, repr of a text and of bytes.
            r#"it\'s "a" $b/<&\303\251\\"#,
            r#"it''s "a" $b/<&é\"#,
            r#"it's ""a"" $b/<&é\"#,
            r#"it\'s "a" $b/<&é\\"#,
            r#"it\'s "a" $b/<&\xc3\xa9\\"#,
        ] {
            assert!(forms.contains(written), "{written}");
        }
    }

    #[test]
    fn what_surrounds_a_line_may_be_taken_off() {
        for value in ["  token-0123 ", "token-0123\r", "token-0123 \r\n"] {
            assert!(forms(value).contains("token-0123"), "{value:?}");
        }
    }

    #[test]
    fn control_characters_and_what_shells_need_not_quote() {
        let forms = forms("a\u{1b}b\u{1}c,d~e#f]\ng\th");
        for written in [
            // $'…' of bash, and its %q.
            r"a\Eb\001c,d~e#f]\ng\th",
            // repr of Python.
            r"a\x1bb\x01c,d~e#f]\ng\th",
            "a\u{1b}b\u{1}c,d~e#f]&#10;g&#9;h",
            "a\u{1b}b\u{1}c,d~e#f]&#10;g&#09;h",
        ] {
            assert!(forms.contains(written), "{written}");
        }
        assert!(self::forms("alpha,b~c#d]").contains(r"alpha\,b~c#d\]"));
    }

    #[test]
    fn each_line_of_a_value_is_a_form_by_itself() {
        let value = "-----BEGIN KEY-----\r\n  abcdef012345\n\nxy\n-----END KEY-----";
        let forms = forms(value);
        for written in [
            value,
            "-----BEGIN KEY-----",
            "abcdef012345",
            "-----END KEY-----",
            "616263646566303132333435",
        ] {
            assert!(forms.contains(written), "{written}");
        }
        assert!(!forms.contains("xy") && !forms.contains(""));
    }

    /// Base64 of a text with the value anywhere in it has one of the forms, and the part that has none of its
    /// bits is not in it.
    #[test]
    fn base64_is_found_at_every_place() {
        for length in 4..12 {
            let value: String = "s3cr?t>~word".chars().take(length).collect();
            let forms = forms(&value);
            for engine in [&general_purpose::STANDARD, &general_purpose::URL_SAFE] {
                for before in ["", "x", "xy", "xyz", "a longer text "] {
                    for after in ["", "x", "xy", "xyz"] {
                        let written = engine.encode(format!("{before}{value}{after}"));
                        let found = forms.iter().filter(|form| written.contains(form.as_str()));
                        let longest = found.map(String::len).max().unwrap_or_default();
                        // All digits but those that it shares with its neighbours.
                        assert!(longest * 6 >= length * 8 - 10, "{written} {forms:?}");
                    }
                }
            }
        }
    }
}
