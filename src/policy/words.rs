//! Patterns for the words after the program: anchored at both ends, one element for one word.

/// What one word may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WordPattern {
    /// Exactly this.
    Is(String),
    /// Begins with this; written with a star at its end.
    Begins(String),
}

impl WordPattern {
    /// Reads a pattern of a list: a star at its end stands for any rest, `\*` there for a star.
    ///
    /// # Errors
    ///
    /// There is a star elsewhere, which would not mean what it does in a shell.
    pub fn read(text: &str) -> Result<Self, String> {
        let (begin, pattern): (&str, fn(String) -> Self) = match text.strip_suffix('*') {
            None => (text, Self::Is),
            Some(rest) => match rest.strip_suffix('\\') {
                Some(literal) if !literal.contains('*') => {
                    return Ok(Self::Is(format!("{literal}*")));
                }
                _ => (rest, Self::Begins),
            },
        };
        match begin.contains('*') {
            false => Ok(pattern(begin.to_owned())),
            true => Err(format!(
                "{text:?}: a star can only be the last character, where it stands for any rest"
            )),
        }
    }

    /// Whether a word is this.
    pub fn matches(&self, word: &str) -> bool {
        match self {
            Self::Is(this) => word == this,
            Self::Begins(this) => word.starts_with(this.as_str()),
        }
    }

    /// As it is written.
    pub fn text(&self) -> String {
        match self {
            Self::Is(word) => format!("{word:?}"),
            Self::Begins(begin) => format!("{:?}", format!("{begin}*")),
        }
    }
}

/// What a set of words may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WordSet {
    /// Every word.
    All,
    /// A word that one of these matches.
    Any(Vec<WordPattern>),
    /// A word that none of these matches.
    Not(Vec<WordPattern>),
}

impl WordSet {
    /// Whether a word is one of them.
    pub fn has(&self, word: &str) -> bool {
        match self {
            Self::All => true,
            Self::Any(patterns) => patterns.iter().any(|pattern| pattern.matches(word)),
            Self::Not(patterns) => !patterns.iter().any(|pattern| pattern.matches(word)),
        }
    }

    /// What it is, for messages.
    pub fn text(&self) -> String {
        let list = |patterns: &[WordPattern]| {
            let texts: Vec<String> = patterns.iter().map(WordPattern::text).collect();
            texts.join(", ")
        };
        match self {
            Self::All => "any word".to_owned(),
            Self::Any(patterns) => format!("one of {}", list(patterns)),
            Self::Not(patterns) => format!("none of {}", list(patterns)),
        }
    }
}

/// The words after the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgsPattern {
    /// One for each of the first words.
    pub each: Vec<WordSet>,
    /// What every further word may be; `None`: there are no further ones.
    pub rest: Option<WordSet>,
}

impl ArgsPattern {
    /// Any words.
    pub fn any() -> Self {
        Self {
            each: Vec::new(),
            rest: Some(WordSet::All),
        }
    }

    /// The first word that does not fit; `None` where all fit. `args` are the words after the program.
    pub fn first_failure(&self, args: &[String]) -> Option<String> {
        for (index, set) in self.each.iter().enumerate() {
            // The program is argv[0].
            let nth = index + 1;
            match args.get(index) {
                None => return Some(format!("argv[{nth}] is missing; it must be {}", set.text())),
                Some(word) if !set.has(word) => {
                    return Some(format!(
                        "argv[{nth}] is {}; it must be {}",
                        shown(word),
                        set.text()
                    ));
                }
                Some(_) => {}
            }
        }
        for (index, word) in args.iter().enumerate().skip(self.each.len()) {
            let nth = index + 1;
            match &self.rest {
                None => {
                    return Some(format!(
                        "argv[{nth}] is {}; no further word may follow",
                        shown(word)
                    ));
                }
                Some(set) if !set.has(word) => {
                    return Some(format!(
                        "argv[{nth}] is {}; every word from argv[{}] on must be {}",
                        shown(word),
                        self.each.len() + 1,
                        set.text()
                    ));
                }
                Some(_) => {}
            }
        }
        None
    }
}

/// The longest part of a word that a message repeats, characters.
const SHOWN_CHARS_MAX: usize = 80;

/// A word in a message.
pub(super) fn shown(word: &str) -> String {
    match word.char_indices().nth(SHOWN_CHARS_MAX) {
        None => format!("{word:?}"),
        Some((end, _)) => format!("{:?}…", &word[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    fn is(word: &str) -> WordSet {
        WordSet::Any(vec![WordPattern::Is(word.to_owned())])
    }

    #[test]
    fn a_star_stands_only_at_the_end() {
        assert_eq!(WordPattern::read("a*"), Ok(WordPattern::Begins("a".into())));
        assert_eq!(
            WordPattern::read("*"),
            Ok(WordPattern::Begins(String::new()))
        );
        assert_eq!(WordPattern::read("a\\*"), Ok(WordPattern::Is("a*".into())));
        assert_eq!(WordPattern::read("a"), Ok(WordPattern::Is("a".into())));
        for wrong in ["*a", "a*b", "**", "*\\*", "a*b*"] {
            assert!(WordPattern::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_are_anchored_at_both_ends() {
        let pattern = ArgsPattern {
            each: vec![is("log"), WordSet::All],
            rest: None,
        };
        let fails = |args: &[&str]| pattern.first_failure(&words(args));
        assert_eq!(fails(&["log", "x"]), None);
        assert_eq!(fails(&["log", ""]), None);
        for (args, message) in [
            (
                &["log"] as &[&str],
                "argv[2] is missing; it must be any word",
            ),
            (
                &["-c", "log"],
                "argv[1] is \"-c\"; it must be one of \"log\"",
            ),
            (
                &["log ", "x"],
                "argv[1] is \"log \"; it must be one of \"log\"",
            ),
            (
                &["log", "x", "y"],
                "argv[3] is \"y\"; no further word may follow",
            ),
            (&[], "argv[1] is missing; it must be one of \"log\""),
        ] {
            assert_eq!(fails(args).as_deref(), Some(message), "{args:?}");
        }
    }

    #[test]
    fn every_word_of_the_rest_is_examined() {
        let pattern = ArgsPattern {
            each: vec![is("log")],
            rest: Some(WordSet::Not(vec![WordPattern::Begins("-".into())])),
        };
        assert_eq!(pattern.first_failure(&words(&["log", "a", "b"])), None);
        assert_eq!(pattern.first_failure(&words(&["log"])), None);
        assert!(pattern.first_failure(&words(&["log", "a", "-p"])).is_some());
        // A line break does not begin another word.
        let pattern = ArgsPattern {
            each: vec![is("a")],
            rest: None,
        };
        assert!(pattern.first_failure(&words(&["a\nb"])).is_some());
        assert!(pattern.first_failure(&words(&["a\n"])).is_some());
    }
}
