//! `nixrun completions` and `man`, and the answers to completion scripts.

use std::ffi::{OsStr, OsString};
use std::fs;

use super::{Result, printed};
use crate::args::{CompletionsArgs, Global, ManArgs};
use crate::ops::Error;
use crate::output::Output;
use crate::{completion, exit, files, man};

pub(super) fn completions(args: &CompletionsArgs, out: &Output) -> Result {
    let script = completion::script(args.shell)
        .map_err(|error| Error::Other(format!("cannot write the completion script: {error}")))?;
    printed(out.text(String::from_utf8_lossy(&script)))?;
    Ok(exit::SUCCESS)
}

/// What a script of `completions` gets: the answer on stdout, or nothing.
#[must_use]
pub fn complete(asked: &OsStr, words: &[OsString]) -> u8 {
    let out = Output::new(&Global { host_root: "/".into(), verbose: 0, quiet: false });
    match completion::answer(asked, words) {
        Ok(answer) => match out.text(String::from_utf8_lossy(&answer)) {
            Ok(()) => exit::SUCCESS,
            Err(_) => exit::FAILURE,
        },
        Err(error) => {
            out.error(error);
            exit::USAGE
        }
    }
}

pub(super) fn man(args: &ManArgs, out: &Output) -> Result {
    let directory = &args.directory;
    let failed =
        |error| Error::Other(format!("cannot write the manual pages into {}: {error}", directory.display()));
    let pages = man::pages().map_err(failed)?;
    fs::create_dir_all(directory).map_err(failed)?;
    for (file, text) in &pages {
        files::replace(&directory.join(file), text, 0o644).map_err(failed)?;
    }
    out.info(format_args!("Wrote {} manual pages into {}.", pages.len(), directory.display()));
    Ok(exit::SUCCESS)
}
