//! The stub that is PID 1 of a container whose program is PID 2: it reaps orphans, turns the signals of a shutdown into
//! one, and ends with the program's status. It is what is left of the child after a fork, so it obeys the same rules.

use std::os::fd::RawFd;

use super::run::{Done, TIOCSCTTY, call, value};
use super::script::{Script, Stub};
use crate::sys::inroot::Failure;

/// The size of the kernel's sigset_t, which the calls want to hear.
const SIGSET: u64 = 8;
/// SIGRTMIN as systemd and glibc count.
const RTMIN: i32 = 34;
/// How long the program may take to end: systemd's default.
const PATIENCE: i64 = 90;
/// Exit status for a program that did not exit: systemd's EXIT_EXCEPTION.
const EXCEPTION: i32 = 255;

/// What the container was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    Run,
    PowerOff,
    Reboot,
}

/// Forks: returns in the program's process, and never in the stub, which is PID 1 from then on.
pub(super) fn fork(script: &Script, stub: &Stub) -> Done {
    // Before the fork, so that the program's end cannot be missed.
    mask(u64::MAX)?;
    let pid = value(libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0])?;
    if pid != 0 {
        serve(script, stub, pid);
    }
    mask(0)?;
    // A session of its own, with the terminal: the stub has neither use nor claim.
    call(libc::SYS_setsid, [0; 5])?;
    if stub.terminal { call(libc::SYS_ioctl, [0, TIOCSCTTY, 0, 0, 0]) } else { Ok(()) }
}

fn mask(signals: u64) -> Done {
    let arguments = [libc::SIG_SETMASK as u64, (&raw const signals) as u64, 0, SIGSET, 0];
    call(libc::SYS_rt_sigprocmask, arguments)
}

fn serve(script: &Script, stub: &Stub, program: RawFd) -> ! {
    // The channel too: the parent waits for its end to know that the program was executed.
    let _ = call(libc::SYS_close_range, [3, u64::from(u32::MAX), 0, 0, 0]);
    announce();
    disguise(script, stub);
    let mut goal = Goal::Run;
    let mut deadline = i64::MAX;
    loop {
        let now = seconds();
        match reap() {
            Some((pid, _)) if pid != program && now < deadline => continue,
            None if now < deadline => {}
            ended => finish(goal, ended.filter(|(pid, _)| *pid == program).and_then(|(_, status)| status)),
        }
        let wanted = goal_of(wait(deadline, now));
        if goal == Goal::Run && wanted != Goal::Run {
            goal = wanted;
            // The hang-up is for shells, which ignore the other one. In this order, for programs that reload on it.
            for signal in [libc::SIGTERM, libc::SIGCONT, libc::SIGHUP] {
                let _ = call(libc::SYS_kill, [program as u64, signal as u64, 0, 0, 0]);
            }
            deadline = seconds() + PATIENCE;
        }
    }
}

/// Reaps a child: its pid, and its status if it exited by itself.
fn reap() -> Option<(RawFd, Option<i32>)> {
    // SAFETY: siginfo_t is plain data for which all zeroes is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = (libc::WEXITED | libc::WNOHANG) as u64;
    let arguments = [u64::from(libc::P_ALL), 0, (&raw mut info) as u64, options, 0];
    if call(libc::SYS_waitid, arguments).is_err() {
        return None;
    }
    // SAFETY: waitid succeeded, so that the fields of SIGCHLD are set, or all of it is zero as before.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    (pid != 0).then_some((pid, (info.si_code == libc::CLD_EXITED).then_some(status)))
}

/// Offsets from SIGRTMIN of the signals that ask for an end: halt, power off, reboot and kexec, each twice.
const ENDS: [i32; 8] = [3, 4, 5, 6, 13, 14, 15, 16];

/// Gives the signals that mean something a handler, which never runs because they are blocked and waited for: by it
/// /proc tells our supervisor that they are not lost. (While they are waited for, they do not count as blocked.)
fn announce() {
    extern "C" fn never(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = never;
    // The kernel's `struct sigaction`: the handler first, no flags, nothing blocked.
    let action = [handler as usize as u64, 0, 0, 0];
    for signal in ENDS.into_iter().map(|offset| RTMIN + offset).chain([libc::SIGINT]) {
        let arguments = [signal as u64, action.as_ptr() as u64, 0, SIGSET, 0];
        let _ = call(libc::SYS_rt_sigaction, arguments);
    }
}

/// Waits for one of the signals that mean something: 0 when there was none.
fn wait(deadline: i64, now: i64) -> i32 {
    let bit = |signal: i32| 1u64 << (signal - 1);
    let mut signals = bit(libc::SIGCHLD) | bit(libc::SIGINT);
    for offset in ENDS {
        signals |= bit(RTMIN + offset);
    }
    let left = libc::timespec { tv_sec: (deadline - now).min(PATIENCE) as _, tv_nsec: 0 };
    let timeout = if deadline == i64::MAX { 0 } else { (&raw const left) as u64 };
    value(libc::SYS_rt_sigtimedwait, [(&raw const signals) as u64, 0, timeout, SIGSET, 0]).unwrap_or(0)
}

fn goal_of(signal: i32) -> Goal {
    match signal - RTMIN {
        3 | 4 | 13 | 14 => Goal::PowerOff,
        5 | 6 | 15 | 16 => Goal::Reboot,
        _ if signal == libc::SIGINT => Goal::Reboot,
        _ => Goal::Run,
    }
}

/// The container's end: reboot(2) tells the supervisor what was asked for.
fn finish(goal: Goal, status: Option<i32>) -> ! {
    let reboot = |command: libc::c_int| {
        let magic = (libc::LINUX_REBOOT_MAGIC1 as u32, libc::LINUX_REBOOT_MAGIC2 as u32);
        let arguments = [u64::from(magic.0), u64::from(magic.1), u64::from(command as u32), 0, 0];
        let _ = call(libc::SYS_reboot, arguments);
    };
    match goal {
        Goal::Run => {}
        Goal::PowerOff => reboot(libc::LINUX_REBOOT_CMD_POWER_OFF),
        Goal::Reboot => {
            reboot(libc::LINUX_REBOOT_CMD_RESTART);
            // Without CAP_SYS_BOOT. An ordinary end would not say that the container is to come back.
            exit(libc::EXIT_FAILURE);
        }
    }
    exit(status.unwrap_or(EXCEPTION))
}

/// Shows the container neither nixrun's command line nor its environment, which are in this copy of its memory, too.
fn disguise(script: &Script, stub: &Stub) {
    let _ = call(libc::SYS_prctl, [libc::PR_SET_NAME as u64, c"nixrun-stub".as_ptr() as u64, 0, 0, 0]);
    let _ = call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 0, 0, 0, 0]);
    let mut pipe: [RawFd; 2] = [-1; 2];
    if call(libc::SYS_pipe2, [pipe.as_mut_ptr() as u64, 0, 0, 0, 0]).is_err() {
        return;
    }
    let _ = overwrite(pipe, stub.arguments, b"nixrun-stub");
    let _ = overwrite(pipe, stub.environment, script.bytes(stub.shown));
    let _ = call(libc::SYS_close_range, [3, u64::from(u32::MAX), 0, 0, 0]);
}

/// Puts `text`, or as much of it as fits, and zeroes after it, into the memory between two addresses. The kernel writes
/// it: memory that is not what the addresses promise is an error then, and no crash.
fn overwrite(pipe: [RawFd; 2], (begin, end): (u64, u64), text: &[u8]) -> Result<(), Failure> {
    const ZEROES: [u8; 1024] = [0; 1024];
    let mut at = begin;
    let mut text = text.get(..(end.saturating_sub(begin + 1) as usize)).unwrap_or(text);
    while at < end {
        let chunk = if text.is_empty() { &ZEROES[..] } else { text };
        let length = (end - at).min(chunk.len() as u64).min(ZEROES.len() as u64);
        let written = value(libc::SYS_write, [pipe[1] as u64, chunk.as_ptr() as u64, length, 0, 0])?;
        call(libc::SYS_read, [pipe[0] as u64, at, written as u64, 0, 0])?;
        at += written as u64;
        text = text.get(written as usize..).unwrap_or_default();
    }
    Ok(())
}

fn seconds() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let _ = call(libc::SYS_clock_gettime, [libc::CLOCK_MONOTONIC as u64, (&raw mut now) as u64, 0, 0, 0]);
    now.tv_sec
}

fn exit(status: i32) -> ! {
    // SAFETY: _exit runs no handlers and no destructors, which belong to the parent.
    unsafe { libc::_exit(status) }
}
