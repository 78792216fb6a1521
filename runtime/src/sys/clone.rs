//! clone3(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::error::check;
use super::inroot::Failure;
use super::{Result, SyscallError};

/// `CLONE_CLEAR_SIGHAND` (linux/sched.h, 5.5): handlers of ours would point into the old program.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// `CLONE_INTO_CGROUP` (linux/sched.h, 5.7).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `CLONE_PARENT` (linux/sched.h), as wide as the flags are here.
const CLONE_PARENT: u64 = libc::CLONE_PARENT as u64;

/// The kernel's `struct clone_args`, version 2 (linux/sched.h, 5.7): the first with `cgroup`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A child that this process created: its pidfd, and its pid, which is valid until it is reaped.
#[derive(Debug)]
pub struct Child {
    /// Process file descriptor, close-on-exec.
    pub pidfd: OwnedFd,
    /// Process id in our pid namespace.
    pub pid: libc::pid_t,
}

/// Copies the calling process into new namespaces (`namespaces`: `CLONE_NEW*` bits) and, when given, straight
/// into a cgroup v2 directory. The child starts in `child`, which must not return.
///
/// The exit signal is 0: an embedding program that waits for any child of its own does not see this one, until it
/// executes a program (execve(2) resets the signal to SIGCHLD). Reap it with [`super::process::wait`], which copes.
///
/// # Errors
/// The kernel's, with the flags: EPERM without the right capability, EBUSY for a cgroup with controllers enabled.
pub fn clone_into(
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> std::convert::Infallible,
) -> Result<Child> {
    let mut pidfd: RawFd = -1;
    let mut flags = namespaces | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    let mut args = CloneArgs { pidfd: (&raw mut pidfd) as u64, ..CloneArgs::default() };
    if let Some(dir) = cgroup {
        flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    args.flags = flags;
    // SAFETY: without CLONE_VM the child runs on a copy of this stack, so no memory is shared; the kernel reads
    // `args` and writes `pidfd` before it returns in the parent. In the child only this thread exists, so `child`
    // must take no lock and allocate nothing: it runs `child::run`, which makes raw system calls only.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    if pid == 0 {
        super::alloc::forbid();
        child();
    }
    let pid = check(pid, "clone3", || format!("flags={flags:#x}"))?;
    if pidfd < 0 {
        return Err(SyscallError::new("clone3", "no pidfd returned", nix::errno::Errno::EBADF));
    }
    // SAFETY: the kernel just opened this descriptor for us and nobody else knows its number.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pidfd, pid: pid as libc::pid_t })
}

/// Copies a process that [`clone_into`] made, which becomes a child of that one's parent: returns 0 in the copy and its
/// pid in the original. For the code after clone only, as it makes a copy of whatever runs.
///
/// # Errors
/// The kernel's.
pub(crate) fn clone_sibling(namespaces: u64) -> std::result::Result<libc::pid_t, Failure> {
    let args = CloneArgs { flags: namespaces | CLONE_PARENT, ..CloneArgs::default() };
    // SAFETY: without CLONE_VM nothing is shared. The caller is the only thread of a process that runs `child::run`,
    // which both copies go on with.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    if pid < 0 { Err(Failure::last(libc::SYS_clone3)) } else { Ok(pid as libc::pid_t) }
}

/// Copies a process that [`clone_into`] made into a cgroup v2 directory and the pid namespace that it has joined: returns 0
/// in the copy, and its pid and pidfd in the original. For the code after clone only, as it makes a copy of whatever runs.
///
/// # Errors
/// The kernel's.
pub(crate) fn clone_child(cgroup: RawFd) -> std::result::Result<(libc::pid_t, RawFd), Failure> {
    let mut pidfd: RawFd = -1;
    let args = CloneArgs {
        flags: libc::CLONE_PIDFD as u64 | CLONE_INTO_CGROUP,
        pidfd: (&raw mut pidfd) as u64,
        cgroup: cgroup as u64,
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM nothing is shared; the kernel writes `pidfd` before it returns in the original. The caller
    // is the only thread of a process that runs `child::run`, which the copy goes on with.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    if pid < 0 { Err(Failure::last(libc::SYS_clone3)) } else { Ok((pid as libc::pid_t, pidfd)) }
}
