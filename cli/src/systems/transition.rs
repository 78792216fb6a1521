//! From one generation to another: the profile first, then what runs. A generation that cannot be activated leaves the one
//! before it, current and running.

use std::path::{Path, PathBuf};

use nix::sys::signalfd::SignalFd;
use runtime::HostPaths;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::activate::{Live, activate};
use super::profile::{self, Generation};
use super::{Progress, build};
use crate::change::{Change, Intent};
use crate::live::freezer;
use crate::ops::{Error, Result};
use crate::snapshot;

/// What an operation on a container's system works with, besides the host.
pub struct Means<'a> {
    /// Hears what Nix and the container say of the work, line by line.
    pub progress: Progress<'a>,
    /// Takes over the signals that are to end the work once there is something to be undone.
    pub signals: &'a dyn Fn() -> Result<SignalFd>,
    /// Shuts the container of this name down.
    pub stop: &'a dyn Fn(&str) -> Result<()>,
    /// Stops the container of this name if it runs, and starts it.
    pub restart: &'a dyn Fn(&str) -> Result<()>,
}

/// How a system came into effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// The container runs it already.
    Unchanged,
    /// It was activated in the running container.
    Activated,
    /// The container was restarted.
    Restarted,
    /// The container does not run: it starts with it.
    AtStart,
    /// It takes effect when the container is restarted.
    AtRestart,
}

/// A change of systems as it is written down: what was there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The generation that was current.
    pub generation: Option<u64>,
    /// The system that ran.
    pub running: Option<PathBuf>,
    /// The root that was being kept.
    #[serde(default)]
    pub keeping: Option<PathBuf>,
    /// The control group that stood still for it.
    #[serde(default)]
    pub frozen: Option<PathBuf>,
}

impl Pending {
    /// Of what has changed nothing yet, and may have left something of its work.
    pub(super) fn begun(name: &str, paths: &HostPaths) -> Result<Pending> {
        let current = profile::current(name, paths)?.map(|current| current.number);
        Ok(Pending { generation: current, running: None, keeping: None, frozen: None })
    }

    /// Undoes it: an activation that somebody ended is not tried again, it may be why they did so.
    ///
    /// # Errors
    /// When the profile cannot be written.
    pub(crate) fn recover(&self, name: &str, paths: &HostPaths) -> Result<()> {
        build::forget(name, paths);
        profile::tidy(name, paths)?;
        if let Some(group) = &self.frozen {
            freezer::thaw(group).map_err(|error| {
                Error::Other(format!("cannot have container {name} go on by {}: {error}", group.display()))
            })?;
        }
        if let Some(root) = &self.keeping {
            snapshot::settle(name, root)?;
        }
        let current = profile::current(name, paths)?.map(|generation| generation.number);
        let Some(old) = self.generation.filter(|old| Some(*old) != current) else { return Ok(()) };
        // Before the profile, which tells whether this has been done. What it comes to is the container's affair: its next
        // change, or a restart, puts right what it says no to.
        if let (Some(system), Some(_)) = (&self.running, Live::of(name, paths)) {
            let _ = activate(name, system, None, paths, &mut |_| {});
        }
        profile::switch(name, old, paths)
    }
}

/// Makes `to` the current generation of a container, and its system the one that runs.
///
/// # Errors
/// When that fails: the old generation is the current one then, and the old system was activated again.
pub(super) fn go(
    change: &Change<'_>,
    to: &Generation,
    restart: bool,
    means: &mut Means<'_>,
) -> Result<(Activation, Vec<String>)> {
    let (name, paths) = (change.name(), change.paths());
    let old = profile::current(name, paths)?;
    let live = Live::of(name, paths);
    let running = live.as_ref().and_then(|live| live.system.clone());
    let signals = live.is_some().then(|| (means.signals)()).transpose()?;
    change.intend(&Intent::Update(Pending {
        generation: old.as_ref().map(|old| old.number),
        running: running.clone(),
        keeping: None,
        frozen: None,
    }))?;
    if let Err(error) = profile::switch(name, to.number, paths) {
        change.done()?;
        return Err(error);
    }
    let done = |activation, notes| change.done().map(|()| (activation, notes));
    let Some(live) = live else { return done(Activation::AtStart, Vec::new()) };
    if !restart && running.as_ref() == Some(&to.system) {
        return done(Activation::Unchanged, Vec::new());
    }
    if let Some(reason) = live.needs_restart(&to.system, paths).filter(|_| !restart) {
        let note = format!("generation {} takes effect when the container is restarted: {reason}", to.number);
        return done(Activation::AtRestart, vec![note]);
    }
    let moved = if restart {
        (means.restart)(name).map(|()| Activation::Restarted).map_err(|error| error.to_string())
    } else {
        let signals = signals.as_ref();
        activate(name, &to.system, signals, paths, means.progress).map(|()| Activation::Activated)
    };
    let why = match moved {
        Ok(activation) => return done(activation, Vec::new()),
        Err(why) => why,
    };
    let back = match &old {
        None => "there is no earlier one to go back to".to_owned(),
        Some(old) => match profile::switch(name, old.number, paths) {
            // The intent stays: the next command on the container tries again.
            Err(error) => return Err(Error::Other(format!("{}; {error}", failed(name, to, restart, &why)))),
            Ok(()) => back(name, old, running.as_deref(), restart, paths, means),
        },
    };
    change.done()?;
    Err(Error::Other(format!("{}; {back}", failed(name, to, restart, &why))))
}

fn failed(name: &str, to: &Generation, restart: bool, why: &str) -> String {
    let done = if restart { "started" } else { "activated" };
    format!("generation {} could not be {done} in container {name}: {why}", to.number)
}

/// Has what was current run again; what has become of that, for a sentence.
fn back(
    name: &str,
    old: &Generation,
    running: Option<&Path>,
    restart: bool,
    paths: &HostPaths,
    means: &mut Means<'_>,
) -> String {
    let current = format!("generation {} is the current one again", old.number);
    let again = if restart {
        (means.restart)(name).map_err(|error| error.to_string())
    } else {
        activate(name, running.unwrap_or(&old.system), None, paths, means.progress)
    };
    match again {
        Ok(()) => format!("{current} and runs"),
        Err(why) => format!("{current}, and bringing it back failed, too: {why}"),
    }
}
