//! Attributes of files beyond their mode, as chattr(1) sets them.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::Result;
use super::error::check;

// linux/fs.h; the kernel reads and writes an int, whatever size the numbers encode.
const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
const FS_IMMUTABLE_FL: libc::c_int = 0x10;
const FS_APPEND_FL: libc::c_int = 0x20;

/// Makes a file or directory one that can be changed and removed: neither immutable nor append-only. NixOS makes
/// /var/empty immutable. Returns whether it was either; where the file system has no such attributes it was not.
///
/// # Errors
/// EPERM without CAP_LINUX_IMMUTABLE.
pub fn make_mutable(file: BorrowedFd<'_>) -> Result<bool> {
    let mut flags: libc::c_int = 0;
    // SAFETY: the kernel writes one int, which is alive.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETFLAGS as _, &raw mut flags) };
    match check(result.into(), "ioctl", || format!("{}, FS_IOC_GETFLAGS", file.as_raw_fd())) {
        Ok(_) => {}
        Err(error) if matches!(error.errno(), Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    let mutable = flags & !(FS_IMMUTABLE_FL | FS_APPEND_FL);
    if mutable == flags {
        return Ok(false);
    }
    // SAFETY: the kernel reads one int, which is alive.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_SETFLAGS as _, &raw const mutable) };
    check(result.into(), "ioctl", || format!("{}, FS_IOC_SETFLAGS", file.as_raw_fd()))?;
    Ok(true)
}
