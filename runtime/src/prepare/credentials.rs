//! The credentials' own file system: ramfs, which is never written to swap, read-only itself as well as its mount.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod};

use crate::config::Credential;
use crate::error::{Doing, Error};
use crate::sys::mount::FsContext;

/// A detached mount with a file for each; `readable` says that everybody may read them.
pub(super) fn create(
    credentials: &[Credential],
    readable: bool,
    attributes: u64,
    owner: u32,
) -> Result<OwnedFd, Error> {
    let doing = || "prepare the container's credentials".to_owned();
    let context = FsContext::open(c"ramfs").doing(doing)?;
    context.set(c"mode", Some(if readable { c"0555" } else { c"0500" })).doing(doing)?;
    let tree = context.create(attributes & !crate::sys::mount::attr::RDONLY).doing(doing)?;
    for credential in credentials {
        write(tree.as_fd(), credential, readable)
            .and_then(|()| super::tmpfs::give(tree.as_fd(), Path::new(&credential.id), owner))
            .doing(|| format!("write the container's credential {}", credential.id))?;
    }
    super::tmpfs::give(tree.as_fd(), Path::new("."), owner).doing(doing)?;
    context.make_read_only().doing(doing)?;
    super::set_attributes(tree.as_fd(), attributes).doing(doing)?;
    Ok(tree)
}

fn write(tree: BorrowedFd<'_>, credential: &Credential, readable: bool) -> std::io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let path = Path::new(&credential.id);
    let mut file = File::from(nix::fcntl::openat(tree, path, flags, Mode::from_bits_truncate(0o600))?);
    file.write_all(&credential.value)?;
    Ok(fchmod(&file, Mode::from_bits_truncate(if readable { 0o444 } else { 0o400 }))?)
}
