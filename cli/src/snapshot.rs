//! A container's data as it was: its root directory, kept when it leaves a generation by `update --snapshot`, or when
//! `rollback --with-data` puts another one in its place.
//!
//! ```text
//! /var/lib/nixos-containers/NAME                       the root
//! /var/lib/nixos-containers/.snapshots/NAME/2          as it was under generation 2, once it had another one
//!                                           /.2.new    one that is being made
//!                                           /.2.old    one in whose place another comes
//! ```
//! Beside the root: on the same file system a snapshot is made without copying, and put in the root's place by a rename.
//! No container's name begins with a dot. One is kept for each generation, the newest of it, and [`KEPT`] in all.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runtime::HostPaths;
use runtime::copy::{self, Kept, Watch};

use crate::files;
use crate::life::remove;
use crate::ops::{Error, Result};

/// How many snapshots of a container are kept: after a new one was made the oldest go.
pub const KEPT: usize = 3;

const DIRECTORY: &str = ".snapshots";

/// A root directory that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The generation that was current.
    pub generation: u64,
    /// When it was kept.
    pub taken: SystemTime,
    /// Where.
    pub path: PathBuf,
}

/// What a root directory is known by, wherever it is moved: device and inode.
pub type Identity = (u64, u64);

/// The identity of the directory at a path, if there is one.
#[must_use]
pub fn identity(path: &Path) -> Option<Identity> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_dir).map(|found| (found.dev(), found.ino()))
}

/// The snapshots of the container with this root, by generation.
#[must_use]
pub fn list(name: &str, root: &Path) -> Vec<Snapshot> {
    let entries = fs::read_dir(directory(name, root)).into_iter().flatten().flatten();
    let mut all: Vec<Snapshot> = entries
        .filter_map(|entry| {
            let generation = entry.file_name().to_str()?.parse().ok()?;
            let found = entry.metadata().ok().filter(fs::Metadata::is_dir)?;
            // Its other times are the root's; this one is that of the rename that made it one.
            let taken = UNIX_EPOCH + Duration::from_secs(found.ctime().try_into().unwrap_or(0));
            Some(Snapshot { generation, taken, path: entry.path() })
        })
        .collect();
    all.sort_by_key(|snapshot| snapshot.generation);
    all
}

/// Keeps the root as it is now as the data of this generation, in place of what was kept of it before. The container
/// must not write to it meanwhile.
///
/// # Errors
/// When it cannot be copied, or `watch` calls it off: what was kept before still is.
pub fn keep(name: &str, root: &Path, generation: u64, watch: Watch<'_>) -> Result<Kept> {
    settle(name, root)?;
    let directory = make_directory(name, root)?;
    let new = directory.join(format!(".{generation}.new"));
    let kept = copy::keep(root, &new, watch).inspect_err(|_| {
        let _ = remove::tree(&new);
        tidy(name, root);
    })?;
    replace(&directory, generation, &new)?;
    prune(name, root, generation)?;
    Ok(kept)
}

/// Puts the data of generation `to` in the root's place, and keeps what was there, known by `present`, as the data of
/// generation `from`. Nothing may use either. Each step may have been done before; a root that is neither stays.
///
/// # Errors
/// When a directory cannot be moved, as of one that is a mount.
pub fn swap(name: &str, root: &Path, present: Identity, from: u64, to: u64) -> Result<()> {
    let directory = make_directory(name, root)?;
    let aside = directory.join(".aside");
    if identity(root) == Some(present) {
        rename(root, &aside)?;
    }
    if identity(root).is_none() {
        rename(&directory.join(to.to_string()), root)?;
    }
    if identity(&aside).is_some() {
        replace(&directory, from, &aside)?;
    }
    prune(name, root, from)
}

/// Removes what an interrupted [`keep`] has left.
///
/// # Errors
/// When it cannot be removed.
pub fn settle(name: &str, root: &Path) -> Result<()> {
    let directory = directory(name, root);
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let Some((generation, state)) =
            file.to_str().and_then(|file| file.strip_prefix('.')?.split_once('.'))
        else {
            continue;
        };
        let place = directory.join(generation);
        match state {
            "old" if identity(&place).is_none() => rename(&entry.path(), &place)?,
            "old" | "new" => remove_tree(&entry.path())?,
            _ => {}
        }
    }
    tidy(name, root);
    Ok(())
}

/// Removes all snapshots of a container, wherever its root may have been.
///
/// # Errors
/// When one cannot be removed.
pub fn remove_all(name: &str, paths: &HostPaths) -> Result<()> {
    for parent in ["/var/lib/nixos-containers", "/var/lib/containers"] {
        let root = paths.join(parent).join(name);
        remove_tree(&directory(name, &root))?;
        tidy(name, &root);
    }
    Ok(())
}

fn directory(name: &str, root: &Path) -> PathBuf {
    root.with_file_name(DIRECTORY).join(name)
}

/// Nobody on the host is to reach users of containers that have the same ids.
fn make_directory(name: &str, root: &Path) -> Result<PathBuf> {
    let directory = directory(name, root);
    let mut builder = DirBuilder::new();
    builder.mode(0o700).recursive(true).create(&directory).map_err(|error| {
        Error::Other(format!("cannot make {} for snapshots: {error}", directory.display()))
    })?;
    Ok(directory)
}

/// Puts a directory in the place of a generation's snapshot.
fn replace(directory: &Path, generation: u64, new: &Path) -> Result<()> {
    let (place, old) = (directory.join(generation.to_string()), directory.join(format!(".{generation}.old")));
    if identity(&place).is_some() {
        remove_tree(&old)?;
        rename(&place, &old)?;
    }
    rename(new, &place)?;
    remove_tree(&old)
}

/// The oldest go, never the one of this generation.
fn prune(name: &str, root: &Path, but: u64) -> Result<()> {
    let mut all = list(name, root);
    all.retain(|snapshot| snapshot.generation != but);
    all.sort_by_key(|snapshot| snapshot.taken);
    let surplus = (all.len() + 1).saturating_sub(KEPT);
    all.iter().take(surplus).try_for_each(|snapshot| remove_tree(&snapshot.path))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    files::rename(from, to).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices => {
                "; one of them is a mount of its own, or in use"
            }
            _ => "",
        };
        Error::Other(format!("cannot move {} to {}: {error}{hint}", from.display(), to.display()))
    })
}

fn remove_tree(path: &Path) -> Result<()> {
    remove::tree(path).map(drop).map_err(|error| Error::Other(error.to_string()))
}

/// The directories go with the last snapshot.
fn tidy(name: &str, root: &Path) {
    let directory = directory(name, root);
    let _ = fs::remove_dir(&directory);
    let _ = directory.parent().map(fs::remove_dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("var/lib/nixos-containers/web");
        fs::create_dir_all(&root).unwrap();
        (dir, root)
    }

    fn content(path: &Path) -> String {
        fs::read_to_string(path.join("data")).unwrap_or_default()
    }

    /// A snapshot, made as a copy that takes no privileges.
    fn kept(root: &Path, generation: u64, text: &str) {
        let place = make_directory("web", root).unwrap().join(generation.to_string());
        fs::create_dir(&place).unwrap();
        fs::write(place.join("data"), text).unwrap();
    }

    #[test]
    fn a_swap_that_is_interrupted_anywhere_is_completed() {
        // The state after each of its steps.
        for steps in 0..=3 {
            let (_dir, root) = root();
            fs::write(root.join("data"), "now").unwrap();
            let present = identity(&root).unwrap();
            kept(&root, 1, "then");
            kept(&root, 2, "older");
            let directory = directory("web", &root);
            if steps >= 1 {
                fs::rename(&root, directory.join(".aside")).unwrap();
            }
            if steps >= 2 {
                fs::rename(directory.join("1"), &root).unwrap();
            }
            if steps >= 3 {
                fs::rename(directory.join("2"), directory.join(".2.old")).unwrap();
            }
            for _ in 0..2 {
                swap("web", &root, present, 2, 1).unwrap();
                settle("web", &root).unwrap();
                assert_eq!(
                    (content(&root).as_str(), content(&directory.join("2")).as_str()),
                    ("then", "now")
                );
                assert_eq!(list("web", &root).len(), 1, "after {steps} steps");
            }
        }
    }

    #[test]
    fn data_may_go_back_within_one_generation() {
        let (_dir, root) = root();
        fs::write(root.join("data"), "now").unwrap();
        kept(&root, 1, "then");
        swap("web", &root, identity(&root).unwrap(), 1, 1).unwrap();
        assert_eq!((content(&root).as_str(), content(&list("web", &root)[0].path).as_str()), ("then", "now"));
    }

    #[test]
    fn the_oldest_snapshots_go_and_the_rest_with_the_container() {
        let (dir, root) = root();
        for generation in 1..=5 {
            kept(&root, generation, "");
        }
        prune("web", &root, 1).unwrap();
        let left = list("web", &root);
        assert!(left.len() == KEPT && left[0].generation == 1, "{left:?}");
        fs::create_dir(directory("web", &root).join(".7.new")).unwrap();
        let paths = HostPaths::below(dir.path());
        remove_all("web", &paths).unwrap();
        remove_all("web", &paths).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("var/lib/nixos-containers")).unwrap().count(), 1);
    }

    #[test]
    fn what_an_interrupted_copy_left_is_removed() {
        let (_dir, root) = root();
        kept(&root, 1, "one");
        let directory = directory("web", &root);
        fs::create_dir(directory.join(".1.new")).unwrap();
        fs::rename(directory.join("1"), directory.join(".1.old")).unwrap();
        settle("web", &root).unwrap();
        assert_eq!(list("web", &root).len(), 1);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }
}
