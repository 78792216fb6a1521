//! Snapshots of btrfs subvolumes.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::Result;
use super::error::{SyscallError, check};

/// linux/magic.h.
const BTRFS_SUPER_MAGIC: i64 = 0x9123_683e;
/// Inode of a subvolume's top directory (`BTRFS_FIRST_FREE_OBJECTID`).
const TOP: u64 = 256;
/// Inode of the empty directory that a snapshot has in place of a subvolume that was nested in the original
/// (`BTRFS_EMPTY_SUBVOL_DIR_OBJECTID`).
pub const PLACEHOLDER: u64 = 2;
/// `BTRFS_IOC_SNAP_CREATE_V2`, linux/btrfs.h.
const SNAP_CREATE_V2: u32 = 0x5000_9417;
const NAME_ROOM: usize = 4040;

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct VolumeArguments {
    fd: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; NAME_ROOM],
}

/// Whether an open directory is the top of a subvolume.
#[must_use]
pub fn is_subvolume(directory: BorrowedFd<'_>) -> bool {
    // The field's type differs between libcs.
    #[allow(clippy::unnecessary_cast)]
    let btrfs = nix::sys::statfs::fstatfs(directory)
        .is_ok_and(|found| found.filesystem_type().0 as u32 as i64 == BTRFS_SUPER_MAGIC);
    btrfs && fstat(directory).is_ok_and(|found| found.st_ino == TOP)
}

/// Makes a snapshot of a subvolume that can be written to, at a place of the same file system where nothing is.
///
/// # Errors
/// The kernel's; EXDEV for another file system.
pub fn snapshot(subvolume: BorrowedFd<'_>, to: &Path) -> Result<()> {
    let arguments = || format!("BTRFS_IOC_SNAP_CREATE_V2, {}", to.display());
    let failed = |errno| SyscallError::new("ioctl", arguments(), errno);
    let (Some(parent), Some(name)) = (to.parent(), to.file_name()) else { return Err(failed(Errno::EINVAL)) };
    let name = CString::new(name.as_bytes()).map_err(|_| failed(Errno::EINVAL))?;
    let parent = File::open(parent)
        .map_err(|error| failed(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL))))?;
    let mut volume = VolumeArguments {
        fd: subvolume.as_raw_fd().into(),
        transaction: 0,
        flags: 0,
        unused: [0; 4],
        name: [0; NAME_ROOM],
    };
    let bytes = name.as_bytes_with_nul();
    volume.name.get_mut(..bytes.len()).ok_or_else(|| failed(Errno::ENAMETOOLONG))?.copy_from_slice(bytes);
    // SAFETY: the argument is a live struct of the kernel's layout and size, with a NUL-terminated name in it.
    let result = unsafe { libc::ioctl(parent.as_raw_fd(), SNAP_CREATE_V2 as _, &raw const volume) };
    check(result.into(), "ioctl", arguments)?;
    Ok(())
}
