//! The poll loop of a command inside a container: its end, its terminal, the caller's signals.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFlags, PollTimeout, poll};

use super::console::Forward;
use super::{Attached, add, next_signal};
use crate::error::{Doing, Error};
use crate::launch::Launched;
use crate::sys::process::{Ended, pidfd_send_signal};

/// A command's terminal, or none.
pub(crate) struct Terminal<'a> {
    forward: Forward<'a>,
}

impl<'a> Terminal<'a> {
    pub(crate) fn new(master: Option<&'a OwnedFd>, attached: &Attached<'a>) -> Result<Terminal<'a>, Error> {
        Ok(Terminal { forward: Forward::new(master, true, attached)? })
    }

    /// Passes bytes on until the command ends. Signals that would end us go to the command instead.
    pub(crate) fn run(mut self, launched: &mut Launched, attached: &Attached<'_>) -> Result<Ended, Error> {
        loop {
            let mut fds = Vec::with_capacity(6);
            let ended = add(&mut fds, Some(launched.pidfd()), PollFlags::POLLIN);
            add(&mut fds, attached.signals.map(AsFd::as_fd), PollFlags::POLLIN);
            for (fd, flags) in self.forward.interest().into_iter().flatten() {
                add(&mut fds, Some(fd), flags);
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).doing(|| "wait for the command".to_owned()),
            }
            let over = ended.and_then(|i| fds[i].revents()).is_some_and(|events| !events.is_empty());
            self.forward.transfer();
            while let Some(signal) = attached.signals.and_then(next_signal) {
                match signal {
                    libc::SIGWINCH => self.forward.resize(),
                    signal => {
                        let _ = pidfd_send_signal(launched.pidfd(), signal);
                    }
                }
            }
            if self.forward.escaped() {
                let _ = pidfd_send_signal(launched.pidfd(), libc::SIGKILL);
            }
            if over {
                break;
            }
        }
        let ended = launched.reap()?;
        self.forward.drain();
        Ok(ended)
    }
}
