//! The end of a container: all that is its own goes, and nothing else.

use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use runtime::HostPaths;
use runtime::instance::{self, Instance, RootLock};
use serde::{Deserialize, Serialize};

use super::{places, remove};
use crate::change::{Change, Intent};
use crate::configured::{self, Files};
use crate::ops::{self, Error, Result};
use crate::{events, files, json, service, systems};

/// How often a container is ended that somebody starts again.
const TRIES: usize = 3;

/// A container that can be destroyed, as it is before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// Its name.
    pub name: String,
    /// Host path of its root directory, which goes.
    pub root: PathBuf,
    /// Host path of a root at another place, which somebody has chosen and which stays.
    pub stays: Option<PathBuf>,
    /// Whether it runs.
    pub running: bool,
    destruction: Destruction,
}

/// What was destroyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destroyed {
    /// Where something was mounted in the root, whose data is as it was.
    pub detached: Vec<PathBuf>,
}

/// All that recovery must know of a container that is being destroyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destruction {
    /// Its root directory.
    root: PathBuf,
    /// Its files in /etc, in the order in which they go.
    files: Vec<PathBuf>,
    /// What the root is locked by.
    locks: Vec<PathBuf>,
}

/// Looks whether a container can be destroyed, and what of it.
///
/// # Errors
/// When there is none of this name, or the host's NixOS configuration declares it.
pub fn doomed(name: &str, paths: &HostPaths) -> Result<Doomed> {
    let Files { conf, json } = configured::find(name, paths)?;
    for file in conf.iter().chain(&json) {
        if is_declarative(file) {
            return Err(Error::Other(format!(
                "cannot destroy container {name}: {} is not ours to remove, the host's own configuration declares it; \
                 remove it from your configuration.nix instead",
                file.display()
            )));
        }
    }
    let old =
        conf.as_ref().and_then(|file| file.parent()?.file_name()).is_some_and(|dir| dir == "containers");
    let parent = if old { "/var/lib/containers" } else { "/var/lib/nixos-containers" };
    let root = paths.join(parent).join(name);
    // A file that cannot be read must not keep its container alive.
    let document = json.as_ref().and_then(|file| json::read(file).ok().flatten()).map(|json| json.document);
    let said = document.and_then(|document| document.root).map(|said| paths.join(said.0));
    Ok(Doomed {
        name: name.to_owned(),
        stays: said.filter(|said| *said != root),
        running: instance::find(paths, name).is_some_and(|found| found.alive),
        destruction: Destruction {
            root: root.clone(),
            files: json.into_iter().chain(conf).collect(),
            locks: Vec::new(),
        },
        root,
    })
}

/// NixOS puts a link into the store there, or a file that nobody can write to.
pub(crate) fn is_declarative(file: &Path) -> bool {
    file.is_symlink() || access(file, AccessFlags::W_OK).is_err()
}

/// Destroys a container. One that runs is ended at once first.
///
/// # Errors
/// As of [`doomed`]; when it does not end; and when something cannot be removed, which the next command on it tries
/// again.
pub fn destroy(name: &str, paths: &HostPaths) -> Result<Destroyed> {
    // Before the lock, which makes directories for any name.
    doomed(name, paths)?;
    let change = Change::begin(name, "destroy", paths)?;
    let doomed = doomed(name, paths)?;
    // Held to the end: nobody starts it meanwhile.
    let instance = ended(name, &doomed.root, paths)?;
    let destruction = Destruction { locks: instance.root_locks(), ..doomed.destruction };
    let intended = change.intend(&Intent::Destroy(destruction.clone()));
    let result = intended.and_then(|()| carry_out(name, &destruction, paths));
    instance.release();
    let detached = result?;
    change.done()?;
    events::tell(paths, name, events::Kind::Destroyed, None);
    Ok(Destroyed { detached })
}

fn ended(name: &str, root: &Path, paths: &HostPaths) -> Result<Instance> {
    for _ in 0..TRIES {
        if instance::find(paths, name).is_some_and(|found| found.alive) {
            // By its unit, if it has one, which would start it again.
            service::terminate(name, paths)?;
        }
        match ops::claim_reclaimed(name, root, RootLock::Exclusive, paths) {
            Err(_) if instance::find(paths, name).is_some_and(|found| found.alive) => {}
            claimed => return claimed.map(|(instance, _)| instance),
        }
    }
    Err(Error::Other(format!(
        "cannot destroy container {name}: it is started again whenever it is ended; stop what starts it, such as the \
         unit container@{name}.service"
    )))
}

/// Every step may have been done before.
fn carry_out(name: &str, destruction: &Destruction, paths: &HostPaths) -> Result<Vec<PathBuf>> {
    systems::remove_all(name, paths)?;
    let detached = remove::tree(&destruction.root).map_err(|error| Error::Other(error.to_string()))?;
    let log_directory = paths.join("/var/log/nixrun");
    let logs = [format!("{name}.log"), format!("{name}.log.1")].map(|log| log_directory.join(log));
    // Last the one by which the container is known.
    for file in logs.iter().chain(&destruction.files) {
        files::sweep(file);
        files::remove(file)
            .map_err(|error| Error::Other(format!("cannot remove {}: {error}", file.display())))?;
    }
    let _ = std::fs::remove_dir(log_directory);
    places::Places::of(name, paths).tidy();
    Ok(detached)
}

/// Completes what was interrupted.
pub(crate) fn recover(name: &str, destruction: &Destruction, paths: &HostPaths) -> Result<()> {
    let (instance, _) = ops::claim_reclaimed(name, &destruction.root, RootLock::Exclusive, paths)?;
    let done = carry_out(name, destruction, paths);
    // Of whoever was interrupted.
    let unlocked = destruction.locks.iter().try_for_each(|lock| runtime::unlock_dead(lock).map(|_| ()));
    instance.release();
    done?;
    Ok(unlocked?)
}
