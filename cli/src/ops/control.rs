//! Stopping and killing a running container from outside its supervisor.
//!
//! ```text
//! stop    SIGTERM to the supervisor, or to its keeper, which passes it on    the container's stop signal to PID 1
//!         …timeout…  SIGTERM again, and cgroup.kill                          every process of the container is killed
//!         …15 s…     SIGKILL to the supervisor, and reclaim                  for one that hangs
//! kill    SIGQUIT to the keeper, else cgroup.kill; …15 s… as above
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runtime::instance::{self, State};
use runtime::sys::process::pidfd_send_signal;
use runtime::{HostPaths, instance::ProcessId};

use super::embedded;
use super::error::{Error, Result};
use super::reclaim;
use super::show::not_running;
use crate::held::{self, Held};
use crate::service::keeper;

/// How long a supervisor may take to clean up once its container is dead.
const CLEANUP: Duration = Duration::from_secs(15);

/// Held by a stop that is at it, by the container's name.
const STOPS: &str = "/run/nixrun/.stop";

/// Shuts a container down and waits until its supervisor has cleaned up. After `timeout` it is killed; whether
/// that was needed is returned. Several may stop a container at once; the first timeout counts.
///
/// # Errors
/// When the container does not run, or does not end.
pub fn stop(name: &str, timeout: Duration, paths: &HostPaths) -> Result<bool> {
    if let Some(state) = embedded::find(name, paths) {
        return embedded::stop(&state, timeout, paths);
    }
    let target = Target::find(name, paths)?;
    let Some(process) = target.process.as_ref() else {
        return Err(not_running(name, paths));
    };
    // A supervisor that is asked twice kills: the second stop only waits.
    let held = Held::take(&paths.join(STOPS).join(name), 2).ok().flatten();
    if let Some(mut held) = held {
        let _ = held.say(&std::process::id().to_string());
        signal(process.as_fd(), libc::SIGTERM, name)?;
        if ended(process.as_fd(), timeout) {
            keeper::tidy(name, paths);
            return Ok(false);
        }
    } else if ended(process.as_fd(), timeout) {
        return Ok(false);
    }
    // A second request: the supervisor kills the container. One that does not come to it is helped.
    let _ = signal(process.as_fd(), libc::SIGTERM, name);
    kill_processes(name, paths);
    target.wait_for_cleanup(name, paths)?;
    Ok(true)
}

/// The process that stops a container at the moment.
#[must_use]
pub(crate) fn stop_in_progress(name: &str, paths: &HostPaths) -> Option<String> {
    held::holder(&paths.join(STOPS).join(name))
}

/// Sends a signal to PID 1, or ends every process of the container at once, for good, and waits for the clean-up.
///
/// # Errors
/// When the container does not run, or does not end.
pub fn kill(name: &str, signal_number: Option<i32>, paths: &HostPaths) -> Result<()> {
    if let Some(number) = signal_number {
        let state = running(name, paths)?;
        let leader = state.leader.open().ok_or_else(|| not_running(name, paths))?;
        return signal(leader.as_fd(), number, name);
    }
    if let Some(state) = embedded::find(name, paths) {
        return embedded::kill(&state, paths);
    }
    let target = Target::find(name, paths)?;
    if target.process.is_none() {
        return Err(not_running(name, paths));
    }
    if let Some(keeper) = &target.keeper {
        // By its own hands: it would take the container's end for a failure.
        signal(keeper.as_fd(), keeper::END, name)?;
    } else {
        kill_processes(name, paths);
    }
    target.wait_for_cleanup(name, paths)
}

/// Kills every process of a container; whether there was one.
pub(crate) fn kill_processes(name: &str, paths: &HostPaths) -> bool {
    running(name, paths).is_ok_and(|state| std::fs::write(kill_file(&state), "1").is_ok())
}

fn kill_file(state: &State) -> PathBuf {
    state.cgroup.join("cgroup.kill")
}

/// Has a keeper end that waits for the next start of its container.
pub(crate) fn end_keeper(keeper: &ProcessId, name: &str) -> Result<()> {
    let Some(process) = keeper.open() else { return Ok(()) };
    signal(process.as_fd(), libc::SIGTERM, name)?;
    if ended(process.as_fd(), CLEANUP) {
        return Ok(());
    }
    Err(Error::Other(format!(
        "cannot start container {name}: process {}, which keeps it, does not end",
        keeper.pid
    )))
}

/// The processes of nixrun that have a container.
struct Target {
    /// The one to ask for its end, and to wait for.
    process: Option<OwnedFd>,
    keeper: Option<OwnedFd>,
    supervisor: Option<OwnedFd>,
}

impl Target {
    fn find(name: &str, paths: &HostPaths) -> Result<Target> {
        let keeper = keeper::find(name, paths).and_then(ProcessId::open);
        let supervisor = running(name, paths).ok().and_then(|state| state.supervisor.open());
        if keeper.is_none() && supervisor.is_none() {
            return Err(not_running(name, paths));
        }
        let process = keeper.as_ref().or(supervisor.as_ref()).and_then(|fd| fd.try_clone().ok());
        Ok(Target { process, keeper, supervisor })
    }

    fn wait_for_cleanup(&self, name: &str, paths: &HostPaths) -> Result<()> {
        let all = || [&self.keeper, &self.supervisor].into_iter().flatten();
        let gone = |time| all().all(|process| ended(process.as_fd(), time));
        if !gone(CLEANUP) {
            // It hangs, or was stopped by a signal.
            all().for_each(|process| drop(pidfd_send_signal(process.as_fd(), libc::SIGKILL)));
            if !gone(CLEANUP) {
                return Err(Error::Other(format!(
                    "container {name} was killed, but its nixrun has not ended after {} s; see `nixrun status {name}`",
                    2 * CLEANUP.as_secs()
                )));
            }
            reclaim::reclaim(Some(name), paths)?;
        }
        keeper::tidy(name, paths);
        Ok(())
    }
}

/// The state of a container that runs.
pub(crate) fn running(name: &str, paths: &HostPaths) -> Result<State> {
    instance::find(paths, name)
        .filter(|found| found.alive)
        .and_then(|found| found.state)
        .ok_or_else(|| not_running(name, paths))
}

fn signal(pidfd: BorrowedFd<'_>, number: i32, name: &str) -> Result<()> {
    match pidfd_send_signal(pidfd, number) {
        // It has just ended by itself.
        Err(error) if error.errno() == nix::errno::Errno::ESRCH => Ok(()),
        result => result.map_err(|error| {
            Error::Other(format!("cannot send signal {number} to container {name}: {error}"))
        }),
    }
}

fn ended(pidfd: BorrowedFd<'_>, timeout: Duration) -> bool {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], timeout).is_ok_and(|ready| ready > 0)
}
