//! The terminal on stdout that rows are printed for.

use std::io::IsTerminal;

/// The terminal on stdout.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Width, columns.
    pub width: usize,
}

/// Width of a terminal that does not report one, columns.
const WIDTH_UNKNOWN: usize = 80;

impl Screen {
    /// The terminal; `None` if stdout is not one.
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
