//! A tmpfs that is filled while it is still detached: nobody can see it half done.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mkdirat, mknodat};
use nix::unistd::{Gid, Uid};

use crate::plan::Entry;
use crate::sys::mount::FsContext;
use crate::sys::process::pass_credentials;

/// A detached tmpfs with these options and `MOUNT_ATTR_*` bits.
pub(super) fn create(
    options: &[(String, Option<String>)],
    attributes: u64,
    owner: u32,
) -> crate::sys::Result<OwnedFd> {
    let context = FsContext::open(c"tmpfs")?;
    if owner != 0 {
        let id = CString::new(owner.to_string()).unwrap_or_default();
        context.set(c"uid", Some(&id))?;
        context.set(c"gid", Some(&id))?;
    }
    for (key, value) in options {
        let value = value.as_ref().map(|value| CString::new(shifted(key, value, owner)).unwrap_or_default());
        let key = CString::new(key.as_str()).unwrap_or_default();
        context.set(&key, value.as_deref())?;
    }
    context.mount(attributes)
}

/// Ids in options are the container's.
fn shifted(key: &str, value: &str, owner: u32) -> String {
    let id: Option<u32> = if matches!(key, "uid" | "gid") { value.parse().ok() } else { None };
    match id.and_then(|id| owner.checked_add(id)) {
        Some(id) => id.to_string(),
        None => value.to_owned(),
    }
}

/// Makes the entries in order. Their permissions are set afterwards, whatever the umask is: it belongs to the
/// program that embeds us.
pub(super) fn fill<'a>(
    tree: BorrowedFd<'_>,
    entries: impl IntoIterator<Item = &'a Entry>,
    owner: u32,
) -> std::io::Result<()> {
    entries.into_iter().try_for_each(|entry| {
        make(tree, entry)?;
        let bound = matches!(entry, Entry::Socket { path, .. } if path == Path::new(crate::plan::NOTIFY));
        if bound { Ok(()) } else { give(tree, entry.path(), owner) }
    })
}

/// Gives a terminal to the container's root; its group is for those who may write to it.
pub(super) fn give_user(tree: BorrowedFd<'_>, path: &Path, owner: u32) -> std::io::Result<()> {
    if owner == 0 {
        return Ok(());
    }
    let user = Some(Uid::from_raw(owner));
    Ok(nix::unistd::fchownat(tree, path, user, None, AtFlags::AT_SYMLINK_NOFOLLOW)?)
}

/// Gives a file to the container's root, which is the host's unless it has a user namespace.
pub(super) fn give(tree: BorrowedFd<'_>, path: &Path, owner: u32) -> std::io::Result<()> {
    if owner == 0 {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(owner), Gid::from_raw(owner));
    Ok(nix::unistd::fchownat(tree, path, Some(user), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW)?)
}

fn make(tree: BorrowedFd<'_>, entry: &Entry) -> std::io::Result<()> {
    match entry {
        Entry::Directory { path, mode } => {
            mkdirat(tree, path, Mode::from_bits_truncate(*mode))?;
            chmod(tree, path, *mode)
        }
        Entry::File { path, mode, content } => write_bytes(tree, path, *mode, content.as_bytes()),
        Entry::Symlink { path, to } => Ok(nix::unistd::symlinkat(to.as_path(), tree, path.as_path())?),
        Entry::Device { path, mode, block, major, minor, optional } => {
            let kind = if *block { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
            match node(tree, path, kind, *mode, makedev(u64::from(*major), u64::from(*minor))) {
                Err(error) if *optional && error.raw_os_error() == Some(libc::EPERM) => Ok(()),
                result => result,
            }
        }
        Entry::Fifo { path, mode } => node(tree, path, SFlag::S_IFIFO, *mode, 0),
        // The notify socket is bound, not made.
        Entry::Socket { path, .. } if path == Path::new(crate::plan::NOTIFY) => Ok(()),
        Entry::Socket { path, mode } => node(tree, path, SFlag::S_IFSOCK, *mode, 0),
    }
}

fn node(tree: BorrowedFd<'_>, path: &Path, kind: SFlag, mode: u32, device: u64) -> std::io::Result<()> {
    mknodat(tree, path, kind, Mode::from_bits_truncate(mode), device)?;
    chmod(tree, path, mode)
}

fn chmod(tree: BorrowedFd<'_>, path: &Path, mode: u32) -> std::io::Result<()> {
    Ok(fchmodat(tree, path, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink)?)
}

/// Writes a new file with exactly these permissions.
pub(super) fn write(tree: BorrowedFd<'_>, path: &str, mode: u32, content: &str) -> std::io::Result<()> {
    write_bytes(tree, Path::new(path), mode, content.as_bytes())
}

fn write_bytes(tree: BorrowedFd<'_>, path: &Path, mode: u32, content: &[u8]) -> std::io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mut file = File::from(nix::fcntl::openat(tree, path, flags, Mode::from_bits_truncate(mode | 0o200))?);
    if !content.is_empty() {
        file.write_all(content)?;
    }
    Ok(nix::sys::stat::fchmod(file.as_fd(), Mode::from_bits_truncate(mode))?)
}

/// Opens our end of a FIFO for reading and writing, so that neither end ever sees a hang-up.
pub(super) fn open_fifo(tree: BorrowedFd<'_>, path: &str) -> std::io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::openat(tree, path, flags, Mode::empty())?)
}

/// Binds the notify socket. The tmpfs has no path yet, so it goes through its descriptor in /proc.
pub(super) fn notify_socket(run: BorrowedFd<'_>) -> std::io::Result<UnixDatagram> {
    let path = format!("/proc/self/fd/{}/{}", run.as_raw_fd(), crate::plan::NOTIFY);
    let socket = UnixDatagram::bind(OsStr::new(&path))?;
    socket.set_nonblocking(true)?;
    // Who sent a message is known by the kernel's word, not the message's.
    pass_credentials(socket.as_fd())?;
    chmod(run, Path::new(crate::plan::NOTIFY), 0o200)?;
    Ok(socket)
}
