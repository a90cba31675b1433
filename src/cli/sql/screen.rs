//! The screen that rows are printed for.

use std::io::IsTerminal;

/// The terminal that stdout is.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// How wide it is, columns.
    pub width: usize,
}

/// How wide a terminal is that does not tell, columns.
const WIDTH_UNKNOWN: usize = 80;

impl Screen {
    /// The terminal, where stdout is one.
    pub fn of_stdout() -> Option<Self> {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(stdout).ok();
        let width = size.map_or(0, |size| usize::from(size.ws_col));
        Some(Self {
            width: if width > 0 { width } else { WIDTH_UNKNOWN },
        })
    }
}
