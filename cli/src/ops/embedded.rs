//! Stopping a container of a program that embeds nixrun, from outside of it. Its supervisor is one thread of that program:
//! a signal to the process would be the program's, so PID 1 is asked itself, and the thread sees it end.

use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runtime::instance::{self, State};
use runtime::sys::process::pidfd_send_signal;
use runtime::{HostPaths, supervisor};

use super::error::{Error, Result};

/// How long the thread may take to clean up once the container is dead.
const CLEANUP: Duration = Duration::from_secs(15);
/// How often to look whether PID 1 listens to its stop signal, and whether everything is removed.
const LOOK: Duration = Duration::from_millis(20);

/// The state of a container of that name that a program has.
pub(super) fn find(name: &str, paths: &HostPaths) -> Option<State> {
    let found = instance::find(paths, name).filter(|found| found.alive);
    found.and_then(|found| found.state).filter(|state| state.embedded)
}

/// Shuts it down and waits until the program has cleaned up; whether it had to be killed, after `timeout`.
pub(super) fn stop(state: &State, timeout: Duration, paths: &HostPaths) -> Result<bool> {
    let deadline = Instant::now().checked_add(timeout);
    let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let Some(leader) = state.leader.open() else { return cleaned_up(state, paths).map(|()| false) };
    // A paused one could not do what it is asked.
    let _ = std::fs::write(state.cgroup.join("cgroup.freeze"), "0");
    // One that does not listen would lose the signal for good.
    while !supervisor::listens(state.leader.pid, state.stop_signal) {
        if left() == Some(Duration::ZERO) {
            return kill(state, paths).map(|()| true);
        }
        if ended(leader.as_fd(), Some(LOOK)) {
            return cleaned_up(state, paths).map(|()| false);
        }
    }
    // It may have ended just now.
    let _ = pidfd_send_signal(leader.as_fd(), state.stop_signal);
    if ended(leader.as_fd(), left()) {
        return cleaned_up(state, paths).map(|()| false);
    }
    kill(state, paths).map(|()| true)
}

/// Ends every process of it at once and waits until the program has cleaned up.
pub(super) fn kill(state: &State, paths: &HostPaths) -> Result<()> {
    let file = state.cgroup.join("cgroup.kill");
    std::fs::write(&file, "1").map_err(|error| {
        Error::Other(format!("cannot kill container {} by {}: {error}", state.name, file.display()))
    })?;
    cleaned_up(state, paths)
}

fn cleaned_up(state: &State, paths: &HostPaths) -> Result<()> {
    let deadline = Instant::now() + CLEANUP;
    // The program may start another one of that name at once.
    while find(&state.name, paths).is_some_and(|found| found.leader == state.leader) {
        if Instant::now() >= deadline {
            return Err(Error::Other(format!(
                "container {} has ended, but process {}, which has it, has not cleaned up after {} s",
                state.name,
                state.supervisor.pid,
                CLEANUP.as_secs()
            )));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Waits for the end of a process, without end when there is no `timeout`.
fn ended(pidfd: BorrowedFd<'_>, timeout: Option<Duration>) -> bool {
    let timeout =
        timeout.map_or(PollTimeout::NONE, |time| PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
    poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], timeout).is_ok_and(|ready| ready > 0)
}
