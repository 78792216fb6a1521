//! Removing what a container left behind whose supervisor was killed.

use std::path::{Path, PathBuf};

use netsetup::Resource;
use runtime::instance::{self, Instance, Record, RootLock};
use runtime::{CgroupPlan, HostPaths, OnHost};
use schemars::JsonSchema;
use serde::Serialize;

use super::error::{Error, Result};
use super::{net_paths, root_of};
use crate::{admission, change, events, hosts_file, machined};

/// Journal records with a [`CgroupPlan`].
pub(super) const CGROUP: &str = "cgroup";
/// Journal records with a list of [`OnHost`].
pub(super) const ON_HOST: &str = "on-host";
/// Journal records with a list of [`Resource`]s.
pub(super) const NETWORK: &str = "network";
/// Journal records with the path of the lock on a range of ids.
const IDS: &str = "ids";

/// The record of a lock on a range of ids.
pub(super) fn ids_record(lock: &Path) -> Record {
    Record { kind: IDS.to_owned(), value: lock.to_string_lossy().into() }
}

/// Journal records with the name that systemd-machined was told, or was about to be.
pub(super) const MACHINE: &str = "machine";

/// Journal records of a container whose name is in files that are shared ([`crate::hosts_file`]).
pub(super) const NAMES: &str = "names";

/// A container that was cleaned up after.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Reclaimed {
    /// Its name.
    pub name: String,
    /// What was there and is gone.
    pub removed: Vec<String>,
}

/// Removes what is left of one container, or of all that no living supervisor holds.
///
/// # Errors
/// When the container runs, or something cannot be removed.
pub fn reclaim(name: Option<&str>, paths: &HostPaths) -> Result<Vec<Reclaimed>> {
    let reclaimed = match name {
        Some(name) => {
            let recovered = recover(name, paths)?;
            one(name, paths).map(|mut one| {
                one.removed.extend(recovered);
                vec![one]
            })
        }
        None => {
            let unfinished = change::unfinished(paths).into_iter();
            let changes: Vec<_> = unfinished.map(|name| recovered(name, paths)).collect();
            // Every one is tried, whatever becomes of those before it.
            let dead = instance::list(paths).into_iter().filter(|found| !found.alive);
            let results: Vec<_> = dead.map(|found| one(&found.name, paths)).collect();
            let all: Result<Vec<_>> = results.into_iter().collect();
            let changes: Result<Vec<_>> = changes.into_iter().collect();
            all.and_then(|mut all| {
                all.extend(changes?.into_iter().flatten());
                Ok(all)
            })
        }
    };
    change::sweep(paths);
    admission::tidy(paths);
    instance::tidy(paths);
    reclaimed
}

/// Completes or undoes a change that was interrupted; says so. One that goes on is left alone.
fn recover(name: &str, paths: &HostPaths) -> Result<Option<String>> {
    if change::holder(name, paths).is_some() || !change::unfinished(paths).iter().any(|known| known == name) {
        return Ok(None);
    }
    change::settle(name, paths)?;
    Ok(Some("a change that was interrupted".to_owned()))
}

fn recovered(name: String, paths: &HostPaths) -> Result<Option<Reclaimed>> {
    Ok(recover(&name, paths)?.map(|what| Reclaimed { name, removed: vec![what] }))
}

fn one(name: &str, paths: &HostPaths) -> Result<Reclaimed> {
    let root = instance::find(paths, name).and_then(|found| found.root);
    let root = root.unwrap_or_else(|| root_of(name, paths));
    let (instance, removed) = claim_reclaimed(name, &root, RootLock::IfFree, paths)?;
    instance.release();
    Ok(Reclaimed { name: name.to_owned(), removed })
}

/// Claims a container that does not run, so that nobody starts it, and removes what is left of it; says what that was.
///
/// # Errors
/// When the container runs, or something cannot be removed.
pub(crate) fn claim_reclaimed(
    name: &str,
    root: &Path,
    lock: RootLock,
    paths: &HostPaths,
) -> Result<(Instance, Vec<String>)> {
    let mut instance = Instance::claim(paths, name, root, lock)?;
    let mut removed = leftovers(&mut instance, name, paths)?;
    // Names are derived from the container's, so this works without a journal, too.
    let by_name = netsetup::reclaim(&net_paths(paths), name, &netsetup::resources_for(name))?;
    removed.extend(by_name.removed.iter().map(describe));
    remove_name(name, paths, &mut removed)?;
    Ok((instance, removed))
}

/// Undoes what the journal of a claimed instance names, last in, first out. Every step is tried.
pub(super) fn leftovers(instance: &mut Instance, name: &str, paths: &HostPaths) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let mut first_error = None;
    for record in instance.leftover().iter().rev() {
        let result = match record.kind.as_str() {
            CGROUP => remove_cgroup(&record.value, &mut removed),
            ON_HOST => remove_from_host(&record.value, &mut removed),
            IDS => unlock_ids(&record.value, &mut removed),
            NETWORK => remove_network(&record.value, name, paths, &mut removed),
            NAMES => remove_name(name, paths, &mut removed),
            MACHINE => {
                let was_there = machined::unregister_dead(name, paths);
                removed.extend(was_there.then(|| format!("registration of {name} with systemd-machined")));
                Ok(())
            }
            // A later version's; it is not ours to judge.
            _ => Ok(()),
        };
        first_error = first_error.or(result.err());
    }
    match first_error {
        Some(error) => Err(error),
        None => {
            if !instance.leftover().is_empty() {
                events::tell(paths, name, events::Kind::Exited, Some("its nixrun was killed"));
            }
            instance.forget()?;
            Ok(removed)
        }
    }
}

fn remove_cgroup(value: &serde_json::Value, removed: &mut Vec<String>) -> Result<()> {
    let plan: CgroupPlan = parse(value)?;
    if plan.payload.exists() {
        removed.push(format!("control group {}", plan.payload.display()));
    }
    Ok(runtime::remove_cgroup(&plan)?)
}

fn remove_from_host(value: &serde_json::Value, removed: &mut Vec<String>) -> Result<()> {
    let all: Vec<OnHost> = parse(value)?;
    let mut first_error = None;
    for one in all.iter().rev() {
        match runtime::remove_from_host(one) {
            Ok(true) => removed.push(one.to_string()),
            Ok(false) => {}
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    first_error.map_or(Ok(()), |error| Err(error.into()))
}

fn unlock_ids(value: &serde_json::Value, removed: &mut Vec<String>) -> Result<()> {
    let lock: PathBuf = parse(value)?;
    if runtime::unlock_dead(&lock)? {
        removed.push(format!("lock {}", lock.display()));
    }
    Ok(())
}

fn remove_network(
    value: &serde_json::Value,
    name: &str,
    paths: &HostPaths,
    removed: &mut Vec<String>,
) -> Result<()> {
    let resources: Vec<Resource> = parse(value)?;
    let done = netsetup::reclaim(&net_paths(paths), name, &resources)?;
    removed.extend(done.removed.iter().map(describe));
    Ok(())
}

/// Takes the container's name out of the files that have it; what else stands there wrongly is put right, too.
pub(super) fn remove_name(name: &str, paths: &HostPaths, removed: &mut Vec<String>) -> Result<()> {
    if hosts_file::leave(paths, name).map_err(|error| names_error(name, &error))? {
        removed.push(format!("the name {name}.containers"));
    }
    Ok(())
}

/// Why names could not be kept.
pub(super) fn names_error(name: &str, error: &std::io::Error) -> Error {
    Error::Other(format!(
        "cannot keep the name {name}.containers in /etc/hosts: {error}; \"hostsFile\": false in /etc/nixrun.json does \
         without"
    ))
}

fn describe(resource: &Resource) -> String {
    match resource {
        Resource::Link { name } => format!("link {name}"),
        Resource::Zone { bridge } => format!("bridge {bridge}"),
        Resource::Registration { container } => {
            format!("what {container} had of the host's network: addresses, forwards, links")
        }
        other => format!("{other:?}"),
    }
}

fn parse<T: serde::de::DeserializeOwned>(value: &serde_json::Value) -> Result<T> {
    serde_json::from_value(value.clone())
        .map_err(|error| Error::Other(format!("cannot read the journal of the container: {error}")))
}
