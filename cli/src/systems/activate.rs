//! A system activated in a running container, without restarting it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::readlinkat;
use nix::sys::signalfd::SignalFd;
use runtime::HostPaths;
use runtime::instance::{self, State};
use runtime::supervisor::Attached;
use runtime::sys::process::Ended;

use super::{Progress, store, versions};
use crate::ops::{self, ExecRequest};

/// A running container and its system.
pub(super) struct Live {
    pub(super) state: State,
    /// The system that was activated last; `None` when the container does not tell.
    pub(super) system: Option<PathBuf>,
}

impl Live {
    /// The container, if it runs.
    pub(super) fn of(name: &str, paths: &HostPaths) -> Option<Live> {
        let state = instance::find(paths, name).filter(|found| found.alive)?.state?;
        let system = running_system(&state);
        Some(Live { state, system })
    }

    /// Why a system takes effect at a restart only.
    pub(super) fn needs_restart(&self, system: &Path, paths: &HostPaths) -> Option<String> {
        let (old, new) = (self.system.as_deref()?, system);
        let (old, new) = (versions::init_interface(old, paths)?, versions::init_interface(new, paths)?);
        (old != new).then(|| format!("its init has another interface ({new} instead of {old})"))
    }
}

/// Where the container's /run/current-system leads. Nothing of the container's is followed.
fn running_system(state: &State) -> Option<PathBuf> {
    let pidfd = state.leader.open()?;
    let root = File::open(format!("/proc/{}/root", state.leader.pid)).ok()?;
    // The path just opened is the leader's only if the leader still lives.
    runtime::sys::process::pidfd_send_signal(pidfd.as_fd(), 0).ok()?;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let no_links = runtime::sys::inroot::RESOLVE_IN_ROOT | runtime::sys::inroot::RESOLVE_NO_SYMLINKS;
    let run = runtime::sys::fd::openat2(root.as_fd(), c"run", flags, 0, no_links).ok()?;
    let system = PathBuf::from(readlinkat(&run, "current-system").ok()?);
    store::is_path(&system).then_some(system)
}

/// Runs `SYSTEM/bin/switch-to-configuration test` in the container: what NixOS does in a reload of its unit. What it says
/// goes to `progress`. `signals` are passed on to it.
///
/// # Errors
/// How it failed, with the last line that it said.
pub(super) fn activate(
    name: &str,
    system: &Path,
    signals: Option<&SignalFd>,
    paths: &HostPaths,
    progress: Progress<'_>,
) -> Result<(), String> {
    // A store path has nothing in it that means something to a shell but perhaps a question mark.
    let script = format!("exec '{}/bin/switch-to-configuration' test", system.display());
    let request = ExecRequest {
        name: name.to_owned(),
        argv: ["bash", "--login", "-c", &script].map(Into::into).to_vec(),
        // What it says is for a log, and goes through a terminal of the container's only so that nothing of ours is in it.
        env: vec![("TERM".into(), "dumb".into()), ("SYSTEMD_PAGER".into(), "cat".into())],
        cwd: None,
        terminal: true,
        streams: None,
    };
    let (reader, writer) = std::io::pipe().map_err(|error| format!("no pipe could be made: {error}"))?;
    let mut last = String::new();
    let ended = std::thread::scope(|scope| {
        let command = scope.spawn(move || {
            let output = Some(writer.as_fd());
            let attached = Attached { signals, output, input: None, grace: Duration::MAX };
            ops::exec(&request, &attached, paths)
        });
        for line in BufReader::new(reader).split(b'\n') {
            let Ok(line) = line else { break };
            let line = super::build::plain(&line);
            progress(&line);
            if !line.trim().is_empty() {
                last = line;
            }
        }
        command.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let last = if last.is_empty() { "it said nothing" } else { last.trim() };
    match ended {
        Ok(Ended::Exited(0)) => Ok(()),
        Ok(Ended::Exited(status)) => Err(format!("switch-to-configuration exited with {status}: {last}")),
        Ok(Ended::Killed(signal)) => {
            Err(format!("switch-to-configuration was ended by signal {signal}: {last}"))
        }
        Err(error) => Err(error.to_string()),
    }
}
