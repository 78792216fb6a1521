//! A command inside a running container.

use std::ffi::OsString;
use std::path::PathBuf;

use runtime::HostPaths;
use runtime::exec::{Command, Streams};
use runtime::instance::State;
use runtime::supervisor::Attached;
use runtime::sys::process::Ended;

use super::control::running;
use super::error::{Error, Result};
use crate::live;

/// What to run inside.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// The container.
    pub name: String,
    /// Command and arguments.
    pub argv: Vec<OsString>,
    /// Variables on top of the default environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory; `/` when absent.
    pub cwd: Option<PathBuf>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Its standard input, output and error where it gets no terminal; ours when absent.
    pub streams: Option<Streams>,
}

/// Where NixOS keeps programs, before the places of other systems.
pub(super) const PATH: &str = "/run/wrappers/bin:/root/.nix-profile/bin:/nix/var/nix/profiles/default/bin:\
                    /run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a command inside a running container, to its end.
///
/// # Errors
/// When the container does not run, is paused, or the command cannot be executed.
pub fn exec(request: &ExecRequest, attached: &Attached<'_>, paths: &HostPaths) -> Result<Ended> {
    exec_in(&running(&request.name, paths)?, request, attached)
}

/// The same in the container with this state.
pub(super) fn exec_in(state: &State, request: &ExecRequest, attached: &Attached<'_>) -> Result<Ended> {
    if live::is_paused(&state.cgroup) {
        return Err(Error::Other(format!(
            "container {0} is paused, and so would be a command in it; let it go on with `nixrun resume {0}`",
            state.name
        )));
    }
    let mut env: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), PATH.into()),
        ("HOME".into(), "/root".into()),
        ("USER".into(), "root".into()),
        ("LOGNAME".into(), "root".into()),
        ("LANG".into(), "C.UTF-8".into()),
        ("container".into(), "systemd-nspawn".into()),
    ];
    if let Some(term) = std::env::var_os("TERM").filter(|_| request.terminal) {
        env.push(("TERM".into(), term));
    }
    env.retain(|(key, _)| !request.env.iter().any(|(k, _)| k == key));
    env.extend(request.env.iter().cloned());
    let command = Command {
        argv: request.argv.clone(),
        env,
        cwd: request.cwd.clone().unwrap_or_else(|| PathBuf::from("/")),
        terminal: request.terminal,
        streams: request.streams.clone(),
    };
    runtime::exec::run(state, &command, attached).map_err(Error::from)
}
