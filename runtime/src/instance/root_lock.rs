//! Locks on roots, the same ones as systemd-nspawn's: neither runs what the other does.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::config::RootOptions;
use crate::error::{Doing, Error, ErrorKind};
use crate::host::HostPaths;
use crate::sys::lock;

/// Where systemd-nspawn locks roots by their inode.
pub(super) const NSPAWN_LOCKS: &str = "/run/systemd/nspawn/locks";

/// How much of its root a container needs for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootLock {
    /// Nothing: it writes to a layer of its own.
    None,
    /// All that nobody else has: who cleans up takes away what a dead container has locked it by.
    IfFree,
    /// That nobody writes to it.
    Shared,
    /// All.
    Exclusive,
}

impl RootLock {
    /// What systemd-nspawn takes for a root that is used like this.
    #[must_use]
    pub fn of(root: &RootOptions) -> RootLock {
        match (root.ephemeral, root.read_only) {
            (true, _) => RootLock::None,
            (false, true) => RootLock::Shared,
            (false, false) => RootLock::Exclusive,
        }
    }
}

/// Takes systemd-nspawn's locks (`image_path_lock`): `.#NAME.lck` beside the root, and one by device and inode, or by the
/// number of a block device, which has none beside it. What was taken before one that could not be is in `held`, too.
pub(super) fn take(
    paths: &HostPaths,
    root: &Path,
    how: RootLock,
    held: &mut Vec<RootLockFile>,
) -> Result<(), Error> {
    // The host's own root is never locked: its users leave it as it is.
    if how == RootLock::None || root == Path::new("/") {
        return Ok(());
    }
    let meta = match fs::symlink_metadata(root) {
        Ok(meta) => Some(meta),
        // A root that is to be made: its name is locked.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).doing(|| format!("look at {}", root.display())),
    };
    let locks = paths.join(NSPAWN_LOCKS);
    let _ = fs::DirBuilder::new().recursive(true).mode(0o755).create(&locks);
    let mut files = Vec::with_capacity(2);
    let by_name = || {
        root.file_name().zip(root.parent()).map(|(name, parent)| {
            let mut file = std::ffi::OsString::from(".#");
            file.push(name);
            file.push(".lck");
            parent.join(file)
        })
    };
    match &meta {
        Some(meta) if meta.file_type().is_block_device() => {
            let (major, minor) = (nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev()));
            files.push(locks.join(format!("block-{major}:{minor}")));
        }
        Some(meta) => {
            files.push(locks.join(format!("inode-{}:{}", meta.dev(), meta.ino())));
            files.extend(by_name());
        }
        None => files.extend(by_name()),
    }
    let shared = how == RootLock::Shared;
    for path in files {
        match lock_file(&path, shared) {
            Ok(Some(file)) => held.push(RootLockFile { path, file }),
            Ok(None) if how == RootLock::IfFree => {}
            Ok(None) => {
                return Err(Error::new(
                    ErrorKind::Busy,
                    format!("the root {} is in use by another container", root.display()),
                )
                .hint("stop the systemd-nspawn or nixrun that runs it; `machinectl list` and `nixrun list` show them"));
            }
            // A read-only place cannot be locked, there as here.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EROFS | libc::EACCES)) => {}
            Err(error) if meta.is_none() && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).doing(|| format!("lock {}", path.display())),
        }
    }
    Ok(())
}

/// A lock on a root.
#[derive(Debug)]
pub(super) struct RootLockFile {
    path: PathBuf,
    file: File,
}

impl RootLockFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file unless somebody else holds the lock, too.
    pub(super) fn remove(&self) {
        if lock::try_lock(&self.file).is_ok() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Takes a lock on a file that its holders remove; `None` when it is held.
pub(crate) fn lock_file(path: &Path, shared: bool) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(path)?;
        match if shared { lock::try_lock_shared(&file) } else { lock::try_lock(&file) } {
            Ok(()) => {}
            Err(error) if matches!(error.errno(), nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
        // A file that was removed between open and lock protects nothing.
        let same = fs::metadata(path).is_ok_and(|now| {
            file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (now.dev(), now.ino()))
        });
        if same {
            return Ok(Some(file));
        }
    }
}
