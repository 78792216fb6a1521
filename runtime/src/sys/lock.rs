//! Open-file-description locks: the kind systemd-nspawn takes on a container's root.

use std::fs::File;
use std::os::fd::AsRawFd;

use super::Result;
use super::error::check;

/// Takes an exclusive lock on the whole file without waiting. It belongs to the open file description: it is
/// released when the last duplicate of `file` is closed, which the kernel does when a process is killed.
///
/// # Errors
/// EAGAIN when somebody else holds it.
pub fn try_lock(file: &File) -> Result<()> {
    set(file, libc::F_WRLCK, libc::F_OFD_SETLK)
}

/// Takes a lock that others may hold, too, without waiting.
///
/// # Errors
/// EAGAIN when somebody holds it exclusively.
pub fn try_lock_shared(file: &File) -> Result<()> {
    set(file, libc::F_RDLCK, libc::F_OFD_SETLK)
}

/// Takes an exclusive lock, waiting for whoever holds it.
///
/// # Errors
/// The kernel's.
pub fn lock(file: &File) -> Result<()> {
    loop {
        match set(file, libc::F_WRLCK, libc::F_OFD_SETLKW) {
            Err(error) if error.errno() == nix::errno::Errno::EINTR => {}
            result => return result,
        }
    }
}

/// Whether somebody holds the lock.
///
/// # Errors
/// The kernel's.
pub fn is_locked(file: &File) -> Result<bool> {
    let mut lock = whole_file(libc::F_RDLCK);
    // SAFETY: the kernel reads and writes one live `struct flock`.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    check(result.into(), "fcntl", || format!("{}, F_OFD_GETLK", file.as_raw_fd()))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn set(file: &File, kind: i32, command: i32) -> Result<()> {
    let lock = whole_file(kind);
    // SAFETY: the kernel reads one live `struct flock`.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) };
    check(result.into(), "fcntl", || format!("{}, F_OFD_SETLK", file.as_raw_fd()))?;
    Ok(())
}

fn whole_file(kind: i32) -> libc::flock {
    // SAFETY: `flock` is plain data for which all zeroes is a valid value; OFD locks demand l_pid = 0.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}
