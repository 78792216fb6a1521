//! What one system has that another has not.

use std::collections::BTreeSet;
use std::path::PathBuf;

use runtime::HostPaths;
use schemars::JsonSchema;
use serde::Serialize;

use super::profile::{self, Generation};
use super::versions::{closure, packages};
use crate::configured;
use crate::ops::{Error, Result};

/// The difference between two generations, for `diff`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Number of the generation that is compared from.
    pub from: u64,
    /// Number of the generation that is compared to.
    pub to: u64,
    /// The systems' store paths.
    pub from_system: PathBuf,
    /// The same of the generation that is compared to.
    pub to_system: PathBuf,
    /// Packages that came, went or have other versions, by name.
    pub packages: Vec<PackageChange>,
    /// Store paths that only the second one has.
    pub added: Vec<PathBuf>,
    /// Store paths that only the first one has.
    pub removed: Vec<PathBuf>,
}

/// A package whose versions differ. Versions that both have are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PackageChange {
    /// Its name.
    pub name: String,
    /// What happened to it.
    pub change: Change,
    /// Versions that are gone; the empty one of a package without versions.
    pub old: Vec<String>,
    /// Versions that are new.
    pub new: Vec<String>,
}

/// What happened to a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Other versions of it.
    Changed,
    /// It was not there before.
    Added,
    /// It is there no longer.
    Removed,
}

/// Compares two generations of a container: to `to`, the current one when `None`; from `from`, the one before `to` when
/// `None`.
///
/// # Errors
/// When there are no such generations, Nix is missing, or a system has been collected as garbage.
pub fn diff(name: &str, from: Option<u64>, to: Option<u64>, paths: &HostPaths) -> Result<Difference> {
    configured::find(name, paths)?;
    let to = match to {
        Some(number) => profile::generation(name, number, paths)?,
        None => profile::current(name, paths)?.ok_or_else(|| {
            Error::Other(format!(
                "container {name} has no generations; `nixrun update {name}` makes the first"
            ))
        })?,
    };
    let from = match from {
        Some(number) => profile::generation(name, number, paths)?,
        None => before(name, to.number, paths)?,
    };
    let (old, new) = (closure(&from.system, paths)?, closure(&to.system, paths)?);
    Ok(Difference {
        from: from.number,
        to: to.number,
        packages: changes(&old, &new),
        added: new.difference(&old).cloned().collect(),
        removed: old.difference(&new).cloned().collect(),
        from_system: from.system,
        to_system: to.system,
    })
}

/// The generation before another one.
pub(super) fn before(name: &str, number: u64, paths: &HostPaths) -> Result<Generation> {
    let mut earlier = profile::list(name, paths)?;
    earlier.retain(|generation| generation.number < number);
    earlier.pop().ok_or_else(|| {
        Error::Other(format!(
            "container {name} has no generation before {number}; see `nixrun generations {name}`"
        ))
    })
}

fn changes(old: &BTreeSet<PathBuf>, new: &BTreeSet<PathBuf>) -> Vec<PackageChange> {
    let (old, new) = (packages(old), packages(new));
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let none = BTreeSet::new();
    let owned = |versions: Vec<&&str>| versions.into_iter().map(|version| (*version).to_owned()).collect();
    let mut changes = Vec::new();
    for name in names {
        let (before, after) = (old.get(name), new.get(name));
        let change = match (before, after) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        };
        let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
        if before != after {
            changes.push(PackageChange {
                name: name.to_owned(),
                change,
                old: owned(before.difference(after).collect()),
                new: owned(after.difference(before).collect()),
            });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<PathBuf> {
        names.iter().map(|name| format!("/nix/store/{}-{name}", "0".repeat(32)).into()).collect()
    }

    #[test]
    fn packages_are_grouped_by_name() {
        let old = set(&["nginx-1.24.0", "zlib-1.3", "zlib-1.2", "gone-1", "etc"]);
        let new = set(&["nginx-1.26.1", "zlib-1.3", "zlib-1.4", "new", "etc"]);
        let found: Vec<_> = changes(&old, &new)
            .into_iter()
            .map(|change| {
                format!(
                    "{} {:?} {} {}",
                    change.name,
                    change.change,
                    change.old.join(","),
                    change.new.join(",")
                )
            })
            .collect();
        assert_eq!(
            found,
            ["gone Removed 1 ", "new Added  ", "nginx Changed 1.24.0 1.26.1", "zlib Changed 1.2 1.4"]
        );
    }
}
