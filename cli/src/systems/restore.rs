//! Back to a generation with the data that it had.

use std::path::{Path, PathBuf};

use runtime::HostPaths;
use runtime::instance::{self, RootLock};
use serde::{Deserialize, Serialize};

use super::keeping;
use super::profile::{self, Generation};
use super::transition::{Activation, Means};
use super::update::Updated;
use crate::change::{Change, Intent};
use crate::events::{self, Kind};
use crate::ops::{self, Error, Result};
use crate::settings::Settings;
use crate::snapshot::{self, Identity};

/// A return to earlier data as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoring {
    /// The root directory.
    root: PathBuf,
    /// What it was before.
    present: Identity,
    /// The generation that was current, as whose data it is kept.
    from: u64,
    /// The generation to go back to.
    to: u64,
}

impl Restoring {
    /// Completes it, unless the container runs: then it had not been begun.
    ///
    /// # Errors
    /// When a directory cannot be moved.
    pub(crate) fn recover(&self, name: &str, paths: &HostPaths) -> Result<()> {
        if instance::find(paths, name).is_some_and(|found| found.alive) {
            return Ok(());
        }
        let (instance, _) = ops::claim_reclaimed(name, &self.root, RootLock::Exclusive, paths)?;
        let done = self.carry_out(name, paths);
        instance.release();
        done
    }

    fn carry_out(&self, name: &str, paths: &HostPaths) -> Result<()> {
        snapshot::swap(name, &self.root, self.present, self.from, self.to)?;
        profile::switch(name, self.to, paths)
    }
}

/// Takes a container back to a generation and to the data that were kept of it. One that runs is stopped and started.
///
/// # Errors
/// When nothing was kept of it, the container does not end, or its root cannot be moved: all is as it was then. When it
/// does not start with the old data: it has them.
pub(super) fn restore(
    change: &Change<'_>,
    old: Option<Generation>,
    to: Generation,
    settings: &Settings,
    means: &mut Means<'_>,
) -> Result<Updated> {
    let (name, paths) = (change.name(), change.paths());
    let root = keeping::root(name, settings, paths)?;
    let from = old.as_ref().map_or(to.number, |old| old.number);
    check(name, &root, to.number)?;
    let present = snapshot::identity(&root)
        .ok_or_else(|| Error::Other(format!("there is no directory {}", root.display())))?;
    let restoring = Restoring { root: root.clone(), present, from, to: to.number };
    let alive = instance::find(paths, name).is_some_and(|found| found.alive);
    if alive {
        (means.stop)(name)?;
    }
    // Held until all is in its place: nobody starts it meanwhile, which would make an empty root.
    let claimed = ops::claim_reclaimed(name, &root, RootLock::Exclusive, paths);
    let moved = claimed.and_then(|(instance, _)| {
        let moved = change.intend(&Intent::Restore(restoring.clone())).and_then(|()| {
            restoring.carry_out(name, paths).inspect_err(|_| {
                // What could not be begun is over; what has been goes on with the next command.
                if snapshot::identity(&root) == Some(present) {
                    let _ = change.done();
                }
            })
        });
        instance.release();
        moved
    });
    if let Err(error) = moved {
        let back = if alive { (means.restart)(name).err() } else { None };
        let back =
            back.map_or_else(String::new, |back| format!("; it was stopped, and starting it failed: {back}"));
        return Err(Error::Other(format!(
            "the data of container {name} could not be exchanged: {error}{back}"
        )));
    }
    change.done()?;
    events::tell(paths, name, Kind::Updated, to.system.to_str());
    if alive {
        (means.restart)(name).map_err(|error| {
            Error::Other(format!(
                "container {name} has generation {} and its data again, and did not start: {error};                  `nixrun rollback {name} {from} --with-data` goes back to what it had",
                to.number
            ))
        })?;
    }
    Ok(Updated {
        name: name.to_owned(),
        generation: to.number,
        previous: old.map(|old| old.number),
        system: to.system,
        activation: if alive { Activation::Restarted } else { Activation::AtStart },
        kept: Some(from),
        warnings: Vec::new(),
    })
}

fn check(name: &str, root: &Path, generation: u64) -> Result<()> {
    let kept = snapshot::list(name, root);
    if kept.iter().any(|snapshot| snapshot.generation == generation) {
        return Ok(());
    }
    let there: Vec<_> = kept.iter().map(|snapshot| snapshot.generation.to_string()).collect();
    let there = if there.is_empty() {
        "none were kept; `nixrun update --snapshot` keeps them".to_owned()
    } else {
        format!("there are those of {}", there.join(", "))
    };
    Err(Error::Other(format!("no data of generation {generation} of container {name} were kept: {there}")))
}
