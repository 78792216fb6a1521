//! Which containers are configured on this host: by `NAME.conf` in `/etc/nixos-containers`, or in `/etc/containers` where
//! systems from before NixOS 22.05 keep them, and by `NAME.json` in `/etc/nixrun`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use runtime::HostPaths;
use serde::Serialize;

use crate::nearest::nearest;

/// Directories with configuration files, the one that counts first.
const DIRECTORIES: [&str; 2] = ["/etc/nixos-containers", "/etc/containers"];

/// Directory of the JSON files.
const JSON_DIRECTORY: &str = "/etc/nixrun";

/// Files in `/etc/containers` that podman and its kin own, without `.conf`.
const NOT_CONTAINERS: [&str; 5] = ["containers", "libpod", "mounts", "registries", "storage"];

/// Longest name of a container: Linux limits hostnames to 64 bytes (`HOST_NAME_MAX`).
pub const NAME_MAX: usize = 64;

/// A container that has a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Configured {
    /// The container's name.
    pub name: String,
    /// Its configuration file; `NAME.conf` where it has both.
    pub file: PathBuf,
}

/// The files that configure a container, at least one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// `NAME.conf`.
    pub conf: Option<PathBuf>,
    /// `/etc/nixrun/NAME.json`.
    pub json: Option<PathBuf>,
}

/// Why a container's configuration was not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// The name cannot belong to any container.
    #[error("{name:?} cannot name a container: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No file configures the container.
    #[error(
        "cannot find a container called {name:?}: there is no {}, {} or {}{}",
        tried[0].display(), tried[1].display(), tried[2].display(), advice(suggestion.as_deref())
    )]
    Unknown {
        /// The name.
        name: String,
        /// The files that could have configured it.
        tried: [PathBuf; 3],
        /// A configured container with a similar name.
        suggestion: Option<String>,
    },
    /// A directory could not be read.
    #[error("cannot list the containers in {}: {source}", directory.display())]
    List {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn advice(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(name) => format!("; did you mean {name:?}?"),
        None => "; `nixrun list` shows those that exist".to_owned(),
    }
}

/// Checks that `name` is a hostname as systemd's `hostname_is_valid()` defines it, which machined and the container's
/// own hostname need. No such name can lead a path astray.
///
/// # Errors
/// [`FindError::Name`] with what is wrong.
pub fn check_name(name: &str) -> Result<(), FindError> {
    let label_ok = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_MAX {
        "it is longer than 64 bytes"
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')) {
        "only letters, digits, - and . may occur in it"
    } else if !name.split('.').all(label_ok) {
        "each part between dots must begin and end with a letter or digit"
    } else {
        return Ok(());
    };
    Err(FindError::Name { name: name.to_owned(), reason })
}

/// Every configured container by name. A file that could name none is left out.
///
/// # Errors
/// [`FindError::List`] when a directory exists and cannot be read.
pub fn list(host: &HostPaths) -> Result<Vec<Configured>, FindError> {
    let mut found = BTreeMap::new();
    for directory in DIRECTORIES.into_iter().chain([JSON_DIRECTORY]).map(|d| host.join(d)) {
        let failed = |source| FindError::List { directory: directory.clone(), source };
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(failed(e)),
        };
        for entry in entries {
            let file = entry.map_err(failed)?.path();
            if let Some(name) = container_name(&file).filter(|_| file.is_file()) {
                found.entry(name.to_owned()).or_insert(file);
            }
        }
    }
    Ok(found.into_iter().map(|(name, file)| Configured { name, file }).collect())
}

/// The configuration files of the container called `name`.
///
/// # Errors
/// [`FindError::Name`], or [`FindError::Unknown`] with the nearest name that exists.
pub fn find(name: &str, host: &HostPaths) -> Result<Files, FindError> {
    check_name(name)?;
    let conf = DIRECTORIES.map(|d| host.join(d).join(format!("{name}.conf")));
    let json = host.join(JSON_DIRECTORY).join(format!("{name}.json"));
    let there = |file: &&PathBuf| file.exists() && container_name(file).is_some();
    let found = Files { conf: conf.iter().find(there).cloned(), json: Some(&json).filter(there).cloned() };
    if found != Files::default() {
        return Ok(found);
    }
    let [new, old] = conf;
    let tried = [new, old, json];
    // A directory that cannot be listed only costs the suggestion.
    let configured = list(host).unwrap_or_default();
    let suggestion = nearest(name, configured.iter().map(|c| c.name.as_str())).map(str::to_owned);
    Err(FindError::Unknown { name: name.to_owned(), tried, suggestion })
}

/// The container that a file would configure by its name.
fn container_name(file: &Path) -> Option<&str> {
    let directory = file.parent().and_then(Path::file_name)?;
    let suffix = if directory == "nixrun" { ".json" } else { ".conf" };
    let name = file.file_name()?.to_str()?.strip_suffix(suffix)?;
    let foreign = directory == "containers" && NOT_CONTAINERS.contains(&name);
    (!foreign && check_name(name).is_ok()).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn host(files: &[&str]) -> (tempfile::TempDir, HostPaths) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let file = dir.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let paths = HostPaths::below(dir.path());
        (dir, paths)
    }

    #[test]
    fn hostnames_are_names_and_nothing_else() {
        for name in ["a", "web", "web-2", "A1", "a.b", &"x".repeat(64)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        let long = "x".repeat(65);
        for (name, reason) in [
            ("", "it is empty"),
            (&*long, "longer than 64 bytes"),
            ("a_b", "only letters"),
            ("a/b", "only letters"),
            ("ä", "only letters"),
            ("a b", "only letters"),
            ("..", "each part"),
            (".", "each part"),
            (".a", "each part"),
            ("a.", "each part"),
            ("a..b", "each part"),
            ("-a", "each part"),
            ("a-", "each part"),
        ] {
            let sentence = check_name(name).unwrap_err().to_string();
            assert!(sentence.contains(reason) && sentence.contains(&format!("{name:?}")), "{sentence}");
        }
    }

    #[test]
    fn all_directories_are_listed_without_podmans_files() {
        let (dir, paths) = host(&[
            "etc/containers/web.conf",
            "etc/containers/old.conf",
            "etc/containers/registries.conf",
            "etc/containers/libpod.conf",
            "etc/containers/policy.json",
            "etc/nixos-containers/web.conf",
            "etc/nixos-containers/storage.conf",
            "etc/nixos-containers/bad_name.conf",
            "etc/nixos-containers/web.conf.bak",
            "etc/nixos-containers/sub.conf/x",
            "etc/nixrun/web.json",
            "etc/nixrun/box.json",
            "etc/nixrun/box.conf",
        ]);
        let found = list(&paths).unwrap();
        let names: Vec<_> = found.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["box", "old", "storage", "web"]);
        assert_eq!(found[3].file, dir.path().join("etc/nixos-containers/web.conf"));
        let files = |conf: Option<&str>, json: Option<&str>| Files {
            conf: conf.map(|file| dir.path().join(file)),
            json: json.map(|file| dir.path().join(file)),
        };
        assert_eq!(find("old", &paths).unwrap(), files(Some("etc/containers/old.conf"), None));
        let both = files(Some("etc/nixos-containers/web.conf"), Some("etc/nixrun/web.json"));
        assert_eq!(find("web", &paths).unwrap(), both);
        assert_eq!(find("box", &paths).unwrap(), files(None, Some("etc/nixrun/box.json")));
        assert!(matches!(find("libpod", &paths), Err(FindError::Unknown { .. })));
    }

    #[test]
    fn no_directory_is_no_container() {
        let (_dir, paths) = host(&[]);
        assert_eq!(list(&paths).unwrap(), []);
        let sentence = find("web", &paths).unwrap_err().to_string();
        assert!(sentence.ends_with(".json; `nixrun list` shows those that exist"), "{sentence}");
    }

    #[test]
    fn an_unknown_name_brings_the_nearest_to_mind() {
        let (_dir, paths) = host(&["etc/nixos-containers/nextcloud.conf", "etc/nixos-containers/mail.conf"]);
        let sentence = find("nextclud", &paths).unwrap_err().to_string();
        assert!(sentence.contains("\"nextclud\": there is no "), "{sentence}");
        assert!(sentence.ends_with("; did you mean \"nextcloud\"?"), "{sentence}");
        assert!(matches!(find("../mail", &paths), Err(FindError::Name { .. })));
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_named() {
        let (_dir, paths) = host(&["etc/nixos-containers"]);
        let sentence = list(&paths).unwrap_err().to_string();
        assert!(sentence.contains("etc/nixos-containers: Not a directory"), "{sentence}");
    }
}
