//! Who waits for a command of `exec`: a copy of nixrun outside of the container, in a session of its own. A command that
//! has ended and that nobody reaps keeps its pid namespace, and so PID 1's end, from being over; nixrun itself may be
//! suspended at that time. It is what is left of the child after a clone, so it obeys the same rules.

use std::os::fd::RawFd;

use super::report::Report;
use super::run::{Done, call, close, exit, send, value};
use crate::sys::clone::clone_child;

/// The size of the kernel's sigset_t, which the calls want to hear.
const SIGSET: u64 = 8;

/// Clones the command into a group, and into the pid namespace that was joined: returns there, and never in the original,
/// which says by `status` how the command ended. When the other end of that, `parents`, is closed it ends the command.
pub(super) fn attend(channel: RawFd, group: RawFd, [status, parents]: [RawFd; 2]) -> Done {
    close(parents);
    // Nothing but SIGKILL and SIGSTOP reaches it; the command has its own from before it is executed on.
    let all = u64::MAX;
    call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, (&raw const all) as u64, 0, SIGSET, 0])?;
    call(libc::SYS_setsid, [0; 5])?;
    let (pid, pidfd) = clone_child(group)?;
    if pid == 0 {
        close(status);
        return Ok(());
    }
    send(channel, Report::Cloned { pid });
    keep([status, pidfd]);
    wait(status, pidfd);
    // Told before it is reaped: who hears nothing yet knows that the pid is the command's still.
    send(status, reap(pidfd, libc::WNOWAIT));
    reap(pidfd, 0);
    exit(0)
}

/// Closes every other descriptor: the channel, whose end says that the command was executed, and nixrun's own.
fn keep([a, b]: [RawFd; 2]) {
    let (low, high) = (a.min(b) as u64, a.max(b) as u64);
    for (from, to) in
        [(0, low.wrapping_sub(1)), (low + 1, high.wrapping_sub(1)), (high + 1, u64::from(u32::MAX))]
    {
        if from <= to && to <= u64::from(u32::MAX) {
            let _ = call(libc::SYS_close_range, [from, to, 0, 0, 0]);
        }
    }
}

/// Until the command has ended; nixrun's end is the command's.
fn wait(status: RawFd, pidfd: RawFd) {
    let asked = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    loop {
        let mut fds = [asked(pidfd), asked(status)];
        // ppoll without a timeout: poll is not there on every architecture.
        let arguments = [(&raw mut fds) as u64, 2, 0, 0, SIGSET];
        match value(libc::SYS_ppoll, arguments) {
            Ok(_) if fds[0].revents != 0 => return,
            Ok(_) if fds[1].revents != 0 => {
                let _ = call(libc::SYS_pidfd_send_signal, [pidfd as u64, libc::SIGKILL as u64, 0, 0, 0]);
                return;
            }
            Ok(_) => {}
            Err(failure) if failure.errno == libc::EINTR => {}
            Err(_) => return,
        }
    }
}

fn reap(pidfd: RawFd, more: i32) -> Report {
    // SAFETY: siginfo_t is plain data for which all zeroes is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = (libc::WEXITED | libc::__WALL | more) as u32;
    let arguments = [u64::from(libc::P_PIDFD), pidfd as u64, (&raw mut info) as u64, u64::from(options), 0];
    while call(libc::SYS_waitid, arguments).is_err_and(|failure| failure.errno == libc::EINTR) {}
    // SAFETY: waitid succeeded, so that the fields of SIGCHLD are set, or all of it is zero as before.
    let status = unsafe { info.si_status() };
    Report::Ended { killed: info.si_code != libc::CLD_EXITED, status }
}
