//! Asking a container to stop: once politely, twice for real, and for real after a while.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

use super::Event;
use crate::error::{Doing, Error};
use crate::launch::Launched;
use crate::sys::process::pidfd_send_signal;

/// How often to look whether PID 1 listens to the stop signal by now.
const LISTENING_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody asked.
    Running,
    /// Asked for, not delivered: PID 1 would ignore the signal. A pid namespace's init gets no signal that it
    /// neither handles nor waits for, so one sent before systemd is up would be lost for good.
    Wanted { announced: bool },
    /// The signal is delivered.
    Sent,
    /// To be killed.
    Kill,
    /// Killed; the kernel does the rest.
    Killed,
}

/// The course of a stop.
#[derive(Debug)]
pub(super) struct Stop {
    signal: i32,
    grace: Duration,
    /// Whether the program is a pid namespace's init; another one gets every signal.
    init: bool,
    state: State,
    deadline: Option<Instant>,
}

impl Stop {
    pub(super) fn new(signal: i32, grace: Duration, init: bool) -> Stop {
        Stop { signal, grace, init, state: State::Running, deadline: None }
    }

    /// Somebody asks: the first time to shut down, the second time to be killed.
    pub(super) fn request(&mut self) {
        match self.state {
            // Nobody listens to SIGKILL, and nobody has to.
            State::Running if self.signal == libc::SIGKILL => self.state = State::Kill,
            State::Running => {
                self.state = State::Wanted { announced: false };
                self.deadline = Instant::now().checked_add(self.grace);
            }
            State::Wanted { .. } | State::Sent => self.state = State::Kill,
            State::Kill | State::Killed => {}
        }
    }

    /// Whether somebody has asked.
    pub(super) fn is_begun(&self) -> bool {
        self.state != State::Running
    }

    /// Somebody wants it killed at once.
    pub(super) fn kill(&mut self) {
        if self.state != State::Killed {
            self.state = State::Kill;
        }
    }

    /// When [`Stop::advance`] has something to do without any event.
    pub(super) fn timeout(&self) -> PollTimeout {
        let wait = match self.state {
            State::Running | State::Kill | State::Killed => return PollTimeout::NONE,
            State::Wanted { .. } => LISTENING_INTERVAL,
            State::Sent => match self.deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => return PollTimeout::NONE,
            },
        };
        PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    }

    /// Does what is due.
    pub(super) fn advance(
        &mut self,
        launched: &Launched,
        on_event: &mut impl FnMut(Event),
    ) -> Result<(), Error> {
        if matches!(self.state, State::Wanted { .. } | State::Sent)
            && self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
        {
            self.state = State::Kill;
        }
        match self.state {
            State::Wanted { .. } if !self.init || listens(launched.pid(), self.signal) => {
                send(launched, self.signal)?;
                self.state = State::Sent;
                on_event(Event::Stopping(self.signal));
            }
            State::Wanted { announced: false } => {
                self.state = State::Wanted { announced: true };
                on_event(Event::NotListening(self.signal));
            }
            State::Kill => {
                send(launched, libc::SIGKILL)?;
                self.state = State::Killed;
                on_event(Event::Killing);
            }
            _ => {}
        }
        Ok(())
    }
}

fn send(launched: &Launched, signal: i32) -> Result<(), Error> {
    match pidfd_send_signal(launched.pidfd().as_fd(), signal) {
        // It ended by itself; the loop is about to see that.
        Err(error) if error.errno() == nix::errno::Errno::ESRCH => Ok(()),
        result => result.doing(|| format!("send signal {signal} to the container's PID 1")),
    }
}

/// Whether the process handles the signal or, like systemd with its signalfd, blocks it to read it.
#[must_use]
pub fn listens(pid: libc::pid_t, signal: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    ["SigCgt:", "SigBlk:"].iter().any(|field| has_signal(&status, field, signal))
}

fn has_signal(status: &str, field: &str, signal: i32) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_signal_masks_of_proc_status() {
        let status = "Name:\tsystemd\nSigBlk:\t7be3c0fe28014a03\nSigCgt:\t0000000000000000\n";
        assert!(has_signal(status, "SigBlk:", 37), "SIGRTMIN+3 is blocked by systemd");
        assert!(!has_signal(status, "SigCgt:", 37));
        assert!(!has_signal(status, "SigBlk:", libc::SIGKILL));
        assert!(!has_signal("", "SigBlk:", 37));
    }

    #[test]
    fn a_second_request_kills_and_further_ones_change_nothing() {
        let mut stop = Stop::new(37, Duration::from_secs(90), true);
        assert_eq!(stop.timeout(), PollTimeout::NONE);
        stop.request();
        assert_eq!(stop.state, State::Wanted { announced: false });
        stop.request();
        assert_eq!(stop.state, State::Kill);
        stop.request();
        assert_eq!(stop.state, State::Kill);
    }
}
