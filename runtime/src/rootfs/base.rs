//! The top of a file hierarchy: what systemd-nspawn makes in every root (`base_filesystem_create`, v256), so that an
//! image may consist of little more than /usr.

use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

/// Names and permission bits.
const DIRECTORIES: &[(&str, u32)] = &[
    ("root", 0o750),
    ("usr", 0o755),
    ("var", 0o755),
    ("etc", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o555),
    ("run", 0o555),
    ("tmp", 0o1777),
];

/// Links to what has the same name in /usr, if it is there.
const LINKS: &[&str] = &["bin", "lib", "sbin"];

/// Where in /usr /lib64 leads: to the first that has this loader.
const LIB64: &[&str] = &["lib64", "lib/x86_64-linux-gnu", "lib"];
const LOADER: &str = "ld-linux-x86-64.so.2";

/// Makes in `new` what is missing in `seen`; `there` tells what is in /usr. A root that cannot be written to stays as it
/// is.
pub(super) fn create(
    new: BorrowedFd<'_>,
    seen: BorrowedFd<'_>,
    there: impl Fn(&str) -> bool,
    owner: Option<u32>,
) -> Result<(), (String, Errno)> {
    let missing = |name: &str| fstatat(seen, name, AtFlags::AT_SYMLINK_NOFOLLOW) == Err(Errno::ENOENT);
    for (name, mode) in DIRECTORIES.iter().filter(|(name, _)| missing(name)) {
        let made = mkdirat(new, *name, Mode::from_bits_truncate(*mode)).and_then(|()| {
            fchmodat(new, *name, Mode::from_bits_truncate(*mode), FchmodatFlags::FollowSymlink)?;
            give(new, name, owner)
        });
        settle(made, name)?;
    }
    for name in LINKS.iter().filter(|name| missing(name) && there(name)) {
        let made = symlinkat(Path::new("usr").join(name).as_path(), new, *name);
        settle(made.and_then(|()| give(new, name, owner)), name)?;
    }
    if cfg!(target_arch = "x86_64") && missing("lib64") {
        let to = LIB64.iter().find(|directory| there(&format!("{directory}/{LOADER}")));
        if let Some(to) = to {
            let made = symlinkat(Path::new("usr").join(to).as_path(), new, "lib64");
            settle(made.and_then(|()| give(new, "lib64", owner)), "lib64")?;
        }
    }
    Ok(())
}

fn give(new: BorrowedFd<'_>, name: &str, owner: Option<u32>) -> nix::Result<()> {
    let Some(owner) = owner else { return Ok(()) };
    let (user, group) = (Uid::from_raw(owner), Gid::from_raw(owner));
    fchownat(new, name, Some(user), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// Whether there is something at the path, looked up within the root.
pub(super) fn is_below(root: BorrowedFd<'_>, path: &str) -> bool {
    use crate::sys::{fd::openat2, inroot};
    let resolve = inroot::RESOLVE_IN_ROOT | inroot::RESOLVE_NO_MAGICLINKS;
    let path = std::ffi::CString::new(path).unwrap_or_default();
    openat2(root, &path, OFlag::O_PATH.bits(), 0, resolve).is_ok()
}

fn settle(made: nix::Result<()>, name: &str) -> Result<(), (String, Errno)> {
    match made {
        // EEXIST: somebody else was faster.
        Ok(()) | Err(Errno::EEXIST | Errno::EROFS) => Ok(()),
        Err(errno) => Err((name.to_owned(), errno)),
    }
}
