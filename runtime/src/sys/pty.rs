//! Pseudo terminals of a devpts instance that is not mounted anywhere yet.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::statfs::fstatfs;

use super::error::check;
use super::fd::openat2;
use super::inroot::{RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS};
use super::{Result, SyscallError};

/// `openat2` resolve flag: no mount point on the way.
const RESOLVE_NO_XDEV: u64 = 0x01;
/// `DEVPTS_SUPER_MAGIC` (linux/magic.h).
const DEVPTS: u64 = 0x1cd1;

/// Opens a new pty in the devpts instance whose root is `devpts`: its master, unlocked, and its number.
///
/// # Errors
/// The kernel's; ENOSPC when the instance has as many as it may. ENODEV when the directory is no devpts: what a
/// container put there is not opened, because it may be a link to a device of the host, and opening one can be
/// enough (a watchdog starts).
pub fn open(devpts: BorrowedFd<'_>) -> Result<(OwnedFd, u32)> {
    let failed = |errno| SyscallError::new("fstatfs", "not a devpts", errno);
    let kind = fstatfs(devpts).map_err(failed)?.filesystem_type().0;
    // The number's type differs between libcs.
    #[allow(clippy::unnecessary_cast)]
    if kind as u64 != DEVPTS {
        return Err(failed(Errno::ENODEV));
    }
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK;
    let resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
    let master = openat2(devpts, c"ptmx", flags, 0, resolve)?;
    let mut number: libc::c_uint = 0;
    // SAFETY: the kernel reads one int.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const UNLOCKED) };
    check(result.into(), "ioctl", || "TIOCSPTLCK".to_owned())?;
    // SAFETY: the kernel writes one unsigned int.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN as _, &raw mut number) };
    check(result.into(), "ioctl", || "TIOCGPTN".to_owned())?;
    Ok((master, number))
}

/// The terminal behind a master, without a lookup that anybody could lead astray (ioctl_tty(2), TIOCGPTPEER).
///
/// # Errors
/// The kernel's.
pub fn peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags, no pointer.
    let fd = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags) };
    let fd = check(fd.into(), "ioctl", || "TIOCGPTPEER".to_owned())?;
    // SAFETY: a descriptor the kernel just gave us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

static UNLOCKED: libc::c_int = 0;

/// Gives the terminal `to` the window size of the terminal `from`: false when that is no terminal.
pub fn copy_window_size(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    // SAFETY: winsize is plain data for which all zeroes is a valid value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one winsize.
    let terminal = unsafe { libc::ioctl(from.as_raw_fd(), libc::TIOCGWINSZ as _, &raw mut size) } == 0;
    if terminal {
        set_size(to, &size);
    }
    terminal
}

/// Gives a terminal a window size.
pub fn set_window_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) {
    set_size(terminal, &libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 });
}

fn set_size(terminal: BorrowedFd<'_>, size: &libc::winsize) {
    // SAFETY: the kernel reads one winsize.
    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ as _, std::ptr::from_ref(size)) };
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn only_a_devpts_has_ptys() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("ptmx")).unwrap();
        let error = open(std::fs::File::open(dir.path()).unwrap().as_fd()).unwrap_err();
        assert_eq!(error.errno(), Errno::ENODEV, "/dev/null was opened: {error}");
    }
}
