//! Placeholder until the real one is merged.
#![allow(missing_docs)]
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    pub from: u64,
    pub bytes: &'a [u8],
}
pub struct Source<'a> {
    pub pieces: &'a [Piece<'a>],
    pub output_bytes: u64,
}
pub struct Bounds {
    pub chars_max: usize,
}
impl Bounds {
    pub fn of(chars_max: usize) -> Self {
        Self { chars_max }
    }
}
pub struct Page {
    pub text: String,
    pub next_offset: u64,
}
fn all(pieces: &[Piece<'_>]) -> String {
    pieces
        .iter()
        .map(|p| String::from_utf8_lossy(p.bytes).into_owned())
        .collect()
}
pub fn excerpt(source: &Source<'_>, bounds: Bounds) -> String {
    last_lines(source.pieces, 60, bounds.chars_max)
}
pub fn page(pieces: &[Piece<'_>], from: u64, chars_max: usize, _raw: bool) -> Page {
    let text: String = all(pieces).chars().take(chars_max).collect();
    let next_offset = from + text.len() as u64;
    Page { text, next_offset }
}
pub fn last_lines(pieces: &[Piece<'_>], n: usize, chars_max: usize) -> String {
    let text = all(pieces);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(n)..]
        .join("\n")
        .chars()
        .take(chars_max)
        .collect()
}
pub fn grep(pieces: &[Piece<'_>], pattern: &str, chars_max: usize) -> String {
    all(pieces)
        .lines()
        .filter(|l| l.contains(pattern))
        .collect::<Vec<_>>()
        .join("\n")
        .chars()
        .take(chars_max)
        .collect()
}
