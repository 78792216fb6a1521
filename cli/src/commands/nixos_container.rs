//! nixrun as nixos-container.

use std::ffi::OsString;

use runtime::HostPaths;

use super::{Result, perform, printed};
use crate::args::{self, Call};
use crate::life;
use crate::nixos_container::{self, Action, Asked, FAILED, HELP, NO_SUCH_FILE, PROGRAM};
use crate::ops::{self, Error, Phase};
use crate::output::Output;
use crate::{configured, exit};

/// Does what a command line of nixos-container asks for, and returns the exit code.
#[must_use]
pub fn nixos_container(call: &Call) -> u8 {
    let out = Output::called(&call.global, "nixos-container: ");
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let paths = HostPaths::below(&call.global.host_root);
    let asked = match nixos_container::parse(&call.words) {
        Ok(asked) => asked,
        Err((sentence, code)) => {
            out.error(sentence);
            return code;
        }
    };
    let result = match asked {
        Asked::Help => printed(out.text(HELP)).map(|()| exit::SUCCESS),
        Asked::List => list(&paths, &out),
        Asked::Create { words, .. } => return command(words, call, &out),
        Asked::Of { name, action } => match configured::find(&name, &paths) {
            Err(_) => missing(&name, &action, &out),
            Ok(_) => match action {
                Action::Destroy => destroy(&name, &paths, &out),
                Action::Status => status(&name, &paths, &out),
                Action::ShowIp => show_ip(&name, &paths, &out),
                Action::ShowHostKey => return show_host_key(&name, &paths, &out),
                Action::Command(words) => return command(words, call, &out),
            },
        },
    };
    result.unwrap_or_else(|error| {
        out.error(error);
        FAILED
    })
}

/// One of nixrun's own commands.
fn command(words: Vec<OsString>, call: &Call, out: &Output) -> u8 {
    match args::parse([PROGRAM.into()].into_iter().chain(words)) {
        Ok(mut invocation) => {
            invocation.global = call.global.clone();
            perform(invocation, *out)
        }
        Err(message) => {
            out.error(message.to_string().trim_start_matches("error: ").trim_end());
            exit::FAILURE
        }
    }
}

fn missing(name: &str, action: &Action, out: &Output) -> Result {
    match action {
        // What is to go and is not there needs nothing.
        Action::Destroy => return Ok(exit::SUCCESS),
        Action::Status => printed(out.text("gone"))?,
        _ => {}
    }
    out.error(format_args!("container ‘{name}’ does not exist"));
    Ok(NO_SUCH_FILE)
}

fn list(paths: &HostPaths, out: &Output) -> Result {
    let names: String = configured::list(paths)?.iter().map(|one| format!("{}\n", one.name)).collect();
    printed(out.text(names))?;
    Ok(exit::SUCCESS)
}

fn destroy(name: &str, paths: &HostPaths, out: &Output) -> Result {
    let files = configured::find(name, paths)?;
    if files.conf.iter().chain(&files.json).any(|file| life::is_declarative(file)) {
        let sentence = "cannot destroy declarative container (remove it from your configuration.nix instead)";
        return Err(Error::Other(sentence.to_owned()));
    }
    let destroyed = life::destroy(name, paths)?;
    for place in &destroyed.detached {
        out.info(format_args!("{} was mounted; what is in it is as it was.", place.display()));
    }
    Ok(exit::SUCCESS)
}

fn status(name: &str, paths: &HostPaths, out: &Output) -> Result {
    let up = matches!(ops::status(name, paths)?.phase, Phase::Running | Phase::Paused);
    printed(out.text(if up { "up" } else { "down" }))?;
    Ok(exit::SUCCESS)
}

fn show_ip(name: &str, paths: &HostPaths, out: &Output) -> Result {
    let found = life::addresses(name, paths).map_err(|_| Error::Other("cannot get IP address".to_owned()))?;
    let v4 = found.address.map(|address| address.to_string());
    let v6 = found.address6.map(|address| address.to_string());
    printed(out.text(v4.or(v6).unwrap_or_default()))?;
    Ok(exit::SUCCESS)
}

/// Without a word where there is none.
fn show_host_key(name: &str, paths: &HostPaths, out: &Output) -> u8 {
    let shown = life::host_key(name, paths).and_then(|found| printed(out.text(found.key)));
    if shown.is_ok() { exit::SUCCESS } else { exit::FAILURE }
}
