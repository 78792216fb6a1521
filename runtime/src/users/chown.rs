//! Giving every file of a root to a range of ids, as systemd-nspawn does and in the same steps, so that what one of the
//! two was killed over the other completes.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::unistd::{Gid, Uid, fchownat};

use crate::error::{Doing, Error, ErrorKind};
use crate::plan::IdRange;
use crate::rootfs::Root;
use crate::sys::mount::open_tree_clone;

/// Upper half of the owner's id of a root whose files are being given away (systemd's `UID_BUSY_BASE`).
pub(crate) const BUSY: u32 = 0xfffe_0000;

/// Gives all files of the root to the ids: each keeps the lower half of its owner's id. A root that belongs to them is
/// left alone, since it itself is done last. Other file systems that are mounted in it are not entered.
///
/// # Errors
/// EROFS on a read-only file system. What was done stays, and the next call goes on.
pub(crate) fn give(root: &Root, range: IdRange) -> Result<(), Error> {
    if !range.is_aligned() {
        return Err(Error::new(
            ErrorKind::Config,
            format!("the files of {} cannot be given to the ids {range}", root.path().display()),
        )
        .hint("use 65536 ids from a multiple of 65536 on"));
    }
    let doing = || format!("give the files of {} to the ids {range}", root.path().display());
    // A copy without the mounts below it: nothing leads out.
    let tree = open_tree_clone(root.as_fd(), c"", false).doing(doing)?;
    let top = fstat(&tree).doing(doing)?;
    if belongs(&top, range) {
        return Ok(());
    }
    let directory = nix::fcntl::openat(&tree, ".", DIRECTORY, Mode::empty()).doing(doing)?;
    // From now on it is nobody's, whenever we are killed.
    set(directory.as_fd(), c".", &top, BUSY).doing(doing)?;
    below(&directory, range).doing(doing)?;
    give_lists(directory.as_fd(), c".", &top, range.base).doing(doing)?;
    set(directory.as_fd(), c".", &top, range.base).doing(doing)
}

fn belongs(file: &FileStat, range: IdRange) -> bool {
    range.contains(file.st_uid) && range.contains(file.st_gid)
}

/// The files of a directory, each directory after what is in it.
fn below(directory: &OwnedFd, range: IdRange) -> nix::Result<()> {
    for name in names(directory)? {
        let found = fstatat(directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if found.st_mode & libc::S_IFMT == libc::S_IFDIR {
            below(&nix::fcntl::openat(directory, name.as_c_str(), DIRECTORY, Mode::empty())?, range)?;
        }
        // Before its owner, which tells a file that is done; systemd-nspawn has it the other way round, so every file's.
        give_lists(directory.as_fd(), &name, &found, range.base)?;
        if !belongs(&found, range) {
            set(directory.as_fd(), &name, &found, range.base)?;
        }
    }
    Ok(())
}

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// All at once: an open directory a level is enough.
fn names(directory: &OwnedFd) -> nix::Result<Vec<CString>> {
    let mut entries = Dir::from_fd(nix::fcntl::openat(directory, ".", DIRECTORY, Mode::empty())?)?;
    let names = entries.iter().map(|entry| Ok(entry?.file_name().to_owned()));
    names.filter(|name| !matches!(name.as_deref(), Ok(name) if name == c"." || name == c"..")).collect()
}

/// The file's id with another upper half.
fn moved(id: u32, base: u32) -> u32 {
    base | id & (IdRange::LENGTH - 1)
}

fn give_lists(directory: BorrowedFd<'_>, name: &CStr, file: &FileStat, base: u32) -> nix::Result<()> {
    match file.st_mode & libc::S_IFMT {
        libc::S_IFLNK => Ok(()),
        kind => super::acl::give(directory, name, kind == libc::S_IFDIR, |id| moved(id, base)),
    }
}

/// Changes the upper half of a file's ids, and puts back what the kernel takes from a file that changes hands.
fn set(directory: BorrowedFd<'_>, name: &CStr, file: &FileStat, base: u32) -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(moved(file.st_uid, base)), Gid::from_raw(moved(file.st_gid, base)));
    fchownat(directory, name, Some(user), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let special = libc::S_ISUID | libc::S_ISGID;
    if file.st_mode & libc::S_IFMT != libc::S_IFLNK && file.st_mode & special != 0 {
        let mode = Mode::from_bits_truncate(file.st_mode);
        nix::sys::stat::fchmodat(directory, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
    }
    Ok(())
}
