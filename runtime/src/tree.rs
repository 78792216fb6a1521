//! Trees of files that whoever filled them may have filled with traps: looked at, and removed, by descriptors. No symlink
//! is followed, no mount crossed, and nothing opened that does something when it is opened.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, UtimensatFlags, fchmodat, fstat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, setfsgid, setfsuid};

use crate::plan::IdRange;
use crate::sys::fd::{RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2};
use crate::sys::mount::open_tree_clone;
use crate::sys::{self, inroot};
use crate::users::acl;

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const NODE: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Opens a directory of the host without what is mounted below it: in place of a mount the directory that it hides is
/// seen. Needs the right to mount.
///
/// # Errors
/// The kernel's; ENOTDIR for a symlink.
pub fn alone(path: &Path) -> io::Result<OwnedFd> {
    let found = openat(AT_FDCWD, path, NODE | OFlag::O_DIRECTORY, Mode::empty())?;
    let tree = open_tree_clone(found.as_fd(), c"", false)?;
    Ok(openat(&tree, ".", DIRECTORY, Mode::empty())?)
}

/// What becomes of mounts on a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounts {
    /// They are not crossed.
    Stay,
    /// They are, as whoever lives there does.
    Cross,
}

/// A directory below another one, by a way without symlinks; the empty path is the directory itself.
///
/// # Errors
/// ELOOP for a symlink on the way, EXDEV for a mount that is not to be crossed or `..` that leads out, and the kernel's
/// others.
pub fn directory(top: BorrowedFd<'_>, path: &Path, mounts: Mounts) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(Errno::EINVAL))?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let stay = if mounts == Mounts::Stay { RESOLVE_NO_XDEV } else { 0 };
    let resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | inroot::RESOLVE_NO_MAGICLINKS | stay;
    Ok(openat2(top, &path, flags, 0, resolve)?)
}

/// The names in a directory, sorted.
///
/// # Errors
/// The kernel's.
pub fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut entries = Dir::from_fd(openat(directory, ".", DIRECTORY, Mode::empty())?)?;
    let mut names = Vec::new();
    for entry in entries.iter() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

/// Something in a directory, held on to: what is read of it is of one and the same file.
#[derive(Debug)]
pub struct Node {
    file: OwnedFd,
    /// What stat(2) says of it.
    pub stat: FileStat,
}

impl Node {
    /// What `name` is in the directory, a symlink being itself.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Node> {
        let file = openat(directory, name, NODE, Mode::empty())?;
        let stat = fstat(&file)?;
        Ok(Node { file, stat })
    }

    /// Its type, `S_IF*`.
    #[must_use]
    pub fn kind(&self) -> u32 {
        self.stat.st_mode & libc::S_IFMT
    }

    /// Opens it for reading.
    ///
    /// # Errors
    /// EINVAL unless it is a regular file; the kernel's.
    pub fn read(&self) -> io::Result<File> {
        if self.kind() != libc::S_IFREG {
            return Err(Errno::EINVAL.into());
        }
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Where a symlink leads.
    ///
    /// # Errors
    /// The kernel's.
    pub fn target(&self) -> io::Result<OsString> {
        Ok(readlinkat(&self.file, "")?)
    }

    /// It was opened as something else already.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of(file: impl Into<OwnedFd>) -> io::Result<Node> {
        let file = file.into();
        let stat = fstat(&file)?;
        Ok(Node { file, stat })
    }

    /// The path that leads to it, whatever its names are by now.
    fn way(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Gives it an owner.
    ///
    /// # Errors
    /// The kernel's.
    pub fn give(&self, user: u32, group: u32) -> io::Result<()> {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        Ok(fchownat(&self.file, "", Some(user), Some(group), AtFlags::AT_EMPTY_PATH)?)
    }

    /// Sets its permissions, with set-id bits. Symlinks have none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn permit(&self, mode: u32) -> io::Result<()> {
        let mode = Mode::from_bits_truncate(mode);
        Ok(fchmodat(AT_FDCWD, &self.way(), mode, FchmodatFlags::FollowSymlink)?)
    }

    /// Sets when it was last read and changed: seconds since 1970, and nanoseconds.
    ///
    /// # Errors
    /// The kernel's.
    pub fn date(&self, (seconds, nanoseconds): (i64, u32)) -> io::Result<()> {
        // The field types differ between libcs.
        #[allow(clippy::useless_conversion)]
        let time = TimeSpec::new(seconds.try_into().unwrap_or(0), nanoseconds.into());
        // By the descriptor's link, which leads to a symlink itself.
        Ok(utimensat(AT_FDCWD, &self.way(), &time, &time, UtimensatFlags::FollowSymlink)?)
    }

    /// Gives it an extended attribute.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_xattr(&self, name: &CStr, value: &[u8]) -> io::Result<()> {
        Ok(sys::fd::set_xattr_of(self.file.as_fd(), name, value)?)
    }

    /// Its extended attributes, by name.
    ///
    /// # Errors
    /// The kernel's.
    pub fn xattrs(&self) -> io::Result<Vec<(CString, Vec<u8>)>> {
        Ok(sys::fd::xattrs(self.file.as_fd())?)
    }
}

/// While this lives, files that this thread makes belong to a user and a group of the host, and it has its rights all
/// the same: on a mount with mapped ids nobody can make a file who has no id there, as root has not (EOVERFLOW).
#[derive(Debug)]
pub struct MakeAs {
    before: (Uid, Gid),
}

impl MakeAs {
    /// For this user, and the group with the same number.
    ///
    /// # Errors
    /// When the rights that a change of the user takes away do not come back.
    pub fn new(id: u32) -> io::Result<MakeAs> {
        let before = (setfsuid(Uid::from_raw(id)), setfsgid(Gid::from_raw(id)));
        let made = MakeAs { before };
        let permitted = caps::read(None, caps::CapSet::Permitted).map_err(io::Error::other)?;
        caps::set(None, caps::CapSet::Effective, &permitted).map_err(io::Error::other)?;
        Ok(made)
    }
}

impl Drop for MakeAs {
    fn drop(&mut self) {
        setfsgid(self.before.1);
        setfsuid(self.before.0);
    }
}

/// The ids of files as the container counts them, where the host counts them from `base` on; 0 is no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shift {
    base: u32,
}

impl Shift {
    /// For a root directory with this owner: the upper half of the id is that of all its files, as systemd-nspawn has it.
    #[must_use]
    pub fn of_owner(uid: u32) -> Shift {
        Shift { base: uid & !(IdRange::LENGTH - 1) }
    }

    /// For ids from `base` on.
    #[must_use]
    pub fn from_base(base: u32) -> Shift {
        Shift { base }
    }

    /// Where the host counts from.
    #[must_use]
    pub fn base(self) -> u32 {
        self.base
    }

    /// Whether giving the files away was interrupted: they belong to nobody then.
    #[must_use]
    pub fn is_unfinished(self) -> bool {
        self.base == crate::users::chown::BUSY
    }

    /// The container's id of a file with this one of the host. One of another range keeps its lower half, as when the
    /// files are given to a range.
    #[must_use]
    pub fn inside(self, id: u32) -> u32 {
        match id.checked_sub(self.base) {
            _ if self.base == 0 => id,
            Some(inside) if inside < IdRange::LENGTH => inside,
            _ => id & (IdRange::LENGTH - 1),
        }
    }

    /// The host's id.
    #[must_use]
    pub fn outside(self, id: u32) -> u32 {
        if self.base == 0 { id } else { self.base.saturating_add(id & (IdRange::LENGTH - 1)) }
    }

    /// An attribute's value with ids in it, such as an access control list, as the container sees it; others as they
    /// are.
    #[must_use]
    pub fn attribute_inside(self, name: &[u8], value: Vec<u8>) -> Vec<u8> {
        attribute(name, value, |id| self.inside(id))
    }

    /// The same as the host has it.
    #[must_use]
    pub fn attribute_outside(self, name: &[u8], value: Vec<u8>) -> Vec<u8> {
        attribute(name, value, |id| self.outside(id))
    }
}

/// `struct vfs_ns_cap_data` (linux/capability.h): a version and flags, two pairs of sets, the id of the root that they
/// count for. Version 2 has no such id: it is the root of everybody.
const CAPABILITY: &[u8] = b"security.capability";
const VERSION_2: u32 = 0x0200_0000;
const VERSION_3: u32 = 0x0300_0000;
const VERSION_MASK: u32 = 0xff00_0000;

fn attribute(name: &[u8], value: Vec<u8>, id: impl Fn(u32) -> u32) -> Vec<u8> {
    if name == CAPABILITY {
        return capability(value, id);
    }
    if acl::LISTS.iter().any(|list| list.to_bytes() == name) {
        return acl::replaced(&value, id).ok().flatten().unwrap_or(value);
    }
    value
}

fn capability(value: Vec<u8>, id: impl Fn(u32) -> u32) -> Vec<u8> {
    let word = |at: usize| value.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (Some(magic), Some(root), 24) = (word(0), word(20), value.len()) else {
        let version_2 = word(0).is_some_and(|magic| magic & VERSION_MASK == VERSION_2) && value.len() == 20;
        return match (version_2, id(0)) {
            // The container's root's, and nobody else's.
            (true, root) if root != 0 => {
                let magic = word(0).unwrap_or_default() & !VERSION_MASK | VERSION_3;
                [&magic.to_le_bytes(), value.get(4..).unwrap_or_default(), &root.to_le_bytes()].concat()
            }
            _ => value,
        };
    };
    match id(root) {
        _ if magic & VERSION_MASK != VERSION_3 => value,
        0 => {
            let magic = magic & !VERSION_MASK | VERSION_2;
            [&magic.to_le_bytes(), value.get(4..20).unwrap_or_default()].concat()
        }
        root => [value.get(..20).unwrap_or_default(), &root.to_le_bytes()].concat(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn open(path: &Path) -> File {
        File::open(path).unwrap()
    }

    #[test]
    fn no_way_leads_through_a_symlink_or_up() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("top/a/b")).unwrap();
        symlink("a", dir.path().join("top/link")).unwrap();
        let top = open(&dir.path().join("top"));
        directory(top.as_fd(), Path::new(""), Mounts::Stay).unwrap();
        directory(top.as_fd(), Path::new("a/b"), Mounts::Cross).unwrap();
        for (path, errno) in
            [("link", libc::ELOOP), ("link/b", libc::ELOOP), ("..", libc::EXDEV), ("/", libc::EXDEV)]
        {
            let error = directory(top.as_fd(), Path::new(path), Mounts::Cross).unwrap_err();
            assert!([errno, libc::ENOTDIR].contains(&error.raw_os_error().unwrap()), "{path}: {error}");
        }
    }

    #[test]
    fn ids_in_attributes_move_with_the_owner_and_back() {
        let shift = Shift::of_owner(0x4_0000 + 7);
        assert_eq!((shift.base(), shift.inside(0x4_0005), shift.outside(5)), (0x4_0000, 5, 0x4_0005));
        let odd = Shift::from_base(100_000);
        assert_eq!((odd.inside(100_007), odd.outside(7), odd.inside(5)), (7, 100_007, 5));
        let plain = [0x0100_0000_u32 | 1, 1, 2, 3, 4].map(u32::to_le_bytes).concat();
        for magic in [VERSION_2, VERSION_2 | 1] {
            let inside = [magic, 10, 20, 30, 40].map(u32::to_le_bytes).concat();
            let outside = [magic & 1 | VERSION_3, 10, 20, 30, 40, 0x4_0000].map(u32::to_le_bytes).concat();
            assert_eq!(shift.attribute_inside(CAPABILITY, outside.clone()), inside);
            assert_eq!(shift.attribute_outside(CAPABILITY, inside.clone()), outside);
            assert_eq!(Shift::from_base(0).attribute_outside(CAPABILITY, inside.clone()), inside);
        }
        assert_eq!(shift.attribute_outside(CAPABILITY, plain.clone()), plain);
        assert_eq!(shift.attribute_outside(CAPABILITY, vec![1]), [1]);
        let list = |id: u32| {
            let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[7, 0], &id.to_le_bytes()].concat();
            [&[2, 0, 0, 0][..], &entry(1, u32::MAX), &entry(2, id)].concat()
        };
        let name = b"system.posix_acl_access";
        assert_eq!(shift.attribute_inside(name, list(0x4_0009)), list(9));
        assert_eq!(shift.attribute_outside(name, list(9)), list(0x4_0009));
        assert_eq!(shift.attribute_outside(b"user.x", list(9)), list(9));
    }
}
