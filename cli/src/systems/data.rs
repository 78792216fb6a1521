//! What an update may do to the container's data: databases of another major version than the new system's server, and
//! `system.stateVersion`, by which NixOS chooses such versions.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use runtime::HostPaths;
use runtime::rootfs::Root;

use super::versions::package;
use super::{CONFIGURATION, Source};
use crate::files;
use crate::ops::{self, Error, Result};

/// What the configuration of each container's current system said, to be compared with the next one's.
const STATE_VERSIONS: &str = "/var/lib/nixrun/state-versions";

/// A database server, and how its data tells its version.
struct Server {
    name: &'static str,
    /// Names of its packages.
    packages: &'static [&'static str],
    /// Numbers of a version that must be equal for the server to take the data.
    numbers: usize,
    advice: &'static str,
}

const POSTGRESQL: Server = Server {
    name: "PostgreSQL",
    packages: &["postgresql", "postgresql-and-plugins"],
    numbers: 1,
    advice: "a server of another major version begins with an empty database; see pg_upgrade or pg_dumpall",
};
const MARIADB: Server = Server {
    name: "MariaDB",
    packages: &["mariadb-server"],
    numbers: 2,
    advice: "the first start of the new server changes the data so that the old one cannot read it; see mariadb-upgrade",
};
const MYSQL: Server = Server {
    name: "MySQL",
    packages: &["mysql"],
    numbers: 2,
    advice: "the first start of the new server changes the data so that the old one cannot read it",
};

/// What should be known before a container with this root goes from one system to another, by the closures of both.
#[must_use]
pub(super) fn warnings(root: &Root, old: Option<&BTreeSet<PathBuf>>, new: &BTreeSet<PathBuf>) -> Vec<String> {
    let mut all = Vec::new();
    for (server, place, version) in found(root) {
        let data = major(&version, server.numbers);
        let had = old.is_none_or(|old| server.majors(old).contains(&data));
        let there = server.majors(new);
        // Data that the old system's server could not read either is none of this change's business.
        if !had || there.contains(&data) {
            continue;
        }
        let has = match there.into_iter().collect::<Vec<_>>().join(" and ") {
            none if none.is_empty() => format!("the new system has no {}", server.name),
            versions => format!("the new system has {} {versions}", server.name),
        };
        all.push(format!("{place} holds data of {} {data} and {has}; {}", server.name, server.advice));
    }
    all
}

/// Whether there is a database at all.
#[must_use]
pub(super) fn has_any(root: &Root) -> bool {
    !found(root).is_empty()
}

impl Server {
    fn majors(&self, closure: &BTreeSet<PathBuf>) -> BTreeSet<String> {
        let versions = closure.iter().filter_map(|path| package(path));
        // Of a package, and not of its libraries alone, which clients need: `postgresql-15.4-lib`.
        let servers = versions.filter(|(name, version)| {
            self.packages.contains(name)
                && !["-lib", "-doc", "-man", "-dev"].iter().any(|end| version.ends_with(end))
        });
        servers.map(|(_, version)| major(version, self.numbers)).collect()
    }
}

/// The first numbers of a version, which are what decides.
fn major(version: &str, numbers: usize) -> String {
    let number = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>();
    version.trim().split('.').take(numbers).map(number).collect::<Vec<_>>().join(".")
}

/// The databases of a root: their server, where they are, and what version they say.
fn found(root: &Root) -> Vec<(&'static Server, String, String)> {
    let mut all = Vec::new();
    let clusters = Path::new("/var/lib/postgresql");
    // NixOS has a cluster for each major version, other systems one more level.
    for outer in root.names(clusters) {
        let outer = clusters.join(outer);
        let inner = root.names(&outer).into_iter().map(|name| outer.join(name)).collect::<Vec<_>>();
        for cluster in std::iter::once(outer).chain(inner) {
            if let Some(version) = root.read(&cluster.join("PG_VERSION")) {
                all.push((&POSTGRESQL, cluster.display().to_string(), plain(&version)));
            }
        }
    }
    for file in ["mariadb_upgrade_info", "mysql_upgrade_info"] {
        let place = Path::new("/var/lib/mysql");
        if let Some(version) = root.read(&place.join(file)) {
            let server = if version.contains("MariaDB") { &MARIADB } else { &MYSQL };
            all.push((server, place.display().to_string(), plain(&version)));
            break;
        }
    }
    all
}

/// The container wrote it.
fn plain(version: &str) -> String {
    version.trim().chars().filter(|c| c.is_ascii_alphanumeric() || ".-".contains(*c)).take(32).collect()
}

/// What a configuration sets `system.stateVersion` to, by its text: what it imports is not looked at.
#[must_use]
pub(super) fn state_version(text: &str) -> Option<String> {
    let text = without_comments(text);
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("stateVersion") {
        rest = after;
        let set =
            before.ends_with("system.") || before.ends_with(|c: char| c.is_whitespace() || "{;".contains(c));
        let value = after.trim_start().strip_prefix('=').map(str::trim_start);
        let value = value.and_then(|value| value.strip_prefix('"')?.split_once('"'));
        if let (true, Some((value, _))) = (set, value) {
            return Some(value.to_owned());
        }
    }
    None
}

fn without_comments(text: &str) -> String {
    let mut left = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['#', '/', '"']) {
        let (before, from) = rest.split_at(at);
        left.push_str(before);
        let length = if from.starts_with('#') {
            from.find('\n').unwrap_or(from.len())
        } else if from.starts_with("/*") {
            from.find("*/").map_or(from.len(), |end| end + 2)
        } else {
            // A string may have # in it.
            let quoted = from.starts_with('"').then(|| from[1..].find('"')).flatten();
            let length = quoted.map_or(1, |end| end + 2);
            left.push_str(&from[..length]);
            length
        };
        rest = &from[length..];
    }
    left + rest
}

/// The text that says the state version of a system from this source.
fn text_of(name: &str, source: &Source, paths: &HostPaths) -> Option<String> {
    match source {
        Source::Config(text) => Some(text.clone()),
        Source::ConfigFile(file) => fs::read_to_string(file).ok(),
        Source::Kept => Root::open(&ops::root_of(name, paths)).ok()?.read(Path::new(CONFIGURATION)),
        Source::Flake(_) | Source::SystemPath(_) => None,
    }
}

/// Whether the state version is another one than when the container was last updated.
#[must_use]
pub(super) fn state_version_warning(name: &str, source: &Source, paths: &HostPaths) -> Option<String> {
    let new = state_version(&text_of(name, source, paths)?)?;
    let old = fs::read_to_string(paths.join(STATE_VERSIONS).join(name)).ok()?;
    (new != old.trim()).then(|| {
        format!(
            "system.stateVersion changes from {} to {new}: it says which release the container's data was made by, and \
             is to stay as it is unless that data is converted by hand",
            old.trim()
        )
    })
}

/// Remembers the state version of what the container has from now on.
///
/// # Errors
/// When it cannot be written.
pub(super) fn remember(name: &str, source: &Source, paths: &HostPaths) -> Result<()> {
    let Some(version) = text_of(name, source, paths).and_then(|text| state_version(&text)) else {
        return Ok(());
    };
    let file = paths.join(STATE_VERSIONS).join(name);
    let write = || {
        fs::create_dir_all(paths.join(STATE_VERSIONS))?;
        files::replace(&file, format!("{version}\n").as_bytes(), 0o644)
    };
    write().map_err(|error| Error::Other(format!("cannot write {}: {error}", file.display())))
}

/// Forgets a container.
pub(super) fn forget(name: &str, paths: &HostPaths) -> io::Result<()> {
    let directory = paths.join(STATE_VERSIONS);
    files::remove(&directory.join(name)).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    for directory in directory.ancestors().take(2) {
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closure(names: &[&str]) -> BTreeSet<PathBuf> {
        names.iter().map(|name| format!("/nix/store/{}-{name}", "0".repeat(32)).into()).collect()
    }

    #[test]
    fn data_that_the_new_server_does_not_take_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("var/lib/postgresql/15")).unwrap();
        fs::create_dir_all(root.join("var/lib/postgresql/9/main")).unwrap();
        fs::create_dir_all(root.join("var/lib/mysql")).unwrap();
        fs::write(root.join("var/lib/postgresql/15/PG_VERSION"), "15\n").unwrap();
        fs::write(root.join("var/lib/postgresql/9/main/PG_VERSION"), "9.6\n").unwrap();
        fs::write(root.join("var/lib/mysql/mysql_upgrade_info"), "10.6.4-MariaDB\0").unwrap();
        let root = Root::open(root).unwrap();
        let old = closure(&["postgresql-15.4", "mariadb-server-10.6.4", "postgresql-16.1-lib"]);
        assert_eq!(warnings(&root, Some(&old), &old), Vec::<String>::new());
        let same = closure(&["postgresql-and-plugins-15.9", "mariadb-server-10.6.20"]);
        assert_eq!(warnings(&root, Some(&old), &same), Vec::<String>::new());
        let new = closure(&["postgresql-16.1", "mariadb-server-10.11.6"]);
        let found = warnings(&root, Some(&old), &new);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with(
            "/var/lib/postgresql/15 holds data of PostgreSQL 15 and the new system has PostgreSQL 16;"
        ));
        assert!(found[1].contains("data of MariaDB 10.6 and the new system has MariaDB 10.11;"), "{found:?}");
        let found = warnings(&root, None, &closure(&["postgresql-16.1-lib"]));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().all(|warning| warning.contains("the new system has no ")), "{found:?}");
    }

    #[test]
    fn the_state_version_is_found_in_a_configurations_text() {
        for (text, expected) in [
            ("{ system.stateVersion = \"24.11\"; }", Some("24.11")),
            ("{ system = { stateVersion=\"25.05\"; }; }", Some("25.05")),
            ("{ # system.stateVersion = \"1\";\n system.stateVersion = \"2\"; }", Some("2")),
            ("{ /* system.stateVersion = \"1\"; */ x = \"#\"; system.stateVersion = \"3\"; }", Some("3")),
            ("{ home.stateVersion = \"1\"; }", None),
            ("{ a = 1 / 2; }", None),
            ("\"", None),
            ("/*", None),
            ("# ä", None),
        ] {
            assert_eq!(state_version(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_state_version_that_changes_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        let paths = HostPaths::below(dir.path());
        let source = |version: &str| Source::Config(format!("system.stateVersion = \"{version}\";"));
        assert_eq!(state_version_warning("web", &source("24.11"), &paths), None);
        remember("web", &source("24.11"), &paths).unwrap();
        assert_eq!(state_version_warning("web", &source("24.11"), &paths), None);
        let warning = state_version_warning("web", &source("25.05"), &paths).unwrap();
        assert!(warning.contains("from 24.11 to 25.05"), "{warning}");
        forget("web", &paths).unwrap();
        forget("web", &paths).unwrap();
        assert!(!dir.path().join("var/lib/nixrun").exists());
    }
}
