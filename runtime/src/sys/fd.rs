//! openat2(2), close_range(2), xattrs of an open file, and file-descriptor odds and ends.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use super::Result;
use super::error::{SyscallError, check};

/// The kernel's `struct open_how`.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens `path` below `dir`, resolved as `resolve` (`RESOLVE_*`) says. Always close-on-exec.
///
/// # Errors
/// The kernel's; ELOOP or EXDEV when `resolve` forbids the way the path takes.
pub fn openat2(dir: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: u64::from(mode), resolve };
    loop {
        // SAFETY: `path` is NUL-terminated and `how` is a live struct of the size that is passed.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<OpenHow>(),
            )
        };
        // EAGAIN: a rename elsewhere raced with the scoped lookup (openat2(2)); EINTR: a slow file system.
        if fd < 0 && matches!(Errno::last_raw(), libc::EAGAIN | libc::EINTR) {
            continue;
        }
        let fd = check(fd, "openat2", || format!("{}, {path:?}, {flags:#o}, {resolve:#x}", dir.as_raw_fd()))?;
        // SAFETY: a descriptor the kernel just gave us.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    }
}

/// Value of an extended attribute of an open file; `None` when it has none or the file system knows none.
#[must_use]
pub fn xattr(file: BorrowedFd<'_>, name: &CStr) -> Option<Vec<u8>> {
    let mut value = vec![0u8; 256];
    // SAFETY: `name` is NUL-terminated; the kernel writes at most `value.len()` bytes into `value`.
    let length =
        unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let length = usize::try_from(length).ok()?;
    value.truncate(length);
    Some(value)
}

/// Value of an extended attribute of what `name` is in `directory`, a symlink being itself; `None` when it has none or
/// cannot have any.
///
/// # Errors
/// The kernel's.
pub fn xattr_at(directory: BorrowedFd<'_>, name: &CStr, attribute: &CStr) -> Result<Option<Vec<u8>>> {
    let path = below(directory, name);
    let mut value = vec![0u8; 1024];
    loop {
        // SAFETY: both strings are NUL-terminated; the kernel writes at most `value.len()` bytes into `value`.
        let length = unsafe {
            libc::lgetxattr(path.as_ptr(), attribute.as_ptr(), value.as_mut_ptr().cast(), value.len())
        };
        let errno = Errno::last();
        match (usize::try_from(length), errno) {
            (Ok(length), _) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            // The kernel's limit for a value.
            (_, Errno::ERANGE) if value.len() < 65536 => value.resize(65536, 0),
            (_, Errno::ENODATA | Errno::EOPNOTSUPP) => return Ok(None),
            _ => return Err(SyscallError::new("lgetxattr", format!("{path:?}, {attribute:?}"), errno)),
        }
    }
}

/// Gives what `name` is in `directory` an extended attribute, a symlink itself.
///
/// # Errors
/// The kernel's.
pub fn set_xattr_at(directory: BorrowedFd<'_>, name: &CStr, attribute: &CStr, value: &[u8]) -> Result<()> {
    let path = below(directory, name);
    // SAFETY: both strings are NUL-terminated and the kernel reads `value.len()` bytes of `value`.
    let result =
        unsafe { libc::lsetxattr(path.as_ptr(), attribute.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(result.into(), "lsetxattr", || format!("{path:?}, {attribute:?}"))?;
    Ok(())
}

/// A path to an entry of an open directory, for calls that know no directories before Linux 6.13 (setxattrat) and
/// refuse descriptors that were opened with `O_PATH`, the only way to open a device or FIFO without waking it.
fn below(directory: BorrowedFd<'_>, name: &CStr) -> CString {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    CString::new(path).unwrap_or_default()
}

/// Makes the empty file `to` share all blocks of `from`, until one of the two is written to.
///
/// # Errors
/// EOPNOTSUPP or EXDEV where the file systems cannot.
pub fn reflink(to: BorrowedFd<'_>, from: BorrowedFd<'_>) -> Result<()> {
    /// `FICLONE` (linux/fs.h), whose type differs between libcs.
    const FICLONE: u32 = 0x4004_9409;
    // SAFETY: the argument is a descriptor.
    let result = unsafe { libc::ioctl(to.as_raw_fd(), FICLONE as _, from.as_raw_fd()) };
    check(result.into(), "ioctl", || "FICLONE".to_owned())?;
    Ok(())
}

/// Gives an open file an extended attribute.
///
/// # Errors
/// The kernel's.
pub fn set_xattr(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: `name` is NUL-terminated and the kernel reads `value.len()` bytes of `value`.
    let result =
        unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(result.into(), "fsetxattr", || format!("{name:?}"))?;
    Ok(())
}

/// Gives an open file the extended attributes of another one: file capabilities and access control lists among them.
///
/// # Errors
/// The kernel's; none where one of the file systems knows no such attribute.
pub fn copy_xattrs(to: BorrowedFd<'_>, from: BorrowedFd<'_>) -> Result<()> {
    // The kernel's limits for a list and for a value.
    let mut names = vec![0u8; 65536];
    // SAFETY: the kernel writes at most `names.len()` bytes into `names`.
    let length = unsafe { libc::flistxattr(from.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(usize::try_from(length).unwrap_or(0));
    let mut value = vec![0u8; if names.is_empty() { 0 } else { 65536 }];
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        // SAFETY: `name` is NUL-terminated; the kernel writes at most `value.len()` bytes into `value`.
        let length = unsafe {
            libc::fgetxattr(from.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
        };
        let Some(value) = usize::try_from(length).ok().and_then(|length| value.get(..length)) else {
            continue;
        };
        match set_xattr(to, name, value) {
            Err(error) if error.errno() == Errno::EOPNOTSUPP => {}
            result => result?,
        }
    }
    Ok(())
}

/// Fills `buffer` (at most 256 bytes, which the kernel gives in one piece) with random bytes.
///
/// # Errors
/// The kernel's.
pub fn random(buffer: &mut [u8]) -> Result<()> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    let result = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    check(result as libc::c_long, "getrandom", || buffer.len().to_string())?;
    Ok(())
}

/// The text of a file of procfs or sysfs, most of them in one read. Such files have no size that would say how much to
/// make room for, so that the standard library begins with 32 bytes.
///
/// # Errors
/// The kernel's; when the file is no UTF-8.
pub fn read_kernel_file(path: &Path) -> io::Result<String> {
    let mut text = String::with_capacity(4096);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}
