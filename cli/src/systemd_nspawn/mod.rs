//! The personality of systemd-nspawn: its command line and its `.nspawn` files, turned into what every front end asks
//! for. It has no way of its own into the runtime.
//!
//! ```text
//! words --getopt--> Asked --+
//! .nspawn file ---> Asked --+-- merged --> checked --> ContainerConfig + NetworkConfig, in a Request
//! environment ------------------------------^
//! ```
//! One table, [`OPTIONS`], is behind the parser, `--help`, the keys of `.nspawn` files and docs/nspawn.md.
//! Wordings are systemd-nspawn's as far as programs may look for them, with what would be right behind.

mod asked;
mod check;
mod environment;
pub mod getopt;
mod help;
mod mounts;
pub mod options;
mod root;
mod set;
mod settings;
mod table;
mod translate;
mod unit_file;
mod values;
mod words;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use runtime::HostPaths;

pub use asked::{Asked, ConsoleMode, CredentialSource, Given, Network, SettingsMode, Start};
pub use help::{help, options_table};
pub use set::Stop;
pub use table::OPTIONS;

use crate::ops::Request;

/// Name under which nixrun is systemd-nspawn.
pub const PROGRAM: &str = "systemd-nspawn";

/// What a command line is read against.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The working directory.
    pub here: &'a Path,
    /// The environment.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The host's files.
    pub paths: &'a HostPaths,
    /// Whether stdin and stdout are a terminal.
    pub terminal: bool,
    /// Number of sockets that a service manager passed to us.
    pub listen_fds: u32,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("here", &self.here)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

/// What a command line means.
#[derive(Debug)]
pub struct Meaning {
    /// The container.
    pub request: Request,
    /// What stands for its root in messages.
    pub root: PathBuf,
    /// Whether nothing but errors is said.
    pub quiet: bool,
    /// Whether a reboot ends us, for the unit to start us again.
    pub keep_unit: bool,
}

/// Reads the words behind the program's name; `program` is what stands before getopt's messages.
///
/// # Errors
/// [`Stop`]: what is wrong, or what is to be printed instead.
pub fn parse(program: &str, words: &[OsString], here: &Path) -> Result<Asked, Stop> {
    read(program, words, here).map_err(|stop| match stop {
        Stop::Fault(sentence) => Stop::Fault(printable(sentence)),
        print => print,
    })
}

fn read(program: &str, words: &[OsString], here: &Path) -> Result<Asked, Stop> {
    let mut asked = Asked::default();
    let mut all = getopt::Words::new(words);
    for given in all.by_ref() {
        let given = given.map_err(|fault| format!("{program}: {fault}"))?;
        let entry = given.entry();
        let value = given.value.as_ref().map(|value| {
            let fault =
                || format!("{program}: the value {value:?} of option '--{}' is not UTF-8", entry.long);
            value.to_str().ok_or_else(fault)
        });
        match asked.set(entry.id, value.transpose()?, here) {
            Err(Stop::Print(_)) if entry.id == options::Id::Help => return Err(Stop::Print(help(program))),
            done => done?,
        }
    }
    let rest = all.rest();
    if !rest.is_empty() {
        asked.parameters = rest.to_vec();
        asked.given.add(options::Setting::StartMode);
    }
    Ok(asked)
}

/// Turns what was asked for into a request.
///
/// # Errors
/// One sentence.
pub fn meaning(asked: Asked, around: Surroundings<'_>) -> Result<Meaning, String> {
    let mut meaning = translate::translate(asked, around).map_err(printable)?;
    for note in &mut meaning.request.notes {
        *note = printable(std::mem::take(note));
    }
    Ok(meaning)
}

/// Reads a `.nspawn` file's content, of `path`: what it asks for, and what of it was passed over. `trusted` says
/// whether it is the administrator's; relative paths in it begin at `here`.
///
/// # Errors
/// One sentence, when the file cannot be used at all or asks for what nixrun refuses.
pub fn settings_file(
    bytes: &[u8],
    path: &Path,
    trusted: bool,
    here: &Path,
) -> Result<(Asked, Vec<String>), String> {
    let settings = settings::parse(bytes, path, trusted, here).map_err(printable)?;
    Ok((settings.asked, settings.warnings.into_iter().map(printable).collect()))
}

/// A sentence stays one line, whatever was quoted in it.
fn printable(sentence: String) -> String {
    if !sentence.contains(char::is_control) {
        return sentence;
    }
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    sentence.chars().map(shown).collect()
}

/// What the container is called.
///
/// # Errors
/// One sentence, when nothing gives it a name.
pub fn machine_name(asked: &Asked, around: Surroundings<'_>) -> Result<String, String> {
    root::names(asked, around.here, around.paths).map(|names| names.machine)
}
