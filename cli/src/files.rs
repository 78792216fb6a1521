//! Files that are there whole or not at all, whatever ends us in between: written beside their place, synced, renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Replaces the file at `path`, or makes it, with `mode`. A crash leaves the old one, or the new one.
///
/// # Errors
/// What the kernel says; the old file is as it was then.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let beside = beside(path);
    let write = || {
        let options = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside);
        let mut file = options?;
        file.write_all(content)?;
        // The umask has no say, and the content is on the disk before its name is.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    // Of a process that was killed and had our id.
    let _ = fs::remove_file(&beside);
    write().inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })?;
    sync_parent(path)
}

/// Makes `path` a symbolic link to `target`, in place of what is there unless that is a directory.
///
/// # Errors
/// What the kernel says; what was there is as it was then.
pub fn replace_link(path: &Path, target: &Path) -> io::Result<()> {
    let beside = beside(path);
    let _ = fs::remove_file(&beside);
    std::os::unix::fs::symlink(target, &beside)?;
    fs::rename(&beside, path).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })?;
    sync_parent(path)
}

/// Removes a file, for good. It need not be there.
///
/// # Errors
/// What the kernel says.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) => sync_parent(path),
        failed => failed,
    }
}

/// Removes new files for `path` that were never put in its place, by processes that were killed: for who holds the lock
/// that every writer of it takes.
pub fn sweep(path: &Path) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
    let begin = format!(".{}.", name.to_string_lossy());
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_beside = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix(&begin))
            .is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()));
        if is_beside {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Renames, for good.
///
/// # Errors
/// What the kernel says.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(from)?;
    sync_parent(to)
}

/// What happened to names in the directory of `path` is on the disk afterwards.
///
/// # Errors
/// What the kernel says.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Where the new file is written: hidden, in the same directory, of no other process.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_stays_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.conf");
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
        replace_link(&path, Path::new("/x")).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("/x"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(fs::symlink_metadata(&path).is_err());
    }

    #[test]
    fn what_a_killed_writer_left_is_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.conf");
        for name in [".a.conf.12", "a.conf", ".a.conf.x", ".a.conf.", ".ab.conf.12"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        sweep(&path);
        assert!(!dir.path().join(".a.conf.12").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
        sweep(Path::new("/nowhere/at/all"));
    }

    #[test]
    fn what_cannot_be_replaced_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"x", 0o644).is_err());
        assert!(replace(&dir.path().join("none/a"), b"x", 0o644).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
