//! openat2(2), close_range(2), xattrs of an open file, and file-descriptor odds and ends.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr;

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

/// `openat2` resolve flag: no mount on the way.
pub const RESOLVE_NO_XDEV: u64 = 0x01;
/// `openat2` resolve flag: no symlink on the way.
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
/// `openat2` resolve flag: neither `..` nor an absolute path leads out of the directory.
pub const RESOLVE_BENEATH: u64 = 0x08;

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

/// The kernel's limit for a list of attributes and for a value.
const XATTR_MAX: usize = 65536;

/// All extended attributes of a file that is open, be it with `O_PATH` alone; none where it cannot have any. One that
/// vanishes meanwhile is left out.
///
/// # Errors
/// The kernel's.
pub fn xattrs(file: BorrowedFd<'_>) -> Result<Vec<(CString, Vec<u8>)>> {
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
    // Most files have none, and then there is no need for room.
    // SAFETY: the path is NUL-terminated; without a buffer the kernel says how much there is.
    let length = unsafe { libc::listxattr(path.as_ptr(), ptr::null_mut(), 0) };
    match (length, Errno::last()) {
        (0, _) | (-1, Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        (-1, errno) => return Err(SyscallError::new("listxattr", format!("{path:?}"), errno)),
        _ => {}
    }
    let mut names = vec![0u8; XATTR_MAX];
    // SAFETY: the path is NUL-terminated; the kernel writes at most `names.len()` bytes into `names`.
    let length = unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    check(length as libc::c_long, "listxattr", || format!("{path:?}"))?;
    names.truncate(usize::try_from(length).unwrap_or(0));
    let mut found = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let mut value = vec![0u8; XATTR_MAX];
        // SAFETY: both strings are NUL-terminated; the kernel writes at most `value.len()` bytes into `value`.
        let length =
            unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        match (usize::try_from(length), Errno::last()) {
            (Ok(length), _) => {
                value.truncate(length);
                value.shrink_to_fit();
                found.push((name.to_owned(), value));
            }
            (_, Errno::ENODATA | Errno::EOPNOTSUPP) => {}
            (_, errno) => return Err(SyscallError::new("getxattr", format!("{path:?}, {name:?}"), errno)),
        }
    }
    Ok(found)
}

/// Renames what is at `from` to `to` below `directory`, unless something is there.
///
/// # Errors
/// EEXIST when something is; EINVAL on a file system that cannot tell.
pub fn rename_new(directory: BorrowedFd<'_>, from: &CStr, to: &CStr) -> Result<()> {
    let at = directory.as_raw_fd();
    // SAFETY: both strings are NUL-terminated.
    let result = unsafe {
        libc::syscall(libc::SYS_renameat2, at, from.as_ptr(), at, to.as_ptr(), libc::RENAME_NOREPLACE)
    };
    check(result, "renameat2", || format!("{at}, {from:?}, {at}, {to:?}, RENAME_NOREPLACE"))?;
    Ok(())
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

/// Gives a file that is open, be it with `O_PATH` alone, an extended attribute.
///
/// # Errors
/// The kernel's.
pub fn set_xattr_of(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
    // SAFETY: both strings are NUL-terminated and the kernel reads `value.len()` bytes of `value`.
    let result =
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(result.into(), "setxattr", || format!("{path:?}, {name:?}"))?;
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
