//! The generations of a container's system, as Nix keeps those of any profile, so that `nix-env --list-generations`,
//! `--rollback` and `--delete-generations` work on them, too:
//!
//! ```text
//! /nix/var/nix/profiles/per-container/NAME/system        -> system-2-link
//!                                          system-1-link -> /nix/store/…-nixos-system-NAME-…
//!                                          system-2-link -> /nix/store/…-nixos-system-NAME-…
//!                                          system.lock   held while they change
//! ```
//! The directory is /nix/var/nix/profiles inside the container, whose root may write to it: what lies there is never
//! followed, and counts only where it leads into the store.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use runtime::HostPaths;

use super::store;
use crate::files;
use crate::life::remove;
use crate::ops::{Error, Result};

const PROFILES: &str = "/nix/var/nix/profiles/per-container";
const GC_ROOTS: &str = "/nix/var/nix/gcroots/per-container";
/// What Nix locks while it collects garbage, and shares while it makes roots.
const GC_LOCK: &str = "/nix/var/nix/gc.lock";
const PROFILE: &str = "system";
/// How long another one may hold the lock: whoever does makes a few links.
const LOCK_TIME: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// One system that the container has had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Its number, from 1.
    pub number: u64,
    /// The system's store path.
    pub system: PathBuf,
    /// When it was added.
    pub added: SystemTime,
    /// Whether it is what starts next.
    pub current: bool,
}

/// The directory of the container's profile.
#[must_use]
pub fn directory(name: &str, paths: &HostPaths) -> PathBuf {
    paths.join(PROFILES).join(name)
}

/// All generations, by number; none of a container that has no profile.
///
/// # Errors
/// When the profile cannot be read.
pub fn list(name: &str, paths: &HostPaths) -> Result<Vec<Generation>> {
    let directory = directory(name, paths);
    read(&directory).map_err(|error| {
        Error::Other(format!("cannot read the generations of {name} in {}: {error}", directory.display()))
    })
}

/// The generation that starts next.
///
/// # Errors
/// When the profile cannot be read.
pub fn current(name: &str, paths: &HostPaths) -> Result<Option<Generation>> {
    Ok(list(name, paths)?.into_iter().find(|generation| generation.current))
}

/// The generation of this number.
///
/// # Errors
/// When there is none; those that there are are named.
pub fn generation(name: &str, number: u64, paths: &HostPaths) -> Result<Generation> {
    let all = list(name, paths)?;
    let numbers: Vec<String> = all.iter().map(|generation| generation.number.to_string()).collect();
    all.into_iter().find(|generation| generation.number == number).ok_or_else(|| {
        let there = if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") };
        Error::Other(format!("container {name} has no generation {number}; there are {there}"))
    })
}

/// Adds a system as the newest generation, makes it the current one, and returns its number. The newest one again makes
/// no new generation, as under Nix.
///
/// # Errors
/// When it is not in the store, or the profile cannot be written; what was current still is then.
pub fn add(name: &str, system: &Path, paths: &HostPaths) -> Result<u64> {
    let number = register(name, system, paths)?;
    switch(name, number, paths)?;
    Ok(number)
}

/// Adds a system as the newest generation without making it the current one; as [`add`] otherwise.
///
/// # Errors
/// As [`add`].
pub fn register(name: &str, system: &Path, paths: &HostPaths) -> Result<u64> {
    let failed = |error: io::Error| {
        Error::Other(format!("cannot add {} to the generations of {name}: {error}", system.display()))
    };
    if !store::is_path(system) {
        return Err(failed(io::Error::other("it is no path of the Nix store")));
    }
    let directory = directory(name, paths);
    make(&directory, paths).map_err(failed)?;
    let _lock = Lock::take(&directory).map_err(failed)?;
    let _no_collection = GcLock::take(paths).map_err(failed)?;
    // Once nobody collects garbage: it might have been some.
    fs::symlink_metadata(paths.join(system)).map_err(failed)?;
    let last = read(&directory).map_err(failed)?.pop();
    match last {
        Some(last) if last.system == system => Ok(last.number),
        last => {
            // A number that was in use is not used again while a higher one, or this one, is there.
            let number = last.map_or(0, |last| last.number) + 1;
            files::replace_link(&directory.join(link(number)), system).map_err(failed)?;
            Ok(number)
        }
    }
}

/// Makes an earlier or later generation the current one.
///
/// # Errors
/// When there is no such generation, or the profile cannot be written.
pub fn switch(name: &str, number: u64, paths: &HostPaths) -> Result<()> {
    let failed = |error: io::Error| {
        Error::Other(format!("cannot make generation {number} of {name} the current one: {error}"))
    };
    let directory = directory(name, paths);
    generation(name, number, paths)?;
    let _lock = Lock::take(&directory).map_err(failed)?;
    generation(name, number, paths)?;
    sweep(&directory);
    files::replace_link(&directory.join(PROFILE), Path::new(&link(number))).map_err(failed)
}

/// Removes links that a process was making when it was killed.
///
/// # Errors
/// When the profile cannot be locked.
pub(super) fn tidy(name: &str, paths: &HostPaths) -> Result<()> {
    let directory = directory(name, paths);
    if directory.is_dir() {
        let _lock = Lock::take(&directory).map_err(|error| {
            Error::Other(format!("cannot tidy up the profile of container {name}: {error}"))
        })?;
        sweep(&directory);
    }
    Ok(())
}

/// Removes the profile with all generations, and the roots that the container's own Nix has. They need not be there.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_all(name: &str, paths: &HostPaths) -> Result<()> {
    // The container's root could write there: nothing is followed, and what is mounted there stays.
    for directory in [directory(name, paths), paths.join(GC_ROOTS).join(name)] {
        remove::tree(&directory).map_err(|error| Error::Other(error.to_string()))?;
    }
    Ok(())
}

fn link(number: u64) -> String {
    format!("{PROFILE}-{number}-link")
}

/// The number in the name of a generation's link.
fn number(name: &str) -> Option<u64> {
    name.strip_prefix(PROFILE)?.strip_prefix('-')?.strip_suffix("-link")?.parse().ok()
}

fn read(directory: &Path) -> io::Result<Vec<Generation>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let current = fs::read_link(directory.join(PROFILE)).ok();
    let current = current.and_then(|to| number(to.file_name()?.to_str()?));
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(number) else { continue };
        // What is no link into the store is no generation, whoever made it.
        let Some(system) = fs::read_link(entry.path()).ok().filter(|to| store::is_path(to)) else { continue };
        let added = entry.metadata()?.modified()?;
        found.push(Generation { number, system, added, current: current == Some(number) });
    }
    found.sort_by_key(|generation| generation.number);
    Ok(found)
}

/// As `nixos-container` makes them: nobody on the host is to meddle with users of containers that have the same ids.
fn make(directory: &Path, paths: &HostPaths) -> io::Result<()> {
    let profiles = paths.join(PROFILES);
    fs::create_dir_all(profiles.parent().unwrap_or(Path::new("/")))?;
    for (directory, mode) in [(profiles.as_path(), 0o700), (directory, 0o755)] {
        match DirBuilder::new().mode(mode).create(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    Ok(())
}

/// Links of a process that was killed before it renamed them. Only under the lock.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(".system")) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Nix's lock on a profile: flock(2) on a file beside it, which its holder removes, and marks for those who have opened
/// it before and wait.
struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    fn take(directory: &Path) -> io::Result<Lock> {
        let path = directory.join(format!("{PROFILE}.lock"));
        let deadline = Instant::now() + LOCK_TIME;
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path)?;
            match file.try_lock() {
                // One that is not empty has been removed.
                Ok(()) if file.metadata()?.len() == 0 => return Ok(Lock { file, path }),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if Instant::now() >= deadline {
                let sentence = format!("another process holds {}", path.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, sentence));
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = self.file.write_all(b"d");
    }
}

/// No garbage is collected while this is held.
struct GcLock {
    _file: Option<File>,
}

impl GcLock {
    fn take(paths: &HostPaths) -> io::Result<GcLock> {
        match File::open(paths.join(GC_LOCK)) {
            // Nobody has ever collected any here.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(GcLock { _file: None }),
            file => {
                let file = file?;
                file.lock_shared()?;
                Ok(GcLock { _file: Some(file) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const A: &str = "/nix/store/00000000000000000000000000000000-nixos-system-web-1";
    const B: &str = "/nix/store/11111111111111111111111111111111-nixos-system-web-2";

    fn host() -> (tempfile::TempDir, HostPaths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = HostPaths::below(dir.path());
        for system in [A, B] {
            fs::create_dir_all(paths.join(system)).unwrap();
        }
        (dir, paths)
    }

    fn numbers(paths: &HostPaths) -> Vec<(u64, bool)> {
        list("web", paths).unwrap().iter().map(|g| (g.number, g.current)).collect()
    }

    #[test]
    fn the_newest_system_again_is_no_new_generation() {
        let (_dir, paths) = host();
        assert_eq!(list("web", &paths).unwrap(), []);
        assert_eq!(add("web", Path::new(A), &paths).unwrap(), 1);
        assert_eq!(add("web", Path::new(A), &paths).unwrap(), 1);
        assert_eq!(add("web", Path::new(B), &paths).unwrap(), 2);
        assert_eq!(add("web", Path::new(A), &paths).unwrap(), 3);
        assert_eq!(numbers(&paths), [(1, false), (2, false), (3, true)]);
        switch("web", 1, &paths).unwrap();
        assert_eq!(current("web", &paths).unwrap().unwrap().number, 1);
        // Not the current one but the newest counts.
        assert_eq!(add("web", Path::new(A), &paths).unwrap(), 3);
        let directory = directory("web", &paths);
        assert_eq!(fs::read_link(directory.join("system")).unwrap(), Path::new("system-3-link"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(directory.parent().unwrap())), (0o755, 0o700));
        assert!(!directory.join("system.lock").exists());
        remove_all("web", &paths).unwrap();
        remove_all("web", &paths).unwrap();
        assert_eq!(list("web", &paths).unwrap(), []);
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let (_dir, paths) = host();
        let error = add("web", Path::new("/tmp/x"), &paths).unwrap_err().to_string();
        assert!(error.contains("no path of the Nix store"), "{error}");
        let gone = "/nix/store/22222222222222222222222222222222-gone";
        assert!(add("web", Path::new(gone), &paths).unwrap_err().to_string().contains("No such file"));
        add("web", Path::new(A), &paths).unwrap();
        add("web", Path::new(B), &paths).unwrap();
        let error = switch("web", 7, &paths).unwrap_err().to_string();
        assert!(error.contains("no generation 7; there are 1, 2"), "{error}");
    }

    #[test]
    fn what_the_container_put_there_is_no_generation_and_not_followed() {
        let (dir, paths) = host();
        add("web", Path::new(A), &paths).unwrap();
        let directory = directory("web", &paths);
        symlink("/etc", directory.join("system-2-link")).unwrap();
        fs::create_dir(directory.join("system-3-link")).unwrap();
        fs::write(directory.join("system-x-link"), "").unwrap();
        assert_eq!(numbers(&paths), [(1, true)]);
        let victim = dir.path().join("victim");
        fs::write(&victim, "").unwrap();
        symlink(&victim, directory.join("system.lock")).unwrap();
        assert!(add("web", Path::new(B), &paths).is_err());
        assert_eq!(fs::read(&victim).unwrap(), b"");
    }

    #[test]
    fn links_of_a_killed_process_go() {
        let (_dir, paths) = host();
        add("web", Path::new(A), &paths).unwrap();
        let left = directory("web", &paths).join(".system-2-link.123");
        symlink(B, &left).unwrap();
        switch("web", 1, &paths).unwrap();
        assert!(fs::symlink_metadata(&left).is_err());
    }

    #[test]
    fn whoever_holds_nixs_lock_is_waited_for() {
        let (_dir, paths) = host();
        add("web", Path::new(A), &paths).unwrap();
        let lock = Lock::take(&directory("web", &paths)).unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| add("web", Path::new(B), &paths).unwrap());
            std::thread::sleep(LOOK * 3);
            assert_eq!(numbers(&paths), [(1, true)]);
            drop(lock);
            assert_eq!(other.join().unwrap(), 2);
        });
    }
}
