//! The only place that prints: results on stdout, everything about the work on stderr.
//!
//! A reader that closes its end early (`nixrun list | head -1`) is no error. Neither is a stderr that nobody can read.

mod style;
mod table;

use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};

use serde::Serialize;

pub use style::{Colour, paint};
pub use table::{Cell, table};

use crate::args::Global;
use crate::exit;

/// How much is said on stderr, and how wide a table may be.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    quiet: bool,
    verbose: u8,
    /// Whether lines on stderr are systemd-nspawn's.
    bare: bool,
    /// What begins a line on stderr.
    prefix: &'static str,
}

impl Output {
    /// As the options say.
    #[must_use]
    pub fn new(global: &Global) -> Output {
        Output::called(global, PREFIX)
    }

    /// As the options say, under the name of another program.
    #[must_use]
    pub fn called(global: &Global, prefix: &'static str) -> Output {
        Output { quiet: global.quiet, verbose: global.verbose, bare: false, prefix }
    }

    /// In the manner of systemd-nspawn: lines begin with nothing of ours, and `quiet` leaves warnings.
    #[must_use]
    pub fn bare(quiet: bool, verbose: u8) -> Output {
        Output { quiet, verbose, bare: true, prefix: "" }
    }

    /// Prints text that ends in a newline or gets one.
    ///
    /// # Errors
    /// When stdout cannot be written, unless because nobody reads it any more.
    pub fn text(&self, text: impl Display) -> io::Result<()> {
        let text = text.to_string();
        to_stdout(if text.ends_with('\n') || text.is_empty() { text } else { text + "\n" })
    }

    /// Prints a value as indented JSON.
    ///
    /// # Errors
    /// As of [`Output::text`], or when the value cannot be JSON.
    pub fn json(&self, value: &impl Serialize) -> io::Result<()> {
        self.text(serde_json::to_string_pretty(value)?)
    }

    /// Prints a value as JSON on a line of its own.
    ///
    /// # Errors
    /// As of [`Output::json`].
    pub fn json_line(&self, value: &impl Serialize) -> io::Result<()> {
        self.text(serde_json::to_string(value)?)
    }

    /// Prints rows, of [`Cell`]s or of text, under a header, cut to the width of the terminal if there is one.
    ///
    /// # Errors
    /// As of [`Output::text`].
    pub fn table<T, const N: usize>(&self, header: [&str; N], rows: &[[T; N]]) -> io::Result<()>
    where
        for<'a> &'a T: Into<Cell>,
    {
        let rows: Vec<Vec<Cell>> = rows.iter().map(|row| row.iter().map(Into::into).collect()).collect();
        self.text(table(&header, &rows, self.width(), self.colours()))
    }

    /// How wide stdout is, if it is a terminal.
    #[must_use]
    pub fn width(&self) -> Option<usize> {
        io::stdout().is_terminal().then(terminal_width).flatten()
    }

    /// Columns and rows of stdout, if it is a terminal.
    #[must_use]
    pub fn size(&self) -> Option<(usize, usize)> {
        let size = terminal_size::terminal_size_of(io::stdout())?;
        Some((usize::from(size.0.0), usize::from(size.1.0)))
    }

    /// Whether stdout takes colours.
    #[must_use]
    pub fn colours(&self) -> bool {
        style::wanted()
    }

    /// The text in a colour where stdout takes it.
    #[must_use]
    pub fn painted(&self, text: impl Display, colour: Option<Colour>) -> String {
        match colour.filter(|_| self.colours()) {
            Some(colour) => paint(&text.to_string(), colour),
            None => text.to_string(),
        }
    }

    /// Writes to a terminal that somebody else has readied, as it is.
    ///
    /// # Errors
    /// As of [`Output::text`].
    pub fn screen(&self, text: String) -> io::Result<()> {
        to_stdout(text)
    }

    /// Says what is being done, with `-v`.
    pub fn info(&self, sentence: impl Display) {
        if self.verbose >= 1 {
            self.say(&sentence);
        }
    }

    /// Says why, with `-vv`.
    pub fn debug(&self, sentence: impl Display) {
        if self.verbose >= 2 {
            self.say(&sentence);
        }
    }

    /// Says what the user should know, such as how the container ended; not with `-q`.
    pub fn note(&self, sentence: impl Display) {
        if !self.quiet {
            self.say(&sentence);
        }
    }

    /// Says what is not as asked for and yet no reason to stop; not with `-q`.
    pub fn warning(&self, sentence: impl Display) {
        if self.bare {
            self.say(&sentence);
        } else {
            self.note(format_args!("warning: {sentence}"));
        }
    }

    /// Passes on a line of a program that works for us, as it is: on a terminal, where somebody waits for it, or with
    /// `-v`.
    pub fn passed_on(&self, line: &str) {
        if !self.quiet && (self.verbose >= 1 || io::stderr().is_terminal()) {
            let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
        }
    }

    /// Shows how far something is, in place of what was shown before, on a terminal and not with `-q`; an empty text
    /// takes it away.
    pub fn progress(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        if !self.quiet && stderr.is_terminal() {
            let width = terminal_width().unwrap_or(80).saturating_sub(1);
            let text: String = text.chars().take(width).collect();
            let _ = stderr.write_all(format!("\r\x1b[K{text}").as_bytes()).and_then(|()| stderr.flush());
        }
    }

    /// Says why something failed.
    pub fn error(&self, sentence: impl Display) {
        self.say(&sentence);
    }

    fn say(&self, sentence: &dyn Display) {
        let _ = io::stderr().lock().write_all(format!("{}{sentence}\n", self.prefix).as_bytes());
    }
}

/// Whether somebody can be asked: stdin and stderr are a terminal.
#[must_use]
pub fn on_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on the terminal; only a yes is one.
#[must_use]
pub fn confirmed(question: &str) -> bool {
    let _ = io::stderr().lock().write_all(format!("{PREFIX}{question}").as_bytes());
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes" | "Yes")
}

/// What begins a line on stderr.
const PREFIX: &str = "nixrun: ";

/// Prints what clap has to say and returns the exit code that goes with it.
#[must_use]
pub fn usage(message: &clap::Error) -> u8 {
    let text = message.to_string();
    if !message.use_stderr() {
        return match to_stdout(text) {
            Ok(()) => exit::SUCCESS,
            Err(_) => exit::FAILURE,
        };
    }
    if message.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Help, only not asked for.
        let _ = io::stderr().lock().write_all(text.as_bytes());
        return exit::USAGE;
    }
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    let _ = io::stderr().lock().write_all(format!("{PREFIX}{text}\n").as_bytes());
    exit::USAGE
}

fn to_stdout(text: String) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn terminal_width() -> Option<usize> {
    terminal_size::terminal_size().map(|(terminal_size::Width(columns), _)| usize::from(columns))
}
