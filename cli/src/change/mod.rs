//! Changes of a container that take several steps: create, destroy, update and their kind. One at a time for each
//! container, and whole or not at all: whatever ends nixrun in between, or the machine, the next command on that
//! container completes or undoes what was begun.
//!
//! ```text
//! /run/nixrun/.changes/NAME         locked by whoever changes the container; says who that is
//! /var/lib/nixrun/changes/NAME      what is being changed: one Intent, written before the first step
//! ```
//! A change is written as:
//! ```text
//! Change::begin      the lock; what another one left is recovered
//! change.intend      before the first step: all that recovery needs
//!   …steps…          each may be done twice: recovery may meet it done, half done or not begun
//! change.done        after the last
//! ```

mod intent;
mod lock;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use runtime::HostPaths;

pub use intent::Intent;
use lock::Lock;

use crate::files;
use crate::ops::{Error, Result};

/// Where intents are kept: they outlive a restart of the machine.
const DIRECTORY: &str = "/var/lib/nixrun/changes";

/// A container that nobody else changes until this is dropped.
#[derive(Debug)]
pub struct Change<'a> {
    name: String,
    paths: &'a HostPaths,
    _lock: Lock,
}

impl<'a> Change<'a> {
    /// Takes the lock, for a command of this name (`"update"`), and recovers what an earlier change left.
    ///
    /// # Errors
    /// When somebody else changes the container, who is named; and when what was left cannot be recovered.
    pub fn begin(name: &str, command: &str, paths: &'a HostPaths) -> Result<Change<'a>> {
        let lock = Lock::take(name, command, paths)?;
        let change = Change { name: name.to_owned(), paths, _lock: lock };
        change.recover()?;
        Ok(change)
    }

    /// Writes down what is about to be done. What is intended later replaces it: an intent may be narrowed as its
    /// steps are done.
    ///
    /// # Errors
    /// When it cannot be written; nothing has been changed then.
    pub fn intend(&self, intent: &Intent) -> Result<()> {
        let file = file(&self.name, self.paths);
        let failed = |error: io::Error| {
            Error::Other(format!("cannot write {} before a change: {error}", file.display()))
        };
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let text = serde_json::to_vec(intent).map_err(io::Error::from).map_err(failed)?;
        files::replace(&file, &text, 0o600).map_err(failed)
    }

    /// Everything that was intended has been done, or undone.
    ///
    /// # Errors
    /// When the intent cannot be removed: it will be recovered again, which does no harm.
    pub fn done(&self) -> Result<()> {
        let file = file(&self.name, self.paths);
        files::remove(&file).map_err(|error| {
            Error::Other(format!("cannot remove {} after a change: {error}", file.display()))
        })?;
        tidy(self.paths);
        Ok(())
    }

    fn recover(&self) -> Result<()> {
        files::sweep(&file(&self.name, self.paths));
        let Some(intent) = pending(&self.name, self.paths)? else { return Ok(()) };
        intent.recover(&self.name, self)?;
        self.done()
    }

    /// The container.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host.
    #[must_use]
    pub fn paths(&self) -> &'a HostPaths {
        self.paths
    }
}

/// Completes or undoes what a killed command left of a container, if nobody is changing it: before it is started.
///
/// # Errors
/// When something was left and cannot be recovered.
pub fn settle(name: &str, paths: &HostPaths) -> Result<()> {
    if pending(name, paths)?.is_none() {
        return Ok(());
    }
    match Lock::take(name, "recovery", paths) {
        Ok(lock) => Change { name: name.to_owned(), paths, _lock: lock }.recover(),
        // Not left: somebody is at it, who starts the container as part of it.
        Err(_) => Ok(()),
    }
}

/// Containers with a change that was begun and not ended, be it going on.
#[must_use]
pub fn unfinished(paths: &HostPaths) -> Vec<String> {
    let entries = fs::read_dir(paths.join(DIRECTORY)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// Who changes the container now, such as `process 123 (nixrun update)`.
#[must_use]
pub fn holder(name: &str, paths: &HostPaths) -> Option<String> {
    lock::holder(name, paths)
}

fn file(name: &str, paths: &HostPaths) -> PathBuf {
    paths.join(DIRECTORY).join(name)
}

fn pending(name: &str, paths: &HostPaths) -> Result<Option<Intent>> {
    let file = file(name, paths);
    let failed = |error: &dyn std::fmt::Display| {
        Error::Other(format!(
            "cannot read {}, which says what an interrupted change of container {name} was: {error}",
            file.display()
        ))
    };
    match fs::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error)),
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| failed(&error)),
    }
}

/// Removes what commands that were killed have left beside their changes: files that nobody holds a lock on.
pub(crate) fn sweep(paths: &HostPaths) {
    let locks = fs::read_dir(paths.join(lock::DIRECTORY)).into_iter().flatten().flatten();
    for name in locks.filter_map(|entry| entry.file_name().into_string().ok()) {
        // Dropping a lock removes its file.
        drop(Lock::take(&name, "reclaim", paths));
    }
    let intents = fs::read_dir(paths.join(DIRECTORY)).into_iter().flatten().flatten();
    for new in intents.filter_map(|entry| entry.file_name().into_string().ok()) {
        // Never written to the end: .NAME.PID.
        let name = new.strip_prefix('.').and_then(|new| new.rsplit_once('.')).map(|(name, _)| name);
        if let Some(_lock) = name.and_then(|name| Lock::take(name, "reclaim", paths).ok()) {
            let _ = fs::remove_file(paths.join(DIRECTORY).join(&new));
        }
    }
    let _ = fs::remove_dir(paths.join(lock::DIRECTORY));
    tidy(paths);
}

/// The directories of all changes go with the last one.
fn tidy(paths: &HostPaths) {
    let _ = fs::remove_dir(paths.join(DIRECTORY));
    let _ = fs::remove_dir(paths.join(Path::new(DIRECTORY).parent().unwrap_or(Path::new("/"))));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, HostPaths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = HostPaths::below(dir.path());
        (dir, paths)
    }

    #[test]
    fn the_second_change_is_refused_and_the_holder_named() {
        let (dir, paths) = host();
        let first = Change::begin("web", "update", &paths).unwrap();
        let error = Change::begin("web", "destroy", &paths).unwrap_err().to_string();
        let us = format!("process {} (nixrun update)", std::process::id());
        assert!(error.contains("web") && error.contains(&us), "{error}");
        assert_eq!(holder("web", &paths), Some(us));
        Change::begin("other", "update", &paths).unwrap();
        drop(first);
        assert_eq!(holder("web", &paths), None);
        Change::begin("web", "destroy", &paths).unwrap();
        assert!(!dir.path().join("run/nixrun").exists(), "something was left");
    }

    #[test]
    fn what_was_begun_is_recovered_by_the_next_one() {
        let (dir, paths) = host();
        let first = Change::begin("web", "test", &paths).unwrap();
        let left = dir.path().join("left");
        fs::write(&left, "").unwrap();
        first.intend(&Intent::Remove { files: vec![left.clone()] }).unwrap();
        assert_eq!(unfinished(&paths), ["web"]);
        drop(first);
        settle("web", &paths).unwrap();
        assert!(!left.exists() && unfinished(&paths).is_empty());
        assert!(!dir.path().join("var/lib/nixrun").exists(), "something was left");
    }

    #[test]
    fn a_change_that_goes_on_is_not_recovered() {
        let (dir, paths) = host();
        let first = Change::begin("web", "test", &paths).unwrap();
        let left = dir.path().join("left");
        fs::write(&left, "").unwrap();
        first.intend(&Intent::Remove { files: vec![left.clone()] }).unwrap();
        settle("web", &paths).unwrap();
        assert!(left.exists());
        first.done().unwrap();
    }
}
