//! Links of the host that move into a container, and back when it ends.
//!
//! A network namespace that dies takes virtual links along, and drops hardware into the first namespace under
//! whatever name it has by then. So ours is kept alive by a bind mount, below `.netns` in the state directory, until the
//! links are back: after a crash, too, as long as the mount is there.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Errors, LinkRole, Result};
use crate::facts::NetPaths;
use crate::netns;
use crate::plan::{Mac, NetworkPlan, inside_name};
use crate::route::link::{self, LinkFact};
use crate::shared::Registration;
use crate::socket::{Batch, Route, Socket};

/// The kernel chooses a free number, as it does itself when a namespace dies.
const ANY_NAME: &str = "dev%d";

/// A link of the host, as it was before it moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moved {
    name: String,
    altnames: Vec<String>,
    index: u32,
    kind: Option<String>,
    mac: Option<Mac>,
    /// Its name in the container.
    inside: String,
}

impl Moved {
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        [self.name.clone()].into_iter().chain(self.altnames.iter().cloned())
    }

    /// The link among those of a namespace. The container's root may have renamed it or changed its MAC address, and
    /// its index is another one where the namespace had that already.
    fn find<'a>(&self, links: &'a [LinkFact]) -> Option<&'a LinkFact> {
        let likeness = |link: &LinkFact| {
            let mac = link.mac.is_some() && link.mac == self.mac;
            u8::from(link.name == self.inside) + u8::from(link.index == self.index) + u8::from(mac)
        };
        let same_kind = links.iter().filter(|link| link.kind == self.kind && link.name != "lo");
        same_kind.filter(|link| likeness(link) > 0).max_by_key(|link| likeness(link))
    }
}

/// What must be registered before the links move.
pub(crate) fn look_up(plan: &NetworkPlan, host: &mut Socket<Route>) -> Result<Vec<Moved>> {
    let look_up = |moved: &crate::plan::MovedLinkPlan| {
        let Some(link) = host.link_by_name(&moved.host_link)? else {
            return Err(Error::NoSuchLink {
                container: plan.container.clone(),
                role: LinkRole::Moved,
                link: moved.host_link.clone(),
                problem: "does not exist on the host".into(),
            });
        };
        let inside = inside_name(&moved.container_link, &link).to_owned();
        let LinkFact { index, name, altnames, kind, mac, .. } = link;
        Ok(Moved { name, altnames, index, kind, mac, inside })
    };
    plan.moved.iter().map(look_up).collect()
}

/// Moves registered links into the namespace, which is kept alive from here on. They come first: in an empty namespace
/// no name is taken.
pub(crate) fn move_in(
    paths: &NetPaths,
    registration: &Registration,
    host: &mut Socket<Route>,
    netns: BorrowedFd<'_>,
) -> Result<()> {
    pin(paths, &registration.container, netns)?;
    let mut batch = Batch::new();
    for moved in &registration.moved {
        let link = LinkFact { index: moved.index, name: moved.name.clone(), ..LinkFact::default() };
        let rename = Some(moved.inside.as_str()).filter(|inside| *inside != moved.name);
        link::move_to(&mut batch, &link, rename, netns, "into the container");
    }
    host.transact(batch, |_| {})
}

/// Moves a container's links back to the host, in reverse order, so that each finds its old name free. What cannot be
/// done and can be tried again is an error; what is gone is lost.
pub(crate) fn bring_back(
    paths: &NetPaths,
    registration: &Registration,
    errors: &mut Errors,
    lost: &mut Errors,
) {
    if registration.moved.is_empty() {
        return;
    }
    let own = File::open("/proc/thread-self/ns/net").map_err(Error::io("open our own network namespace"));
    let host = Socket::<Route>::open();
    let (Some(own), Some(mut host)) = (errors.note(own), errors.note(host)) else { return };
    // Without the mount, or with a plain file in its place, the namespace is gone.
    let pinned = File::open(pin_path(paths, &registration.container)).ok();
    let mut inside = pinned.and_then(|netns| netns::open_inside::<Route>(netns.as_fd()).ok());
    for moved in registration.moved.iter().rev() {
        let back = one_back(moved, &mut host, inside.as_mut(), own.as_fd());
        match back {
            Ok(None) => {}
            Ok(Some(problem)) => {
                let (container, link) = (registration.container.clone(), moved.name.clone());
                lost.note::<()>(Err(Error::LinkLost { container, link, problem }));
            }
            Err(error) => {
                errors.note::<()>(Err(error));
            }
        }
    }
    if errors.is_empty() {
        errors.note(unpin(paths, &registration.container));
    }
}

/// What is wrong with the link now, if something is.
fn one_back(
    moved: &Moved,
    host: &mut Socket<Route>,
    inside: Option<&mut Socket<Route>>,
    own: BorrowedFd<'_>,
) -> Result<Option<String>> {
    if let Some(inside) = inside
        && let Some(link) = moved.find(&inside.links()?)
    {
        return move_back(moved, link, host, inside, own);
    }
    // It never went, or the kernel dropped it here when the namespace died.
    if host.link_by_name(&moved.name)?.is_some() {
        return Ok(None);
    }
    let dropped = host.link_by_index(moved.index)?;
    let dropped = dropped.filter(|link| link.kind == moved.kind && link.mac == moved.mac);
    let Some(link) = dropped else {
        return Ok(Some("it is gone with the container's network namespace, or was deleted in it".into()));
    };
    let mut batch = Batch::new();
    link::rename(&mut batch, &link, &moved.name);
    host.transact(batch, |_| {}).map(|()| None)
}

fn move_back(
    moved: &Moved,
    link: &LinkFact,
    host: &mut Socket<Route>,
    inside: &mut Socket<Route>,
    own: BorrowedFd<'_>,
) -> Result<Option<String>> {
    let mut attempt = |rename: Option<&str>| {
        let mut batch = Batch::new();
        link::move_to(&mut batch, link, rename, own, "back to the host");
        inside.transact(batch, |_| {})
    };
    let rename = Some(moved.name.as_str()).filter(|name| *name != link.name);
    match attempt(rename) {
        Err(error) if error.errno() == Some(Errno::EEXIST) => {}
        done => return done.map(|()| None),
    }
    // Somebody has taken its name meanwhile. The kernel moves first and renames then, so it may be here already.
    let here = |link: &LinkFact| link.kind == moved.kind && link.mac == moved.mac;
    if !inside.links()?.iter().any(|other| other.index == link.index) {
        let name = host.links()?.into_iter().find(here).map(|link| link.name);
        return Ok(Some(renamed(moved, name)));
    }
    let mut batch = Batch::new();
    link::move_to(&mut batch, link, Some(ANY_NAME), own, "back to the host");
    inside.transact(batch, |_| {})?;
    let name = host.links()?.into_iter().find(here).map(|link| link.name);
    Ok(Some(renamed(moved, name)))
}

fn renamed(moved: &Moved, name: Option<String>) -> String {
    let name = name.unwrap_or_else(|| "something else".into());
    format!(
        "its name is taken by another link, so it is called {name} now; `ip link set {name} name {}` once that is free",
        moved.name
    )
}

fn pin_path(paths: &NetPaths, container: &str) -> PathBuf {
    paths.state_dir.join(".netns").join(container)
}

/// Keeps the namespace alive by a bind mount.
fn pin(paths: &NetPaths, container: &str, netns: BorrowedFd<'_>) -> Result<()> {
    let path = pin_path(paths, container);
    unpin(paths, container)?;
    let make = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        File::create(&path)
    };
    make().map_err(Error::io(format!("create {}", path.display())))?;
    let source = format!("/proc/self/fd/{}", netns.as_raw_fd());
    let none: Option<&str> = None;
    let mounted = mount(Some(source.as_str()), &path, none, MsFlags::MS_BIND, none);
    mounted.map_err(Error::sys(format!("mount the container's network namespace on {}", path.display())))
}

fn unpin(paths: &NetPaths, container: &str) -> Result<()> {
    let path = pin_path(paths, container);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // No mount, or nothing there.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(Error::sys(format!("unmount {}", path.display()))(errno)),
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(Error::io(format!("remove {}", path.display())))?,
    }
    // Others may have theirs in it.
    let _ = path.parent().map(fs::remove_dir);
    Ok(())
}
