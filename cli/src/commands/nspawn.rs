//! `nixrun nspawn`, and nixrun as systemd-nspawn.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::{Console, HostPaths};

use super::boot::{Manner, foreground, terminal};
use super::printed;
use crate::args::Call;
use crate::exit;
use crate::listen_fds::inherited;
use crate::ops::{self, Error, Request};
use crate::output::Output;
use crate::systemd_nspawn::{self, Asked, Meaning, Stop, Surroundings};

/// Does what a command line of systemd-nspawn asks for, and returns the exit code.
#[must_use]
pub fn nspawn(mut call: Call) -> u8 {
    log_level(&mut call);
    // As systemd-nspawn does: files that we make have the modes that we give them.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let out = Output::bare(call.global.quiet, call.global.verbose);
    let paths = HostPaths::below(&call.global.host_root);
    let here = here();
    let asked = match systemd_nspawn::parse(&call.program, &call.words, &here) {
        Ok(asked) => asked,
        Err(Stop::Print(text)) => {
            return match out.text(text) {
                Ok(()) => exit::SUCCESS,
                Err(_) => exit::FAILURE,
            };
        }
        Err(Stop::Fault(sentence)) => {
            out.error(sentence);
            return exit::FAILURE;
        }
    };
    run(asked, &call, &here, &paths).unwrap_or_else(|error| {
        out.error(error);
        exit::FAILURE
    })
}

fn run(asked: Asked, call: &Call, here: &Path, paths: &HostPaths) -> Result<u8, Error> {
    let around = around(here, paths);
    let meaning = |asked| systemd_nspawn::meaning(asked, around).map_err(Error::Other);
    if asked.cleanup {
        return cleanup(&asked, call, around);
    }
    let first = meaning(asked.clone())?;
    let out = Output::bare(first.quiet || call.global.quiet, call.global.verbose);
    let manner = Manner {
        kept: false,
        admission: first.keep_unit,
        restart: !first.keep_unit,
        talkative: true,
        grace: Duration::MAX,
        announce: Some(announcement(&first)),
    };
    // A reboot reads the settings again.
    let first = Cell::new(Some(first));
    foreground(&manner, paths, &out, || match first.take() {
        Some(first) => Ok(first.request),
        None => Ok(meaning(asked.clone())?.request),
    })
}

/// What a command line asks for, to be looked at; nothing when it asks for a text, which is printed.
pub(super) fn request(words: &[OsString], paths: &HostPaths, out: &Output) -> Result<Option<Request>, Error> {
    let here = here();
    match systemd_nspawn::parse(systemd_nspawn::PROGRAM, words, &here) {
        Ok(asked) => {
            let meaning = systemd_nspawn::meaning(asked, around(&here, paths)).map_err(Error::Other)?;
            Ok(Some(meaning.request))
        }
        Err(Stop::Print(text)) => printed(out.text(text)).map(|()| None),
        Err(Stop::Fault(sentence)) => Err(Error::Other(sentence)),
    }
}

/// How much systemd's programs say is set by a variable.
fn log_level(call: &mut Call) {
    match variable("SYSTEMD_LOG_LEVEL").as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("debug" | "7") => call.global.verbose = call.global.verbose.max(2),
        Some(
            "emerg" | "alert" | "crit" | "err" | "warning" | "notice" | "0" | "1" | "2" | "3" | "4" | "5",
        ) => {
            call.global.quiet = true;
        }
        _ => {}
    }
}

fn here() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| "/".into())
}

fn around<'a>(here: &'a Path, paths: &'a HostPaths) -> Surroundings<'a> {
    Surroundings { here, variable: &variable, paths, terminal: terminal(), listen_fds: inherited() }
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn announcement(meaning: &Meaning) -> String {
    let container = &meaning.request.container;
    let mut text = format!("Spawning container {} on {}.", container.name, meaning.root.display());
    if container.console == Console::Interactive {
        text += "\nPress Ctrl-] three times within 1s to kill container.";
    }
    text
}

/// What `--cleanup` does: whatever a container of this name left behind is removed.
fn cleanup(asked: &Asked, call: &Call, around: Surroundings<'_>) -> Result<u8, Error> {
    let name = systemd_nspawn::machine_name(asked, around).map_err(Error::Other)?;
    let reclaimed = ops::reclaim(Some(&name), around.paths)?;
    let out = Output::bare(asked.quiet || call.global.quiet, call.global.verbose);
    for one in &reclaimed {
        out.info(format_args!("Removed what container {} had left behind.", one.name));
    }
    Ok(exit::SUCCESS)
}
