//! What is made on the host for one container, and how it is removed.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::mount::{MntFlags, umount2};

use crate::copy;
use crate::error::{Doing, Error, ErrorKind};
use crate::host::c_path;
use crate::plan::{Attributes, OnHost};
use crate::sys::mount::{FsContext, MountAttr, mount_setattr, move_mount};

/// What was made so far. Dropping it removes it.
#[derive(Debug, Default)]
pub(crate) struct Made(Vec<OnHost>);

impl Made {
    /// Makes everything, in order; what the container writes to belongs to the host's id `owner`.
    pub(crate) fn new(plan: &[OnHost], owner: u32) -> Result<Made, Error> {
        let mut made = Made::default();
        for one in plan {
            make(one, owner)?;
            made.0.push(one.clone());
        }
        Ok(made)
    }

    /// Removes everything, the last first; what could not be removed.
    pub(crate) fn remove(mut self) -> Vec<Error> {
        std::mem::take(&mut self.0).iter().rev().filter_map(|one| remove(one).err()).collect()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for one in self.0.iter().rev() {
            // The caller is already returning the error that matters; `reclaim` gets what stays.
            let _ = remove(one);
        }
    }
}

fn make(one: &OnHost, owner: u32) -> Result<(), Error> {
    let doing = || format!("make the {one}");
    match one {
        // The lock on its name keeps others from making it at the same time.
        OnHost::Root { to, .. } if to.exists() => Ok(()),
        OnHost::Root { from, path, to } => {
            copy::tree(from, path).and_then(|()| fs::rename(path, to).doing(doing)).inspect_err(|_| {
                let _ = fs::remove_dir_all(path);
            })
        }
        OnHost::Temporary { path } => {
            directory(path, 0o700).doing(doing)?;
            directory(&path.join("src"), 0o755).doing(doing).inspect_err(|_| {
                let _ = fs::remove_dir(path);
            })
        }
        OnHost::Work { path } => match directory(path, 0o755) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::new(
                ErrorKind::NotFound,
                format!("cannot make the {one}: the directory that it is to be in does not exist"),
            )),
            result => result.doing(doing),
        },
        OnHost::Propagate { path } => {
            parents(path, 0o600).doing(doing)?;
            // One that is there belongs to no living container of this name, which we have locked.
            match directory(path, 0o600) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                result => result.doing(doing),
            }
        }
        OnHost::UnixExport { path } => {
            parents(path, 0o755).doing(doing)?;
            unmount(path);
            match directory(path, 0o755) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result.doing(doing)?,
            }
            unix_export(path, owner).doing(doing).inspect_err(|_| {
                let _ = fs::remove_dir(path);
            })
        }
    }
}

/// The whole tmpfs is read-only for the host. Mounted first: a detached mount cannot be copied before Linux 6.15.
fn unix_export(path: &Path, owner: u32) -> crate::sys::Result<()> {
    let context = FsContext::open(c"tmpfs")?;
    for (key, value) in [(c"size", c"4M"), (c"nr_inodes", c"64"), (c"mode", c"0755")] {
        context.set(key, Some(value))?;
    }
    if owner != 0 {
        let id = std::ffi::CString::new(owner.to_string()).unwrap_or_default();
        context.set(c"uid", Some(&id))?;
        context.set(c"gid", Some(&id))?;
    }
    let tree = context.mount(UNIX_EXPORT.bits())?;
    move_mount(tree.as_fd(), &c_path(path).unwrap_or_default())
}

/// Makes the host's view read-only, once the container has its own.
pub(crate) fn seal_unix_export(path: &Path) -> Result<(), Error> {
    let doing = || format!("make {} read-only for the host", path.display());
    let tree = fs::File::open(path).doing(doing)?;
    let set = Attributes { read_only: true, ..UNIX_EXPORT }.bits();
    mount_setattr(tree.as_fd(), false, &MountAttr { set, ..MountAttr::default() }).doing(doing)
}

const UNIX_EXPORT: Attributes = Attributes {
    read_only: false,
    no_suid: true,
    no_dev: true,
    no_exec: true,
    no_symlinks: true,
    strict_atime: false,
};

/// Removes what a start has made on the host, or what a killed supervisor had; whether there was anything.
///
/// # Errors
/// When it cannot be removed.
pub fn remove(one: &OnHost) -> Result<bool, Error> {
    let path = one.path();
    if let OnHost::UnixExport { .. } = one {
        unmount(path);
    }
    let result = match one {
        OnHost::UnixExport { .. } => fs::remove_dir(path),
        OnHost::Propagate { .. } => remove_mount_points(path),
        _ => fs::remove_dir_all(path),
    };
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).doing(|| format!("remove the {one}")),
    }
}

/// Removes a directory of mount points, which are empty: into what machined has mounted there for a moment, a directory of
/// the host, nothing may descend. A mount point is EBUSY.
fn remove_mount_points(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let directory = entry.file_type()?.is_dir();
        if directory { fs::remove_dir(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    fs::remove_dir(path)
}

fn unmount(path: &Path) {
    while umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_ok() {}
}

fn directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)
}

/// The directories above, as systemd-nspawn makes them: the last one with `mode`.
fn parents(path: &Path, mode: u32) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    if let Some(above) = parent.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(above)?;
    }
    DirBuilder::new().recursive(true).mode(mode).create(parent)
}
