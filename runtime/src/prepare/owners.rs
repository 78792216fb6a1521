//! Whose the files of a container with a user namespace are: those of its root and of what is mounted in it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::unistd::UnlinkatFlags;

use super::{Prepared, propagate};
use crate::config::{BindIds, Ownership, RootOptions};
use crate::error::{Doing, Error, ErrorKind};
use crate::host::c_path;
use crate::plan::{IdRange, MountPlan, Source};
use crate::rootfs::Root;
use crate::sys::SyscallError;
use crate::sys::inroot::{self, Make};
use crate::sys::mount::open_tree_clone;
use crate::users::idmap::{Bind, Extend, Mapper, incapable};
use crate::users::{Users, chown};

/// Gives the files of one container to it.
#[derive(Debug)]
pub(super) struct Owners {
    range: IdRange,
    ownership: Ownership,
    mapper: Mapper,
    /// The root with its ids mapped, until it is used.
    pub(super) mapped_root: Option<OwnedFd>,
    /// Whether the root has its ids mapped.
    pub(super) is_mapped: bool,
    /// What could not be as it was asked for, one sentence each.
    pub(super) notes: Vec<String>,
}

impl Owners {
    pub(super) fn new(users: &Users) -> Owners {
        let range = users.range();
        Owners {
            range,
            ownership: users.ownership(),
            mapper: Mapper::new(range),
            mapped_root: None,
            is_mapped: false,
            notes: Vec::new(),
        }
    }

    /// Makes the root the container's own. One in which no change is kept is not given away: its ids are mapped or it
    /// is refused. An image, too; and it is mapped later, since a detached mount is not to be copied.
    pub(super) fn own_root(&mut self, root: &mut Root, options: &RootOptions) -> Result<(), Error> {
        let keep = !options.ephemeral && !options.image;
        let give = match self.ownership {
            Ownership::Off => return self.make_in(root),
            Ownership::Map => false,
            Ownership::Chown if keep || root_belongs_to(root, self.range)? => {
                chown::give(root, self.range)?;
                return self.make_in(root);
            }
            Ownership::Chown | Ownership::Auto => keep,
        };
        if options.image {
            self.is_mapped = true;
            return Ok(());
        }
        let doing = || format!("map the ids of the root {}", root.path().display());
        let tree = root_tree(root).doing(doing)?;
        match self.mapper.map(tree.as_fd(), true)? {
            Ok(extend) => {
                if extend == Extend::Top {
                    let note = "files on mounts inside the root belong to nobody in the container: the file system of \
                                one cannot map ids";
                    self.notes.push(note.to_owned());
                }
                self.is_mapped = true;
                self.mapped_root = Some(tree);
                Ok(())
            }
            Err(_) if give => {
                chown::give(root, self.range)?;
                self.make_in(root)
            }
            Err(error) => Err(refused(root, tree.as_fd(), &error)),
        }
    }

    /// Maps the ids of a file system of an image.
    pub(super) fn own_image(&mut self, root: &Root, tree: BorrowedFd<'_>) -> Result<(), Error> {
        if !self.is_mapped {
            return Ok(());
        }
        self.mapper.map(tree, false)?.map(drop).map_err(|error| refused(root, tree, &error))
    }

    /// What we make in a root without a map is given to the container as well.
    fn make_in(&self, root: &mut Root) -> Result<(), Error> {
        if self.range.base != 0 {
            root.make_as(self.range.base);
        }
        Ok(())
    }

    /// Maps the ids of a bind mount of the host. `trees` are those of the mounts before it.
    pub(super) fn own_bind(
        &mut self,
        mount: &MountPlan,
        tree: BorrowedFd<'_>,
        mounts: &[MountPlan],
        trees: &[Option<OwnedFd>],
    ) -> Result<(), Error> {
        let Source::HostPath { path, recursive, .. } = &mount.source else { return Ok(()) };
        let bind = Bind { tree, source: path, target: &mount.target, recursive: *recursive };
        let ids = mount.ids.unwrap_or(BindIds::Auto);
        let base = self.range.base;
        let owner = || Ok(owner_of(&mount.target, mounts, trees)?.unwrap_or((base, base)));
        let note = self.mapper.bind(ids, &bind, owner)?;
        self.notes.extend(note);
        Ok(())
    }

    /// Maps the ids of an overlay's layer that is on the host.
    pub(super) fn own_layer(
        &mut self,
        tree: BorrowedFd<'_>,
        source: &Path,
        mount: &MountPlan,
    ) -> Result<(), Error> {
        let bind = Bind { tree, source, target: &mount.target, recursive: false };
        let root = (self.range.base, self.range.base);
        let note = self.mapper.bind(BindIds::Auto, &bind, || Ok(root))?;
        self.notes.extend(note);
        Ok(())
    }
}

impl Prepared {
    /// Maps the ids of an image's other partitions.
    pub(super) fn own_parts(&mut self) -> Result<(), Error> {
        let Some(owners) = &mut self.owners else { return Ok(()) };
        self.trees.parts.iter().try_for_each(|(_, tree)| owners.own_image(&self.root, tree.as_fd()))
    }

    /// Removes the mount points of what only the kernel needed to see, by way of our own tree, since the container's is
    /// read-only.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn remove_places(&self) -> Result<(), Error> {
        let run = self.plan.mounts.iter().position(|mount| mount.target == Path::new("/run"));
        let Some(Some(run)) = run.and_then(|at| self.trees.mounts.get(at)) else { return Ok(()) };
        for mount in self.plan.mounts.iter().filter(|mount| matches!(mount.source, Source::Visible(_))) {
            let place = mount.target.strip_prefix("/run").unwrap_or(&mount.target);
            nix::unistd::unlinkat(run, place, UnlinkatFlags::RemoveDir)
                .doing(|| format!("remove {}", mount.target.display()))?;
        }
        Ok(())
    }

    /// A copy of the root with everything below it, its ids mapped where they are to be.
    pub(super) fn root_tree(&mut self) -> Result<OwnedFd, Error> {
        let doing = || "copy the mount of the root".to_owned();
        if self.plan.root.image && self.former.is_none() {
            // Mounted for this container alone, and not to be copied before it is attached.
            let tree = self.root.as_fd().try_clone_to_owned().doing(doing)?;
            if let Some(owners) = &mut self.owners {
                owners.own_image(&self.root, tree.as_fd())?;
            }
            return Ok(tree);
        }
        let mapped = self.owners.as_mut().and_then(|owners| owners.mapped_root.take());
        mapped.map_or_else(|| root_tree(&self.root).doing(doing), Ok)
    }
}

/// A copy of the root with everything below it.
fn root_tree(root: &Root) -> crate::sys::Result<OwnedFd> {
    let tree = open_tree_clone(root.as_fd(), c"", true)?;
    // A copy of a shared mount stays in the host's peer group until it is told not to.
    propagate(tree.as_fd(), libc::MS_PRIVATE, 0)?;
    Ok(tree)
}

fn refused(root: &Root, tree: BorrowedFd<'_>, error: &SyscallError) -> Error {
    let (path, why) = (root.path().display(), incapable(tree));
    Error::new(
        ErrorKind::Unsupported,
        format!("cannot map the ids of the root {path}: it is on {why}: {error}"),
    )
    .hint("give its files to the container's ids instead (`chown`), or move it")
}

fn root_belongs_to(root: &Root, range: IdRange) -> Result<bool, Error> {
    let found = nix::sys::stat::fstat(root).doing(|| format!("look at {}", root.path().display()))?;
    Ok(range.contains(found.st_uid) && range.contains(found.st_gid))
}

/// The owner of a mount point as the host sees it through the mount that it is on; `None` when it is missing.
fn owner_of(
    target: &Path,
    mounts: &[MountPlan],
    trees: &[Option<OwnedFd>],
) -> Result<Option<(u32, u32)>, Error> {
    let on = mounts.iter().zip(trees).rev().find_map(|(mount, tree)| {
        let below = target.strip_prefix(&mount.target).ok()?;
        Some((tree.as_ref()?, below))
    });
    let Some((tree, below)) = on else { return Ok(None) };
    let path = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let Ok(found) =
        inroot::open(tree.as_raw_fd(), &c_path(path)?, libc::O_PATH, Make::Nothing, true).map(inroot::owned)
    else {
        return Ok(None);
    };
    let found =
        nix::sys::stat::fstat(&found).doing(|| format!("look at the owner of {}", target.display()))?;
    Ok(Some((found.st_uid, found.st_gid)))
}
