//! pidfds, waiting, limits and capabilities of processes.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::Result;
use super::error::check;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
}

/// Sends `signal` to the process behind a pidfd; signal 0 only asks whether it is there.
///
/// # Errors
/// ESRCH when it is gone.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo lets the kernel fill it in as kill(2) does.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(result, "pidfd_send_signal", || format!("{}, {signal}", pidfd.as_raw_fd()))?;
    Ok(())
}

/// A pidfd of the process `pid`. Whether it is still the process that was meant, the caller checks afterwards.
///
/// # Errors
/// ESRCH when there is none.
pub fn pidfd_open(pid: libc::pid_t) -> Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = check(fd, "pidfd_open", || pid.to_string())?;
    // SAFETY: a descriptor the kernel just gave us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Waits until a child ends, and reaps it. `__WALL` because children made with exit signal 0 count as clones. How one ended
/// that another thread's wait for any child has reaped, or a SIGCHLD that is ignored, the kernel knows from Linux 6.15 on.
///
/// # Errors
/// ECHILD when it is not our child, or was reaped already and the kernel is older.
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<Ended> {
    match reap(pidfd) {
        Err(error) if error.errno() == nix::errno::Errno::ECHILD => ended(pidfd).ok_or(error),
        result => result,
    }
}

/// How a process ended that somebody has reaped (linux/pidfd.h, `PIDFD_INFO_EXIT`).
fn ended(pidfd: BorrowedFd<'_>) -> Option<Ended> {
    // SAFETY: plain data for which all zeroes is a valid value.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = libc::PIDFD_INFO_EXIT.into();
    // SAFETY: the kernel reads and writes one pidfd_info, whose size is part of the request.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    if result < 0 || info.mask & u64::from(libc::PIDFD_INFO_EXIT) == 0 {
        return None;
    }
    let status = info.exit_code;
    Some(if libc::WIFSIGNALED(status) {
        Ended::Killed(libc::WTERMSIG(status))
    } else {
        Ended::Exited(libc::WEXITSTATUS(status))
    })
}

fn reap(pidfd: BorrowedFd<'_>) -> Result<Ended> {
    // SAFETY: siginfo_t is plain data for which all zeroes is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: the kernel writes one siginfo_t into `info`.
        let result = unsafe {
            libc::waitid(
                libc::P_PIDFD,
                pidfd.as_raw_fd() as libc::id_t,
                &raw mut info,
                libc::WEXITED | libc::__WALL,
            )
        };
        if result < 0 && nix::errno::Errno::last_raw() == libc::EINTR {
            continue;
        }
        check(result.into(), "waitid", || format!("P_PIDFD, {}", pidfd.as_raw_fd()))?;
        break;
    }
    // SAFETY: waitid succeeded with WEXITED, so the SIGCHLD fields of the union are set.
    let status = unsafe { info.si_status() };
    Ok(if info.si_code == libc::CLD_EXITED { Ended::Exited(status) } else { Ended::Killed(status) })
}

/// Soft and hard limit `resource` (`RLIMIT_*`) of a process.
///
/// # Errors
/// EPERM when it runs under another user.
pub fn limit_of(pid: libc::pid_t, resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit64 into `limit`.
    let result = unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, ptr::null::<libc::rlimit64>(), &raw mut limit)
    };
    check(result, "prlimit64", || format!("{pid}, {resource}"))?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Which kind of namespace (`CLONE_NEW*`) an open file is; `None` when it is none.
#[must_use]
pub fn namespace_kind(file: BorrowedFd<'_>) -> Option<i32> {
    /// `NS_GET_NSTYPE` (linux/nsfs.h), whose type differs between libcs.
    const NS_GET_NSTYPE: u32 = 0xb703;
    // SAFETY: the request takes no argument. Another kind of file than namespaces does not know it: the number is
    // theirs (ioctl-number.rst).
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) };
    (kind >= 0).then_some(kind)
}

/// Joins the namespaces `namespaces` (`CLONE_NEW*`) of the process or namespace file behind `file`, for the
/// calling thread. With `CLONE_NEWPID` only children created afterwards are inside.
///
/// # Errors
/// EPERM without capabilities over the namespace's owner.
pub fn setns(file: BorrowedFd<'_>, namespaces: i32) -> Result<()> {
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::setns(file.as_raw_fd(), namespaces) };
    check(result.into(), "setns", || format!("{}, {namespaces:#x}", file.as_raw_fd()))?;
    Ok(())
}

/// Has the kernel add the sender's credentials to every message on a Unix socket.
///
/// # Errors
/// The kernel's.
pub fn pass_credentials(socket: BorrowedFd<'_>) -> Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PASSCRED,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(result.into(), "setsockopt", || "SO_PASSCRED".to_owned())?;
    Ok(())
}

/// Where in this process's memory its command line and its environment are: begin and end of each.
///
/// # Errors
/// When /proc is not mounted.
pub fn own_strings() -> std::io::Result<((u64, u64), (u64, u64))> {
    let stat = super::fd::read_kernel_file(std::path::Path::new("/proc/self/stat"))?;
    // The second field is the name, in parentheses, and may hold anything; the four are fields 48 to 51.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let addresses: Vec<u64> = fields.skip(45).take(4).filter_map(|field| field.parse().ok()).collect();
    match addresses.as_slice() {
        [a, b, c, d] => Ok(((*a, *b), (*c, *d))),
        _ => Err(std::io::ErrorKind::InvalidData.into()),
    }
}
