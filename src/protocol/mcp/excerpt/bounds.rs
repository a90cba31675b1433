//! How long an excerpt may be.

/// How long an excerpt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most characters of its text. With fewer than [`Bounds::CHARS_MIN`] the ranges in it may be cut
    /// off.
    pub chars_max: usize,
    /// Most lines of the output's beginning.
    pub head_lines: usize,
    /// Most lines of the output's end.
    pub tail_lines: usize,
}

impl Bounds {
    /// Fewest characters with which an excerpt is of use.
    pub const CHARS_MIN: usize = 200;
    /// How many characters an excerpt has at most if the caller does not say.
    pub const CHARS_USUAL: usize = 8_000;
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            chars_max: Self::CHARS_USUAL,
            head_lines: 20,
            tail_lines: 60,
        }
    }
}
