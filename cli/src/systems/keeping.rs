//! The data of a container kept before it gets another system. One that runs stands still meanwhile: what is kept is what
//! its programs would find after a power failure, and databases are made for that.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use runtime::{HostPaths, instance};

use super::transition::{Means, Pending};
use crate::change::{Change, Intent};
use crate::live::freezer;
use crate::ops::{Error, Result};
use crate::settings::Settings;
use crate::{nixos_boot, snapshot};

/// How often is said how much has been copied.
const SAY: Duration = Duration::from_secs(1);

/// Keeps the root directory as the data of this generation, whose number is returned.
///
/// # Errors
/// When it cannot be kept; nothing has been changed then, and the container goes on.
pub(super) fn keep(
    change: &Change<'_>,
    generation: u64,
    settings: &Settings,
    means: &mut Means<'_>,
) -> Result<u64> {
    let (name, paths) = (change.name(), change.paths());
    let root = root(name, settings, paths)?;
    let signals = (means.signals)()?;
    let group = instance::find(paths, name).filter(|found| found.alive).and_then(|found| found.state);
    let group = group.map(|state| state.cgroup).filter(|group| !freezer::is_paused(group));
    let begun = Pending::begun(name, paths)?;
    let pending = Pending { keeping: Some(root.clone()), frozen: group.clone(), ..begun.clone() };
    change.intend(&Intent::Update(pending))?;
    let standing = group.map(|group| Standing::new(name, group, paths)).transpose();
    let kept = standing.and_then(|standing| {
        let kept = copy(name, &root, generation, &signals, means);
        drop(standing);
        kept
    });
    change.intend(&Intent::Update(begun))?;
    kept.map(|()| generation)
}

fn copy(
    name: &str,
    root: &std::path::Path,
    generation: u64,
    signals: &SignalFd,
    means: &mut Means<'_>,
) -> Result<()> {
    let mut said = Instant::now();
    let mut watch = |bytes: u64| {
        if said.elapsed() >= SAY {
            said = Instant::now();
            (means.progress)(&format!("keeping the data of container {name}: {} MiB copied", bytes >> 20));
        }
        !matches!(signals.read_signal(), Ok(Some(_)))
    };
    snapshot::keep(name, root, generation, &mut watch).map(drop)
}

/// A container that stands still until this is dropped.
struct Standing(PathBuf);

impl Standing {
    fn new(name: &str, group: PathBuf, paths: &HostPaths) -> Result<Standing> {
        let standing = Standing(group);
        freezer::pause(name, paths)?;
        Ok(standing)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let _ = freezer::thaw(&self.0);
    }
}

/// The root directory of a container, if it has one that can be kept.
pub(super) fn root(name: &str, settings: &Settings, paths: &HostPaths) -> Result<PathBuf> {
    let document = &settings.document;
    let not = |why: &str| Err(Error::Other(format!("the data of container {name} cannot be kept: {why}")));
    if document.ephemeral == Some(true) {
        return not("it is ephemeral, and has none");
    }
    if document.image == Some(true) {
        return not("its root is an image; copy that while it does not run");
    }
    let root = nixos_boot::root_directory(name, settings, paths)?;
    if snapshot::identity(&root).is_none() {
        return not(&format!("there is no directory {}", root.display()));
    }
    Ok(root)
}
