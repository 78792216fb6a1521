//! What a system says of itself, and what is in it by name and version.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use runtime::HostPaths;

use super::{build, store};
use crate::ops::{Error, Result};

/// How a system names itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Name and version of its store path: `nixos-system-web-25.11.20251120`.
    pub name: String,
    /// NixOS's version; `None` when the system is gone or does not say it.
    pub version: Option<String>,
}

/// What a system says of itself.
#[must_use]
pub fn describe(system: &Path, paths: &HostPaths) -> Described {
    Described {
        name: store::name_of(system).unwrap_or_default().to_owned(),
        version: word(system, "nixos-version", paths),
    }
}

/// What a running system must have in common with one that is activated in it: NixOS changes it when only a restart will
/// do.
pub(super) fn init_interface(system: &Path, paths: &HostPaths) -> Option<String> {
    word(system, "init-interface-version", paths)
}

fn word(system: &Path, file: &str, paths: &HostPaths) -> Option<String> {
    let text = fs::read_to_string(paths.join(system).join(file)).ok()?;
    Some(text.trim().to_owned())
}

/// Every store path that a system needs, itself among them.
///
/// # Errors
/// When Nix is missing, or does not know the system.
pub fn closure(system: &Path, paths: &HostPaths) -> Result<BTreeSet<PathBuf>> {
    let mut args: Vec<OsString> = vec!["--query".into(), "--requisites".into()];
    args.extend(build::store_options(paths));
    args.push(system.as_os_str().to_owned());
    let out = build::run("nix-store", &args, paths, &mut |_| {})
        .map_err(|why| Error::Other(format!("cannot tell what {} consists of: {why}", system.display())))?;
    Ok(String::from_utf8_lossy(&out).lines().map(PathBuf::from).collect())
}

/// Name and version of a store path, by Nix's rule: the version begins behind the first dash that no letter follows.
#[must_use]
pub fn package(path: &Path) -> Option<(&str, &str)> {
    let name = store::name_of(path)?;
    let dash = name
        .match_indices('-')
        .find(|(at, _)| name.as_bytes().get(at + 1).is_some_and(|next| !next.is_ascii_alphabetic()));
    Some(dash.map_or((name, ""), |(at, _)| (&name[..at], &name[at + 1..])))
}

/// The versions of each package in a closure; one without a version has the empty one.
#[must_use]
pub fn packages(closure: &BTreeSet<PathBuf>) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, version) in closure.iter().filter_map(|path| package(path)) {
        all.entry(name).or_default().insert(version);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_begins_where_nix_says() {
        for (name, expected) in [
            ("postgresql-15.4", ("postgresql", "15.4")),
            ("postgresql-and-plugins-16.1", ("postgresql-and-plugins", "16.1")),
            ("mariadb-server-10.11.6", ("mariadb-server", "10.11.6")),
            ("glibc-2.40-66-bin", ("glibc", "2.40-66-bin")),
            ("nixos-system-web-25.11.1", ("nixos-system-web", "25.11.1")),
            ("etc", ("etc", "")),
            ("unit-nginx.service", ("unit-nginx.service", "")),
            ("source-", ("source-", "")),
        ] {
            let path = format!("/nix/store/00000000000000000000000000000000-{name}");
            assert_eq!(package(Path::new(&path)), Some(expected));
        }
    }
}
