//! A container's system exchanged for another: updated, rolled back, activated once more.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use runtime::HostPaths;
use runtime::rootfs::Root;
use schemars::JsonSchema;
use serde::Serialize;

use super::activate::{Live, activate};
use super::profile::{self, Generation};
use super::transition::{self, Activation, Means, Pending};
use super::{Obtained, Source, data, diff, keeping, obtain, restore, versions};
use crate::change::{Change, Intent};
use crate::events::{self, Kind};
use crate::live::freezer;
use crate::ops::{self, Error, Result};
use crate::settings::{self, Settings};

/// What `update` is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateRequest {
    /// The container.
    pub name: String,
    /// Where its system comes from; what it was made from when `None`.
    pub source: Option<Source>,
    /// Where nixpkgs' `nixos` is.
    pub nixos_path: Option<PathBuf>,
    /// Keep its data as they are now.
    pub snapshot: bool,
    /// Restart it instead of activating the system in it.
    pub restart: bool,
}

/// What `rollback` is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RollbackRequest {
    /// The container.
    pub name: String,
    /// The generation; the one before the current one when `None`.
    pub generation: Option<u64>,
    /// Go back to the data that were kept of that generation, too.
    pub with_data: bool,
    /// Restart it instead of activating the system in it.
    pub restart: bool,
}

/// What has become of a container's system, for `update` and `rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Updated {
    /// The container.
    pub name: String,
    /// Number of the current generation.
    pub generation: u64,
    /// Number of the one that was current before.
    pub previous: Option<u64>,
    /// Store path of its system.
    pub system: PathBuf,
    /// How it came into effect.
    pub activation: Activation,
    /// Number of the generation as whose data the root directory was kept, if it was.
    pub kept: Option<u64>,
    /// What the user should know, one sentence each.
    pub warnings: Vec<String>,
}

/// Gives a container a new system.
///
/// # Errors
/// When it has none of its own, the system cannot be had, or cannot be activated: it has the old one then.
pub fn update(request: &UpdateRequest, paths: &HostPaths, means: &mut Means<'_>) -> Result<Updated> {
    let name = &request.name;
    let settings = own(name, "updated", paths)?;
    let change = Change::begin(name, "update", paths)?;
    goes_on(name, paths)?;
    change.intend(&Intent::Update(Pending::begun(name, paths)?))?;
    let ready = prepare(request, &change, &settings, means);
    // From here on the transition says what is to be undone.
    let Ready { obtained, old, to, kept, warnings } = match ready {
        Ok(ready) => ready,
        Err(error) => {
            change.done()?;
            return Err(error);
        }
    };
    let updated = finish(&change, old, to, request.restart, warnings, &settings, means)?;
    obtained.remember(name, paths)?;
    Ok(Updated { kept, ..updated })
}

/// A new system that waits for its turn.
struct Ready {
    obtained: Obtained,
    old: Option<Generation>,
    to: Generation,
    kept: Option<u64>,
    warnings: Vec<String>,
}

/// All that is done before the container changes.
fn prepare(
    request: &UpdateRequest,
    change: &Change<'_>,
    settings: &Settings,
    means: &mut Means<'_>,
) -> Result<Ready> {
    let (name, paths) = (change.name(), change.paths());
    let source = request.source.clone().unwrap_or_else(|| Source::kept(settings));
    let obtained = obtain(name, &source, request.nixos_path.as_deref(), paths, means.progress)?;
    let old = profile::current(name, paths)?;
    let mut warnings: Vec<String> = data::state_version_warning(name, &source, paths).into_iter().collect();
    warnings.extend(about_data(name, old.as_ref(), &obtained.system, paths));
    let kept = match (&old, request.snapshot) {
        (Some(old), true) => Some(keeping::keep(change, old.number, settings, means)?),
        (None, true) => {
            return Err(Error::Other(format!(
                "container {name} has no generation yet whose data could be kept"
            )));
        }
        _ => None,
    };
    let number = profile::register(name, &obtained.system, paths)?;
    obtained.keep_configuration(name, paths)?;
    let to = profile::generation(name, number, paths)?;
    Ok(Ready { obtained, old, to, kept, warnings })
}

/// Takes a container back to an earlier generation, or forward again.
///
/// # Errors
/// When there is no such generation, or it cannot be activated: the container has the system that it had then.
pub fn rollback(request: &RollbackRequest, paths: &HostPaths, means: &mut Means<'_>) -> Result<Updated> {
    let name = &request.name;
    let settings = own(name, "rolled back", paths)?;
    let change = Change::begin(name, "rollback", paths)?;
    goes_on(name, paths)?;
    let old = profile::current(name, paths)?;
    let to = match (request.generation, &old) {
        (Some(number), _) => profile::generation(name, number, paths)?,
        (None, Some(old)) => diff::before(name, old.number, paths)?,
        (None, None) => {
            return Err(Error::Other(format!("container {name} has no generations to go back to")));
        }
    };
    super::build::existing(&to.system, paths)?;
    if request.with_data {
        return restore::restore(&change, old, to, &settings, means);
    }
    let warnings = about_data(name, old.as_ref(), &to.system, paths);
    finish(&change, old, to, request.restart, warnings, &settings, means)
}

/// Activates the system that a container has once more.
///
/// # Errors
/// When the container does not run, or switch-to-configuration fails.
pub fn reload(name: &str, paths: &HostPaths, means: &mut Means<'_>) -> Result<PathBuf> {
    let settings = Settings::read(name, paths)?;
    let _change = Change::begin(name, "reload", paths)?;
    goes_on(name, paths)?;
    let live = Live::of(name, paths).ok_or_else(|| ops::not_running(name, paths))?;
    let declared = declared(&settings).map(Path::to_path_buf);
    let system =
        match declared {
            Some(system) => super::build::existing(&system, paths)?,
            None => profile::current(name, paths)?.map(|current| current.system).or(live.system).ok_or_else(
                || Error::Other(format!("container {name} has no system of NixOS that could be activated")),
            )?,
        };
    let signals = (means.signals)()?;
    activate(name, &system, Some(&signals), paths, means.progress)
        .map_err(|why| Error::Other(format!("container {name} could not be reloaded: {why}")))?;
    Ok(system)
}

/// The settings of a container whose system is its profile's.
fn own(name: &str, done: &str, paths: &HostPaths) -> Result<Settings> {
    let settings = Settings::read(name, paths)?;
    match declared(&settings) {
        Some(system) => Err(Error::Other(format!(
            "container {name} cannot be {done} by itself: {} is {}, which is set with the host's configuration; change \
             it there, then `nixrun reload {name}`",
            settings.place(settings::SYSTEM),
            system.display()
        ))),
        None => Ok(settings),
    }
}

/// Nothing can be activated in a container that is paused: it would be waited for without end.
fn goes_on(name: &str, paths: &HostPaths) -> Result<()> {
    match Live::of(name, paths) {
        Some(live) if freezer::is_paused(&live.state.cgroup) => Err(Error::Other(format!(
            "container {name} is paused; let it go on with `nixrun resume {name}` first"
        ))),
        _ => Ok(()),
    }
}

/// The system that the settings name, if it is none of the container's profile.
fn declared(settings: &Settings) -> Option<&Path> {
    let system = settings.document.system.as_ref()?.0.as_path();
    (!system.starts_with("/nix/var/nix/profiles")).then_some(system)
}

fn finish(
    change: &Change<'_>,
    old: Option<Generation>,
    to: Generation,
    restart: bool,
    mut warnings: Vec<String>,
    settings: &Settings,
    means: &mut Means<'_>,
) -> Result<Updated> {
    let (name, paths) = (change.name(), change.paths());
    let (activation, notes) = transition::go(change, &to, restart, means)?;
    warnings.extend(notes);
    if activation == Activation::Activated {
        warnings.extend(changed_since_start(name, settings, paths));
    }
    if old.as_ref().map(|old| &old.system) != Some(&to.system) || activation != Activation::Unchanged {
        events::tell(paths, name, Kind::Updated, to.system.to_str());
    }
    Ok(Updated {
        name: name.to_owned(),
        generation: to.number,
        previous: old.map(|old| old.number),
        system: to.system,
        activation,
        kept: None,
        warnings,
    })
}

/// Settings of the host's side are read at the start.
fn changed_since_start(name: &str, settings: &Settings, paths: &HostPaths) -> Option<String> {
    let started = i64::try_from(Live::of(name, paths)?.state.started).ok()?;
    let files = settings.conf.as_ref().map(|conf| &conf.file).into_iter().chain(&settings.json);
    let mut newer = files.filter(|file| fs::metadata(file).is_ok_and(|found| found.mtime() > started));
    let file = newer.next()?;
    Some(format!(
        "{} was changed after the container was started; what it says takes effect when it is restarted",
        file.display()
    ))
}

/// What the change may do to databases. That nothing can be said is said, too.
fn about_data(name: &str, old: Option<&Generation>, system: &Path, paths: &HostPaths) -> Vec<String> {
    if old.is_some_and(|old| old.system == system) {
        return Vec::new();
    }
    let Ok(root) = Root::open(&ops::root_of(name, paths)) else { return Vec::new() };
    if !data::has_any(&root) {
        return Vec::new();
    }
    let new = match versions::closure(system, paths) {
        Ok(new) => new,
        Err(error) => {
            return vec![format!("whether the databases suit the new system is not known: {error}")];
        }
    };
    // One that has been collected as garbage says nothing.
    let old = old.and_then(|old| versions::closure(&old.system, paths).ok());
    data::warnings(&root, old.as_ref(), &new)
}
