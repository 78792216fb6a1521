//! The host's ids of a container with a user namespace: found, locked, and given to its files.

pub(crate) mod acl;
pub(crate) mod chown;
pub(crate) mod idmap;
mod pick;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::Ownership;
use crate::error::{Doing, Error, ErrorKind};
use crate::plan::{IdChoice, IdRange, Plan};

pub use pick::{IdLock, unlock_dead};

/// The ids of one container, and the lock on them when they were picked. Dropping it releases the lock.
#[derive(Debug)]
pub struct Users {
    range: IdRange,
    ownership: Ownership,
    _lock: Option<IdLock>,
}

impl Users {
    /// Settles what the plan leaves open; `None` when the container's ids are the host's. `journal` is told the path
    /// of each lock before it is taken, for whoever cleans up when this process is killed.
    ///
    /// # Errors
    /// When the root belongs to no range of ids, or no range is free.
    pub fn choose(
        plan: &Plan,
        mut journal: impl FnMut(&Path) -> Result<(), Error>,
    ) -> Result<Option<Users>, Error> {
        let Some(users) = &plan.users else { return Ok(None) };
        let owner = || Owner::of(plan);
        let (range, lock) = match &users.ids {
            IdChoice::Range(range) => (*range, None),
            IdChoice::OfRoot => (owner()?.range(&plan.rootfs)?, None),
            IdChoice::Pick { candidate, locks, databases } => {
                let present = owner()?.range(&plan.rootfs)?;
                let (range, lock) = pick::pick([present, *candidate], locks, databases, &mut journal)?;
                (range, Some(lock))
            }
        };
        if range.base == chown::BUSY {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "the root directory {} belongs to no container: giving its files to one was interrupted",
                    plan.rootfs.display()
                ),
            )
            .hint("name the range of ids, or have one picked: what was begun is completed then"));
        }
        let ownership = ownership(users.ownership, range, plan)?;
        Ok(Some(Users { range, ownership, _lock: lock }))
    }

    /// The ids.
    #[must_use]
    pub fn range(&self) -> IdRange {
        self.range
    }

    /// How the root's files come to belong to them: `Off`, `Map`, `Chown`, or `Auto` for the one of the latter two that
    /// the file system decides on.
    pub(crate) fn ownership(&self) -> Ownership {
        self.ownership
    }
}

/// What is left to do with a root that is as it is.
fn ownership(asked: Ownership, range: IdRange, plan: &Plan) -> Result<Ownership, Error> {
    if matches!(asked, Ownership::Off | Ownership::Chown) {
        return Ok(asked);
    }
    let owner = Owner::of(plan)?;
    match (asked, owner.uid < IdRange::LENGTH) {
        // Ids that map to themselves.
        (_, true) if range.base == 0 => Ok(Ownership::Off),
        (Ownership::Auto, true) => Ok(Ownership::Auto),
        // Shifted already: by us, or by systemd-nspawn.
        (Ownership::Auto, false) => Ok(Ownership::Chown),
        (_, true) => Ok(Ownership::Map),
        (_, false) => Err(Error::new(
            ErrorKind::Config,
            format!(
                "the ids of the root directory {} cannot be mapped: it belongs to user {}, not to a user below 65536",
                plan.rootfs.display(),
                owner.uid
            ),
        )
        .hint("give its files to root, or leave the choice to `auto` or `chown`")),
    }
}

struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    fn of(plan: &Plan) -> Result<Owner, Error> {
        let root = &plan.rootfs;
        if plan.root.image {
            // Not mounted yet; what is in an image belongs to root, as far as anybody makes them.
            return Ok(Owner { uid: 0, gid: 0 });
        }
        let found = fs::symlink_metadata(root).doing(|| format!("look at {}", root.display()))?;
        Ok(Owner { uid: found.uid(), gid: found.gid() })
    }

    /// The upper half of the ids says whose files they are.
    fn range(&self, root: &Path) -> Result<IdRange, Error> {
        let base = |id: u32| id & !(IdRange::LENGTH - 1);
        if base(self.uid) == base(self.gid) {
            return Ok(IdRange::from(base(self.uid)));
        }
        Err(Error::new(
            ErrorKind::Config,
            format!(
                "the root directory {} belongs to user {} and group {}, which are of different ranges of 65536 ids",
                root.display(),
                self.uid,
                self.gid
            ),
        )
        .hint("give it to a user and a group of one range, or to root"))
    }
}
