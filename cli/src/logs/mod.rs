//! What a container has logged, read from the host: its journal, or its console.

mod console;
mod line;
mod of_journal;

use std::os::fd::BorrowedFd;

use runtime::HostPaths;

pub use line::LogLine;

use crate::ops::{Error, Result};
use console::ConsoleLog;
use of_journal::JournalLog;

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRequest {
    /// The container.
    pub name: String,
    /// Only so many lines of what is there; all when absent.
    pub lines: Option<usize>,
    /// Only what this unit has logged, and systemd about it.
    pub unit: Option<String>,
    /// The console, although there is a journal.
    pub console: bool,
}

/// Where the lines come from.
#[derive(Debug)]
enum Source {
    Journal(Box<JournalLog>),
    Console(ConsoleLog),
}

/// The log of a container.
#[derive(Debug)]
pub struct Logs(Source);

impl Logs {
    /// Finds it: the container's journal, or what its console has printed where it has none.
    ///
    /// # Errors
    /// When there is no such container, or nothing that it has logged can be found.
    pub fn open(request: &LogRequest, paths: &HostPaths) -> Result<Logs> {
        let unit = request.unit.as_deref().map(unit_name);
        if !request.console {
            let journal = JournalLog::of_container(&request.name, unit, request.lines, paths)?;
            if !journal.is_empty() {
                return Ok(Logs(Source::Journal(Box::new(journal))));
            }
            if let Some(unit) = &request.unit {
                return Err(Error::Other(format!(
                    "cannot show what {unit} of container {0} has logged: the container has no journal; `nixrun logs {0}` \
                     shows its console",
                    request.name
                )));
            }
        } else {
            crate::ops::status(&request.name, paths)?;
        }
        // Where systemd runs, the console is its unit's standard output.
        if paths.join("/run/systemd/system").is_dir() {
            let journal = JournalLog::of_host(&request.name, request.lines, paths)?;
            if !journal.is_empty() {
                return Ok(Logs(Source::Journal(Box::new(journal))));
            }
        }
        ConsoleLog::open(&request.name, request.lines, paths).map(|log| Logs(Source::Console(log)))
    }

    /// Hands out what is there and was not handed out before, in order.
    ///
    /// # Errors
    /// When it cannot be read, and what `each` returns.
    pub fn read(&mut self, each: &mut dyn FnMut(&LogLine) -> Result<()>) -> Result<()> {
        match &mut self.0 {
            Source::Journal(log) => log.read(each),
            Source::Console(log) => log.read(each),
        }
    }

    /// What to wait for before reading again, at most a second: what is not told is looked for, such as a container that
    /// was started again.
    pub fn changes(&mut self) -> Vec<BorrowedFd<'_>> {
        match &mut self.0 {
            Source::Journal(log) => log.changes(),
            Source::Console(log) => log.changes(),
        }
    }
}

/// As systemctl completes names.
fn unit_name(unit: &str) -> String {
    const KINDS: [&str; 11] = [
        "service",
        "socket",
        "target",
        "timer",
        "mount",
        "automount",
        "swap",
        "path",
        "slice",
        "scope",
        "device",
    ];
    match unit.rsplit_once('.') {
        Some((_, kind)) if KINDS.contains(&kind) => unit.to_owned(),
        _ => format!("{unit}.service"),
    }
}
