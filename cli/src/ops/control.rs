//! Stopping and killing a running container from outside its supervisor.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runtime::instance::{self, State};
use runtime::sys::process::pidfd_send_signal;
use runtime::{HostPaths, instance::ProcessId};

use super::error::{Error, Result};
use super::show::not_running;

/// How long a supervisor may take to clean up once its container is dead.
const CLEANUP: Duration = Duration::from_secs(15);

/// Shuts a container down and waits until its supervisor has cleaned up. After `timeout` it is killed; whether
/// that was needed is returned.
///
/// # Errors
/// When the container does not run, or does not end.
pub fn stop(name: &str, timeout: Duration, paths: &HostPaths) -> Result<bool> {
    let state = running(name, paths)?;
    let supervisor = open(state.supervisor, name, paths)?;
    signal(supervisor.as_fd(), libc::SIGTERM, name)?;
    if ended(supervisor.as_fd(), timeout) {
        return Ok(false);
    }
    // A second request: the supervisor kills the container.
    signal(supervisor.as_fd(), libc::SIGTERM, name)?;
    wait_for_cleanup(supervisor.as_fd(), name)?;
    Ok(true)
}

/// Sends a signal to PID 1, or ends every process of the container at once and waits for the clean-up.
///
/// # Errors
/// When the container does not run, or does not end.
pub fn kill(name: &str, signal_number: Option<i32>, paths: &HostPaths) -> Result<()> {
    let state = running(name, paths)?;
    if let Some(number) = signal_number {
        return signal(open(state.leader, name, paths)?.as_fd(), number, name);
    }
    let supervisor = open(state.supervisor, name, paths)?;
    let file = state.cgroup.join("cgroup.kill");
    std::fs::write(&file, "1").map_err(|error| {
        Error::Other(format!("cannot kill container {name} by {}: {error}", file.display()))
    })?;
    wait_for_cleanup(supervisor.as_fd(), name)
}

/// The state of a container that runs.
pub(crate) fn running(name: &str, paths: &HostPaths) -> Result<State> {
    instance::find(paths, name)
        .filter(|found| found.alive)
        .and_then(|found| found.state)
        .ok_or_else(|| not_running(name, paths))
}

fn open(process: ProcessId, name: &str, paths: &HostPaths) -> Result<std::os::fd::OwnedFd> {
    process.open().ok_or_else(|| not_running(name, paths))
}

fn signal(pidfd: BorrowedFd<'_>, number: i32, name: &str) -> Result<()> {
    pidfd_send_signal(pidfd, number)
        .map_err(|error| Error::Other(format!("cannot send signal {number} to container {name}: {error}")))
}

fn wait_for_cleanup(supervisor: BorrowedFd<'_>, name: &str) -> Result<()> {
    if ended(supervisor, CLEANUP) {
        return Ok(());
    }
    Err(Error::Other(format!(
        "container {name} was killed, but its nixrun has not ended after {} s; see `nixrun status {name}`",
        CLEANUP.as_secs()
    )))
}

fn ended(pidfd: BorrowedFd<'_>, timeout: Duration) -> bool {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], timeout).is_ok_and(|ready| ready > 0)
}
