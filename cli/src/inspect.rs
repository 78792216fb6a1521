//! Everything about one container: what configures it, what a start would do, what runs.

mod configuration;
mod describe;
mod live;
mod network;

use std::path::PathBuf;

use runtime::instance::{self, Found};
use runtime::{Console, HostPaths};
use schemars::JsonSchema;
use serde::Serialize;

pub use configuration::Setting;
pub use describe::describe;
pub use live::{Ids, Live};
pub use network::{Forward, Network, Pair};

use crate::events::rfc3339;
use crate::ops::{self, BootOptions, Error, Phase, Planned, Result};
use crate::settings::Settings;
use crate::systems::profile;
use crate::{change, configured, nixos_boot, snapshot};

/// Everything about one container.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Inspection {
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub state: Phase,
    /// What its files set, those of both in the order of their lines; secrets are left out.
    pub configuration: Vec<Setting>,
    /// The system that starts next; absent where there is none.
    pub system: Option<System>,
    /// Its data as they were under other generations, which `rollback --with-data` returns to.
    pub snapshots: Vec<Snapshot>,
    /// What the next start does, as of `nixrun plan --json`, whose keys are no part of this schema; absent when the
    /// container has no configuration, or a wrong one.
    pub plan: Option<serde_json::Map<String, serde_json::Value>>,
    /// Why there is no plan, where there should be one.
    pub plan_error: Option<String>,
    /// The network that the plan makes; absent when it has the host's.
    pub network: Option<Network>,
    /// What runs; absent when nothing does.
    pub live: Option<Live>,
    /// A change that was begun and has not ended.
    pub change: Option<Change>,
}

/// The system that starts next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct System {
    /// Its store path.
    pub path: PathBuf,
    /// Its number among the container's generations, where it is one.
    pub generation: Option<u64>,
    /// How many generations there are.
    pub generations: usize,
}

/// A root directory that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Snapshot {
    /// The generation that it belongs to.
    pub generation: u64,
    /// When it was kept, as in RFC 3339, in UTC.
    pub taken: String,
    /// Where.
    pub path: PathBuf,
}

/// A change that was begun and has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Change {
    /// Who is at it; absent when it was killed, and the next command completes or undoes it.
    pub holder: Option<String>,
}

/// Looks at a container. Needs no privileges, though without them it sees less.
///
/// # Errors
/// When there is none of this name; the nearest one is suggested.
pub fn inspect(name: &str, paths: &HostPaths) -> Result<Inspection> {
    let phase = ops::status(name, paths)?.phase;
    let files = configured::find(name, paths).ok();
    let configuration = files.as_ref().map(configuration::settings).transpose()?.unwrap_or_default();
    let planned = files.is_some().then(|| plan(name, paths));
    let (planned, plan_error) = match planned {
        None => (None, None),
        Some(Ok(planned)) => (Some(planned), None),
        Some(Err(error)) => (None, Some(error.to_string())),
    };
    let found = instance::find(paths, name).filter(|found| found.alive);
    Ok(Inspection {
        name: name.to_owned(),
        state: phase,
        configuration,
        system: system(name, paths),
        snapshots: snapshots(name, paths),
        network: planned.as_ref().and_then(|planned| planned.network.as_ref()).map(network::network),
        plan: planned.as_ref().and_then(as_object),
        plan_error,
        live: found.and_then(|Found { state, .. }| state).map(|state| live::live(&state, paths)),
        change: pending(name, paths),
    })
}

fn plan(name: &str, paths: &HostPaths) -> Result<Planned> {
    let request = ops::configured_request(name, &BootOptions::default(), Console::ReadOnly, paths)?;
    Planned::for_reading(&request, paths)
}

fn as_object(planned: &Planned) -> Option<serde_json::Map<String, serde_json::Value>> {
    match serde_json::to_value(planned) {
        Ok(serde_json::Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// The configured one, or the current generation.
fn system(name: &str, paths: &HostPaths) -> Option<System> {
    let generations = profile::list(name, paths).unwrap_or_default();
    let current = generations.iter().find(|generation| generation.current);
    let configured = Settings::read(name, paths).ok().and_then(|settings| settings.document.system);
    let path = match configured {
        Some(system) => system.0,
        None => current?.system.clone(),
    };
    // A configured path may be the profile's link.
    let path = crate::lookup::lookup(paths, &path).map_or(path, |found| found.path);
    let same = generations.iter().rev().find(|generation| generation.system == path);
    Some(System { generation: same.map(|same| same.number), generations: generations.len(), path })
}

fn snapshots(name: &str, paths: &HostPaths) -> Vec<Snapshot> {
    let settings = Settings::read(name, paths).ok();
    let root = settings.and_then(|settings| nixos_boot::root_directory(name, &settings, paths).ok());
    let all = root.map(|root| snapshot::list(name, &root)).unwrap_or_default();
    let one = |one: snapshot::Snapshot| Snapshot {
        generation: one.generation,
        taken: rfc3339(one.taken),
        path: one.path,
    };
    all.into_iter().map(one).collect()
}

fn pending(name: &str, paths: &HostPaths) -> Option<Change> {
    let holder = change::holder(name, paths);
    let unfinished = change::unfinished(paths).iter().any(|one| one == name);
    (unfinished || holder.is_some()).then_some(Change { holder })
}

fn unreadable(file: &std::path::Path, error: &std::io::Error) -> Error {
    Error::Other(format!("cannot read {}: {error}", file.display()))
}
