//! The layers of overlays, as detached copies that the script stages: a layer must be mounted where the overlay is
//! made, and a descriptor leads to it whatever its path is made of.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat};
use nix::unistd::{Gid, Uid};

use super::{Prepared, host_tree, tmpfs};
use crate::error::{Doing, Error, ErrorKind};
use crate::plan::{Layer, MountPlan, TmpfsOptions, UpperLayer};

/// The writable layer of a root, and the kernel's directory beside it.
pub(super) const UPPER: &CStr = c"upper";
pub(super) const WORK: &CStr = c"work";

impl Prepared {
    /// The tmpfs that takes what is written to the root.
    pub(super) fn root_overlay(&self, options: &TmpfsOptions) -> Result<OwnedFd, Error> {
        let doing = || "make the tmpfs over the root directory".to_owned();
        let tree = tmpfs::create(options, 0, self.owner()).doing(doing)?;
        for name in [UPPER, WORK] {
            nix::sys::stat::mkdirat(&tree, name, Mode::S_IRWXU).doing(doing)?;
        }
        // The upper layer's directory is what one sees of /: whose that is behind its map. What belongs to nobody there, in
        // an image of anybody's, is root's.
        let base = self.trees.base.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
        let stat = fstat(base).doing(doing)?;
        let range = self.users().filter(|_| self.owners.as_ref().is_some_and(|owners| owners.is_mapped));
        let seen = |id: u32| range.filter(|range| !range.contains(id)).map_or(id, |range| range.base);
        let owner = (Some(Uid::from_raw(seen(stat.st_uid))), Some(Gid::from_raw(seen(stat.st_gid))));
        nix::unistd::fchownat(&tree, UPPER, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW).doing(doing)?;
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
        fchmodat(&tree, UPPER, mode, FchmodatFlags::FollowSymlink).doing(doing)?;
        let upper = crate::sys::fd::openat2(tree.as_fd(), UPPER, libc::O_PATH, 0, 0).doing(doing)?;
        self.base(upper.as_fd(), self.root.as_fd(), Some(self.owner()))?;
        Ok(tree)
    }

    pub(super) fn stage_layer(&mut self, layer: &Layer, mount: &MountPlan) -> Result<(), Error> {
        if let Layer::Host(path) = layer {
            check_directory(path, mount)?;
            let tree = host_tree(path, mount, false, libc::MS_PRIVATE, 0)?;
            self.stage(tree, path, mount)?;
        }
        Ok(())
    }

    /// As what is on the layer appears on the overlay.
    fn stage(&mut self, tree: OwnedFd, source: &Path, mount: &MountPlan) -> Result<(), Error> {
        if let Some(owners) = &mut self.owners {
            owners.own_layer(tree.as_fd(), source, mount)?;
        }
        self.trees.layers.push(tree);
        Ok(())
    }

    /// The directory above, since the kernel wants the two on one mount.
    pub(super) fn stage_upper(&mut self, upper: &UpperLayer, mount: &MountPlan) -> Result<(), Error> {
        let Layer::Host(path) = &upper.layer else { return Ok(()) };
        check_directory(path, mount)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let device = |path: &Path| nix::sys::stat::stat(path).map(|stat| stat.st_dev);
        if device(path) != device(parent) {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "cannot mount an overlay on {}: its upper directory {} is a mount point, and the kernel needs a \
                     directory beside it on the same mount",
                    mount.target.display(),
                    path.display()
                ),
            )
            .hint("name a directory on that mount"));
        }
        let tree = host_tree(parent, mount, false, libc::MS_PRIVATE, 0)?;
        self.stage(tree, path, mount)
    }
}

fn check_directory(path: &Path, mount: &MountPlan) -> Result<(), Error> {
    let (kind, why) = match path.metadata() {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => (ErrorKind::Config, "is not a directory".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            (ErrorKind::NotFound, "does not exist".to_owned())
        }
        Err(error) => (ErrorKind::System, format!("cannot be looked at: {error}")),
    };
    let (target, path) = (mount.target.display(), path.display());
    Err(Error::new(kind, format!("cannot mount an overlay on {target}: its directory {path} {why}")))
}
