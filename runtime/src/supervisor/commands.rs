//! Commands of `exec` at the container's end. Nobody inside is their parent or has ever heard of them: an init that waits
//! for every process to end waits for a forgotten shell, too.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

use crate::cgroup;
use crate::sys::process::{pidfd_open, pidfd_send_signal};

/// How long they have to end once they are asked to.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a command may take that has itself begun the end, such as `exec NAME -- reboot`.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The end of the commands.
#[derive(Debug)]
pub(super) struct Commands {
    group: PathBuf,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The container goes on.
    Running,
    /// They are to be asked then.
    Ask(Instant),
    /// They are to be killed then.
    Kill(Instant),
    Over,
}

impl Commands {
    /// Those of the container with this control group.
    pub(super) fn of(payload: &Path) -> Commands {
        Commands { group: payload.join(cgroup::COMMANDS), state: State::Running }
    }

    /// The container is to end: they are asked at once.
    pub(super) fn end(&mut self) {
        if matches!(self.state, State::Running | State::Ask(_)) {
            self.state = State::Ask(Instant::now());
        }
    }

    /// PID 1 says that it ends.
    pub(super) fn end_soon(&mut self) {
        if self.state == State::Running {
            self.state = State::Ask(Instant::now() + LAST_WORDS);
        }
    }

    /// When [`Commands::advance`] has something to do.
    pub(super) fn timeout(&self) -> PollTimeout {
        match self.state {
            State::Ask(when) | State::Kill(when) => {
                let left = when.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
            State::Running | State::Over => PollTimeout::NONE,
        }
    }

    /// Does what is due.
    pub(super) fn advance(&mut self) {
        match self.state {
            State::Ask(when) if Instant::now() >= when => {
                // A shell on a terminal heeds the first, other programs the second, and one that is stopped none
                // without the last.
                let asked = signal(&self.group, &[libc::SIGHUP, libc::SIGTERM, libc::SIGCONT]);
                self.state = if asked { State::Kill(Instant::now() + PATIENCE) } else { State::Over };
            }
            State::Kill(when) if Instant::now() >= when => {
                // Gone with the container, if it cannot be written to.
                let _ = fs::write(self.group.join("cgroup.kill"), "1");
                self.state = State::Over;
            }
            _ => {}
        }
    }
}

/// Sends the signals to every process of a group; whether there was one.
fn signal(group: &Path, signals: &[i32]) -> bool {
    let pids = cgroup::processes(group);
    let opened: Vec<(libc::pid_t, OwnedFd)> =
        pids.into_iter().filter_map(|pid| Some((pid, pidfd_open(pid).ok()?))).collect();
    // A pid that has passed to another process meanwhile is not in the group any more.
    let still = cgroup::processes(group);
    let members = opened.iter().filter(|(pid, _)| still.contains(pid));
    let mut found = false;
    for (_, pidfd) in members {
        found = true;
        for number in signals {
            let _ = pidfd_send_signal(pidfd.as_fd(), *number);
        }
    }
    found
}
