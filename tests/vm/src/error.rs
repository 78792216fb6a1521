//! The one error type: what was being done, to what, and why it failed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Why a virtual machine could not be built, started or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a file failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// Verb phrase, such as "read".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A program could not be started.
    #[error("cannot {doing}: starting {program} failed: {source}{}", install_hint(source))]
    Start {
        /// Verb phrase, such as "build the root disk".
        doing: &'static str,
        /// The program's name.
        program: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A program ran and failed.
    #[error("cannot {doing}: {program} ended with {status}{}", quoted(said))]
    Program {
        /// Verb phrase, such as "build the root disk".
        doing: &'static str,
        /// The program's name.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last lines of its standard error.
        said: String,
    },
    /// The machine did not do what was waited for.
    #[error("the virtual machine {what}{}", quoted(serial))]
    Machine {
        /// What went wrong, such as "gave no result within 120 s".
        what: String,
        /// The last lines of its serial console and of QEMU's messages.
        serial: String,
    },
    /// Something given by the user or by another program cannot be used.
    #[error("{0}")]
    Input(String),
}

fn install_hint(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::NotFound => " (`cargo xtask vm image` installs what is needed)",
        _ => "",
    }
}

fn quoted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("; its last lines were:\n{text}") }
}

impl Error {
    /// For `map_err`: an I/O error with the file it happened on.
    pub fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }
}

/// Runs `command` to its end and returns what it printed.
///
/// # Errors
/// [`Error::Start`] when it cannot be started, [`Error::Program`] with its last lines when it fails.
pub fn run(doing: &'static str, command: &mut Command) -> Result<String, Error> {
    let program = Path::new(command.get_program()).display().to_string();
    let Output { status, stdout, stderr } = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { doing, program: program.clone(), source })?;
    if !status.success() {
        return Err(Error::Program { doing, program, status, said: last_lines(&stderr, 12) });
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// The last `count` lines of `text` that are not blank.
#[must_use]
pub fn last_lines(text: &[u8], count: usize) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
