//! Colours: on a terminal, unless the user wants none (NO_COLOR, no-color.org) or the terminal has none.

use std::ffi::OsStr;
use std::io::{self, IsTerminal};

/// A colour, by what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Crashed, failed.
    Red,
    /// Running, as it should be.
    Green,
    /// On its way, or held up.
    Yellow,
    /// Of little weight.
    Faint,
    /// A heading.
    Bold,
}

impl Colour {
    /// The parameter of SGR (ECMA-48) that begins it.
    fn code(self) -> u8 {
        match self {
            Colour::Bold => 1,
            Colour::Faint => 2,
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
        }
    }
}

/// The text in a colour.
#[must_use]
pub fn paint(text: &str, colour: Colour) -> String {
    format!("\x1b[{}m{text}\x1b[0m", colour.code())
}

/// Whether stdout takes colours.
pub(super) fn wanted() -> bool {
    let variable = |name| std::env::var_os(name);
    wanted_by(io::stdout().is_terminal(), variable("NO_COLOR").as_deref(), variable("TERM").as_deref())
}

/// By no-color.org an empty NO_COLOR says nothing.
fn wanted_by(terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty) && term.is_some_and(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_have_them_and_users_who_want_them() {
        let wanted = |terminal, no_color: Option<&'static str>, term: Option<&'static str>| {
            wanted_by(terminal, no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert!(wanted(true, None, Some("xterm")) && wanted(true, Some(""), Some("xterm")));
        assert!(!wanted(false, None, Some("xterm")) && !wanted(true, Some("1"), Some("xterm")));
        assert!(!wanted(true, None, Some("dumb")) && !wanted(true, None, None));
        assert_eq!(paint("x", Colour::Red), "\x1b[31mx\x1b[0m");
    }
}
