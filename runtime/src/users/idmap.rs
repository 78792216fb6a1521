//! Mounts whose ids are mapped (mount_setattr(2), `MOUNT_ATTR_IDMAP`): files of one owner appear as another's.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::child::run;
use crate::child::script::{Op, Script};
use crate::config::BindIds;
use crate::error::{Doing, Error, ErrorKind};
use crate::plan::IdRange;
use crate::sys::SyscallError;
use crate::sys::clone::clone_into;
use crate::sys::mount::{MountAttr, attr, mount_setattr};
use crate::sys::process;

/// `count` ids from `inside` on are those from `outside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) inside: u32,
    pub(crate) outside: u32,
    pub(crate) count: u32,
}

/// What a user namespace, or a mount, makes of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) users: Extent,
    pub(crate) groups: Extent,
}

impl Map {
    /// The container's own.
    pub(crate) fn of(range: IdRange) -> Map {
        let extent = Extent { inside: 0, outside: range.base, count: range.length };
        Map { users: extent, groups: extent }
    }

    /// One user and one group.
    fn one(inside: (u32, u32), outside: (u32, u32)) -> Map {
        let extent = |inside, outside| Extent { inside, outside, count: 1 };
        Map { users: extent(inside.0, outside.0), groups: extent(inside.1, outside.1) }
    }
}

/// Gives the ids to the user namespace that process `pid` was cloned into (user_namespaces(7)).
///
/// # Errors
/// EPERM without CAP_SETUID, CAP_SETGID and CAP_SETFCAP over our own user namespace.
pub(crate) fn write_maps(pid: libc::pid_t, map: Map) -> Result<(), Error> {
    for (file, extent) in [("uid_map", map.users), ("gid_map", map.groups)] {
        let path = format!("/proc/{pid}/{file}");
        let line = format!("{} {} {}\n", extent.inside, extent.outside, extent.count);
        fs::write(&path, &line)
            .doing(|| format!("give the container the ids {} (write {path})", line.trim_end()))?;
    }
    Ok(())
}

/// A user namespace with this map that nobody lives in.
fn namespace(map: Map) -> Result<OwnedFd, Error> {
    let mut script = Script::default();
    script.push(Op::DieWithParent, "tie a process to nixrun");
    script.push(Op::Await, "wait");
    let doing = || "make a user namespace for mapped ids".to_owned();
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).doing(doing)?;
    let ends = [theirs.as_raw_fd(), ours.as_raw_fd()];
    let child = clone_into(libc::CLONE_NEWUSER as u64, None, || run::run(&script, ends)).doing(doing)?;
    let made = write_maps(child.pid, map)
        .and_then(|()| File::open(format!("/proc/{}/ns/user", child.pid)).doing(doing));
    // The end of file ends it.
    drop(ours);
    process::wait(child.pidfd.as_fd()).doing(doing)?;
    Ok(made?.into())
}

/// How far the ids of a tree of mounts could be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extend {
    /// All of it.
    Whole,
    /// The uppermost mount, and not one below it.
    Top,
}

/// Maps the ids of mounts of one container.
#[derive(Debug)]
pub(crate) struct Mapper {
    range: IdRange,
    /// The user namespace for the container's own map.
    own: Option<OwnedFd>,
}

/// A bind mount whose ids are to be mapped, still detached.
pub(crate) struct Bind<'b> {
    pub(crate) tree: BorrowedFd<'b>,
    pub(crate) source: &'b Path,
    pub(crate) target: &'b Path,
    pub(crate) recursive: bool,
}

impl Mapper {
    pub(crate) fn new(range: IdRange) -> Mapper {
        Mapper { range, own: None }
    }

    /// Maps a detached tree as the container's ids are.
    ///
    /// # Errors
    /// The outer one when there can be no user namespace, the inner one when not even the uppermost mount can be mapped.
    pub(crate) fn map(
        &mut self,
        tree: BorrowedFd<'_>,
        recursive: bool,
    ) -> Result<Result<Extend, SyscallError>, Error> {
        let own = match &self.own {
            Some(own) => own,
            None => self.own.insert(namespace(Map::of(self.range))?),
        };
        Ok(set(tree, recursive, own.as_fd()))
    }

    /// Maps a bind mount as was asked for; what to tell the user when not all of it could be. `owner` finds the owner
    /// of the mount point, in ids of the host.
    ///
    /// # Errors
    /// When the file system cannot do what was asked for.
    pub(crate) fn bind(
        &mut self,
        ids: BindIds,
        bind: &Bind<'_>,
        owner: impl FnOnce() -> Result<(u32, u32), Error>,
    ) -> Result<Option<String>, Error> {
        let root = (self.range.base, self.range.base);
        let result = match ids {
            BindIds::Host => return Ok(None),
            // They are the same.
            BindIds::Auto | BindIds::Map if self.range.base == 0 => return Ok(None),
            BindIds::Auto | BindIds::Map => self.map(bind.tree, bind.recursive)?,
            BindIds::Root => self.one(bind, root)?,
            BindIds::Owner => self.one(bind, owner()?)?,
        };
        match result {
            Ok(Extend::Whole) => Ok(None),
            Ok(Extend::Top) => Ok(Some(format!(
                "the owners of files on {} are right, those on mounts below it appear as nobody: the file system of one \
                 cannot map ids",
                bind.target.display()
            ))),
            Err(_) if ids == BindIds::Auto => Ok(Some(format!(
                "all files on {} belong to nobody in the container: {}, which is mounted there, is on {}",
                bind.target.display(),
                bind.source.display(),
                incapable(bind.tree)
            ))),
            Err(error) => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "cannot map the ids of {} for the bind mount on {}: it is on {}: {error}",
                    bind.source.display(),
                    bind.target.display(),
                    incapable(bind.tree)
                ),
            )
            .hint("leave the mapping out for this mount, or move its source to another file system")),
        }
    }

    /// Maps the owner of the source alone.
    fn one(&self, bind: &Bind<'_>, outside: (u32, u32)) -> Result<Result<Extend, SyscallError>, Error> {
        if !self.range.contains(outside.0) || !self.range.contains(outside.1) {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "the owner of {} cannot be the owner of {} in the container, which has no user {} or no group {} of \
                     the host",
                    bind.source.display(),
                    bind.target.display(),
                    outside.0,
                    outside.1
                ),
            ));
        }
        let found =
            nix::sys::stat::fstat(bind.tree).doing(|| format!("look at {}", bind.source.display()))?;
        let namespace = namespace(Map::one((found.st_uid, found.st_gid), outside))?;
        Ok(set(bind.tree, bind.recursive, namespace.as_fd()))
    }
}

fn set(tree: BorrowedFd<'_>, recursive: bool, namespace: BorrowedFd<'_>) -> Result<Extend, SyscallError> {
    let change =
        MountAttr { set: attr::IDMAP, userns_fd: namespace.as_raw_fd() as u64, ..MountAttr::default() };
    match mount_setattr(tree, recursive, &change) {
        Ok(()) => Ok(Extend::Whole),
        // All or nothing: one mount that cannot be mapped is enough. It is EPERM for one that is mapped already.
        Err(_) if recursive => mount_setattr(tree, false, &change).map(|()| Extend::Top),
        Err(error) => Err(error),
    }
}

/// What is known of a file system that refused.
pub(crate) fn incapable(tree: BorrowedFd<'_>) -> String {
    match file_system(tree) {
        Some(fstype) => format!("a file system ({fstype}) that cannot map ids, or has mapped them already"),
        None => "a file system that cannot map ids, or has mapped them already".to_owned(),
    }
}

/// Type of the file system, by the device number of its mounts (proc_pid_mountinfo(5)); some show another one in stat.
fn file_system(tree: BorrowedFd<'_>) -> Option<String> {
    let device = File::from(tree.try_clone_to_owned().ok()?).metadata().ok()?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let text = fs::read_to_string("/proc/thread-self/mountinfo").ok()?;
    text.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let same = before.split(' ').nth(2)? == format!("{major}:{minor}");
        same.then(|| after.split(' ').next().unwrap_or_default().to_owned())
    })
}
