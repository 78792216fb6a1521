//! The top of a file hierarchy: what systemd-nspawn makes in every root (`base_filesystem_create`, v256), so that an
//! image may consist of little more than /usr.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat, mkdirat};
use nix::unistd::symlinkat;

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

/// Names and where they lead, if that exists.
const LINKS: &[(&str, &str)] = &[("bin", "usr/bin"), ("lib", "usr/lib"), ("sbin", "usr/sbin")];

/// Where /lib64 leads: to the first that has this loader.
const LIB64: &[&str] = &["usr/lib64", "usr/lib/x86_64-linux-gnu", "usr/lib"];
const LOADER: &str = "ld-linux-x86-64.so.2";

/// Makes in `new` what is missing in `seen`; links to what is below `usr`'s /usr. A root that cannot be written to stays
/// as it is.
pub(super) fn create(
    new: BorrowedFd<'_>,
    seen: BorrowedFd<'_>,
    usr: BorrowedFd<'_>,
) -> Result<(), (String, Errno)> {
    let missing = |name: &str| fstatat(seen, name, AtFlags::AT_SYMLINK_NOFOLLOW) == Err(Errno::ENOENT);
    for (name, mode) in DIRECTORIES.iter().filter(|(name, _)| missing(name)) {
        let made = mkdirat(new, *name, Mode::from_bits_truncate(*mode)).and_then(|()| {
            fchmodat(new, *name, Mode::from_bits_truncate(*mode), FchmodatFlags::FollowSymlink)
        });
        settle(made, name)?;
    }
    let there = |path: &str| is_below(usr, path);
    for (name, to) in LINKS.iter().filter(|(name, to)| missing(name) && there(to)) {
        settle(symlinkat(*to, new, *name), name)?;
    }
    if cfg!(target_arch = "x86_64") && missing("lib64") {
        let to = LIB64.iter().find(|directory| there(&format!("{directory}/{LOADER}")));
        if let Some(to) = to {
            settle(symlinkat(*to, new, "lib64"), "lib64")?;
        }
    }
    Ok(())
}

/// Whether there is something at the path, looked up within the root.
fn is_below(root: BorrowedFd<'_>, path: &str) -> bool {
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
