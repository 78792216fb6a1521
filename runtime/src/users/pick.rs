//! A range of ids that nobody else uses, by systemd-nspawn's rules, so that neither takes the other's.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{Doing, Error, ErrorKind};
use crate::instance::lock_file;
use crate::plan::{IdRange, PICK_FROM, PICK_TO, reduce};

/// How many ranges are tried, as in systemd-nspawn.
const TRIES: u32 = 100;

/// A range that is ours: systemd-nspawn's lock file, removed on drop.
#[derive(Debug)]
pub struct IdLock {
    path: PathBuf,
    _file: File,
}

impl Drop for IdLock {
    fn drop(&mut self) {
        // Before the lock goes with the file: after that it may be another's.
        let _ = fs::remove_file(&self.path);
    }
}

/// The first of the candidates that is free, or any.
pub(super) fn pick(
    candidates: [IdRange; 2],
    locks: &Path,
    databases: &[PathBuf; 2],
    journal: &mut impl FnMut(&Path) -> Result<(), Error>,
) -> Result<(IdRange, IdLock), Error> {
    let known = known_ids(databases);
    let mut candidates = candidates.into_iter();
    for _ in 0..TRIES {
        let range = match candidates.next() {
            Some(range) => range,
            None => random()?,
        };
        if range.base < PICK_FROM || range.base >= PICK_TO || known.iter().any(|id| range.contains(*id)) {
            continue;
        }
        let path = locks.join(range.base.to_string());
        journal(&path)?;
        if let Some(lock) = take(path)? {
            return Ok((range, lock));
        }
    }
    Err(Error::new(
        ErrorKind::Busy,
        format!("no free range of 65536 ids was found between {PICK_FROM} and {PICK_TO} in {TRIES} tries"),
    )
    .hint("name a range for the container, or remove users and groups with ids there"))
}

fn random() -> Result<IdRange, Error> {
    let mut chance = [0; 4];
    crate::sys::fd::random(&mut chance).doing(|| "draw a random range of ids".to_owned())?;
    Ok(reduce(u32::from_ne_bytes(chance)))
}

fn take(path: PathBuf) -> Result<Option<IdLock>, Error> {
    let doing = || format!("lock {}", path.display());
    // Whoever was the last to have a lock there may have removed the directory meanwhile.
    loop {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(directory).doing(doing)?;
        }
        match lock_file(&path, false) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(Some(file)) => return Ok(Some(IdLock { path, _file: file })),
            Ok(None) => return Ok(None),
            Err(error) => return Err(error).doing(doing),
        }
    }
}

/// Removes the lock of a process that is dead; one that somebody holds stays.
///
/// # Errors
/// When the file cannot be locked.
pub fn unlock_dead(path: &Path) -> Result<bool, Error> {
    if !path.exists() {
        return Ok(false);
    }
    Ok(take(path.to_path_buf())?.is_some())
}

/// The ids of all users and groups that the files name: a static program has no other databases (nss(5)).
fn known_ids(databases: &[PathBuf; 2]) -> Vec<u32> {
    let text = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
    let id = |line: &str| line.split(':').nth(2)?.parse().ok();
    databases.iter().flat_map(|path| text(path).lines().filter_map(id).collect::<Vec<u32>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, PathBuf, [PathBuf; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let locks = dir.path().join("run/systemd/nspawn-uid");
        let databases = ["passwd", "group"].map(|file| dir.path().join(file));
        (dir, locks, databases)
    }

    #[test]
    fn a_range_is_taken_once_and_free_again() {
        let (_dir, locks, databases) = host();
        let mut told = Vec::new();
        let mut journal = |path: &Path| {
            assert!(!path.exists() || !told.is_empty(), "the journal comes first");
            told.push(path.to_path_buf());
            Ok(())
        };
        let (root, hashed) = (IdRange::from(0), IdRange::from(0x10_0000));
        let (first, lock) = pick([root, hashed], &locks, &databases, &mut journal).unwrap();
        assert_eq!(first, hashed, "0 is the host's own");
        let (second, _other) = pick([root, hashed], &locks, &databases, &mut journal).unwrap();
        assert_ne!(second, hashed);
        assert!(second.is_aligned());
        drop(lock);
        let (third, _lock) = pick([root, hashed], &locks, &databases, &mut journal).unwrap();
        assert_eq!(third, hashed);
    }

    #[test]
    fn the_roots_range_comes_first() {
        let (_dir, locks, databases) = host();
        let (root, hashed) = (IdRange::from(0x20_0000), IdRange::from(0x10_0000));
        assert_eq!(pick([root, hashed], &locks, &databases, &mut |_| Ok(())).unwrap().0, root);
    }

    #[test]
    fn a_range_with_a_user_or_group_of_the_host_is_passed_over() {
        let (_dir, locks, databases) = host();
        let (root, hashed) = (IdRange::from(0x20_0000), IdRange::from(0x10_0000));
        fs::write(&databases[0], "root:x:0:0::/:/bin/sh\na:x:2097190:5::/:/bin/sh\n").unwrap();
        assert_eq!(pick([root, hashed], &locks, &databases, &mut |_| Ok(())).unwrap().0, hashed);
        fs::write(&databases[1], "g:x:1114111:\n").unwrap();
        let (other, _lock) = pick([root, hashed], &locks, &databases, &mut |_| Ok(())).unwrap();
        assert!(other != hashed && other != root);
    }

    #[test]
    fn only_a_dead_ones_lock_is_removed() {
        let (_dir, locks, databases) = host();
        let ranges = [IdRange::from(0x20_0000); 2];
        let (_, lock) = pick(ranges, &locks, &databases, &mut |_| Ok(())).unwrap();
        let path = lock.path.clone();
        assert!(!unlock_dead(&path).unwrap() && path.exists());
        drop(lock);
        assert!(!unlock_dead(&path).unwrap());
        fs::write(&path, "").unwrap();
        assert!(unlock_dead(&path).unwrap() && !path.exists());
    }
}
