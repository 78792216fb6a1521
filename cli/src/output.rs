//! The only place that prints: results on stdout, everything about the work on stderr.
//!
//! A reader that closes its end early (`nixrun list | head -1`) is no error. Neither is a stderr that nobody can read.

use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};

use serde::Serialize;

use crate::args::Global;
use crate::exit;

/// How much is said on stderr, and how wide a table may be.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    quiet: bool,
    verbose: u8,
    /// Whether lines on stderr are systemd-nspawn's, which nothing precedes.
    bare: bool,
}

impl Output {
    /// As the options say.
    #[must_use]
    pub fn new(global: &Global) -> Output {
        Output { quiet: global.quiet, verbose: global.verbose, bare: false }
    }

    /// In the manner of systemd-nspawn: lines begin with nothing of ours, and `quiet` leaves warnings.
    #[must_use]
    pub fn bare(quiet: bool, verbose: u8) -> Output {
        Output { quiet, verbose, bare: true }
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

    /// Prints rows under a header, cut to the width of the terminal if there is one.
    ///
    /// # Errors
    /// As of [`Output::text`].
    pub fn table<const N: usize>(&self, header: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
        let width = io::stdout().is_terminal().then(terminal_width).flatten();
        self.text(table(header, rows, width))
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

    /// Says why something failed.
    pub fn error(&self, sentence: impl Display) {
        self.say(&sentence);
    }

    fn say(&self, sentence: &dyn Display) {
        let name = if self.bare { "" } else { PREFIX };
        let _ = io::stderr().lock().write_all(format!("{name}{sentence}\n").as_bytes());
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

/// Lays out a table: columns two blanks apart, as wide as their widest cell. When the whole is wider than `width`,
/// the widest columns lose characters first, down to the width of their header, and a cut cell ends in `…`.
fn table<const N: usize>(header: [&str; N], rows: &[[String; N]], width: Option<usize>) -> String {
    let columns: Vec<Column> = (0..N)
        .map(|i| {
            let least = cells(header[i]);
            let most = rows.iter().map(|row| cells(&row[i])).max().unwrap_or(0).max(least);
            Column { least, width: most }
        })
        .collect();
    let columns = fit(columns, width.map(|width| width.saturating_sub(2 * N.saturating_sub(1))));
    let mut text = line(header, &columns);
    for row in rows {
        text += &line::<N>(std::array::from_fn(|i| row[i].as_str()), &columns);
    }
    text
}

struct Column {
    least: usize,
    width: usize,
}

fn fit(mut columns: Vec<Column>, room: Option<usize>) -> Vec<Column> {
    let Some(room) = room else { return columns };
    while columns.iter().map(|c| c.width).sum::<usize>() > room {
        match columns.iter_mut().filter(|c| c.width > c.least).max_by_key(|c| c.width) {
            Some(widest) => widest.width -= 1,
            None => break,
        }
    }
    columns
}

fn line<const N: usize>(row: [&str; N], columns: &[Column]) -> String {
    let mut line = String::new();
    for (cell, column) in row.iter().zip(columns) {
        let cut = if cells(cell) > column.width {
            cell.chars().take(column.width.saturating_sub(1)).chain(['…']).collect()
        } else {
            (*cell).to_owned()
        };
        line += &format!("{cut:<width$}  ", width = column.width);
    }
    line.truncate(line.trim_end().len());
    line + "\n"
}

/// Characters stand for terminal cells: names and paths of this program are next to always ASCII.
fn cells(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[[&str; 3]]) -> Vec<[String; 3]> {
        rows.iter().map(|row| row.map(str::to_owned)).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = table(
            ["NAME", "STATE", "ADDRESS"],
            &rows(&[["nextcloud", "up", ""], ["a", "down", "10.0.0.2"]]),
            None,
        );
        assert_eq!(text, "NAME       STATE  ADDRESS\nnextcloud  up\na          down   10.0.0.2\n");
        assert_eq!(table(["NAME", "STATE", "ADDRESS"], &[], Some(10)), "NAME  STATE  ADDRESS\n");
    }

    #[test]
    fn the_widest_column_is_cut_first() {
        let rows = rows(&[["web", "up", "/nix/store/0123456789-nixos-system-web"]]);
        let text = table(["NAME", "STATE", "SYSTEM"], &rows, Some(30));
        assert_eq!(text, "NAME  STATE  SYSTEM\nweb   up     /nix/store/01234…\n");
        let text = table(["NAME", "STATE", "SYSTEM"], &rows, Some(3));
        assert_eq!(text, "NAME  STATE  SYSTEM\nweb   up     /nix/…\n");
    }

    #[test]
    fn characters_count_and_not_bytes() {
        let text = table(["A", "B", "C"], &rows(&[["äöü", "x", "äöüäöü"]]), Some(11));
        assert_eq!(text, "A    B  C\näöü  x  äö…\n");
    }
}
