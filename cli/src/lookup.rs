//! Finds files below a root directory as a process inside it would, for checks before anything is created.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use runtime::HostPaths;

/// A file that exists.
#[derive(Debug)]
pub struct Found {
    /// Its path from the root, with no symlink left in it.
    pub path: PathBuf,
    /// Its type and mode.
    pub metadata: Metadata,
}

/// Follows an absolute `path` with `host`'s root as `/`: symlinks, absolute ones and `..` too, stay below it.
///
/// # Errors
/// What openat2(2) or fstat(2) says; `ELOOP` for a magic link of procfs as well.
pub fn lookup(host: &HostPaths, path: &Path) -> io::Result<Found> {
    let root = File::open(host.root())?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = File::from(openat2(&root, path, how)?);
    let place = |file: &File| fs::read_link(Path::new("/proc/self/fd").join(file.as_raw_fd().to_string()));
    let (below, real) = (place(&root)?, place(&file)?);
    let path = Path::new("/").join(real.strip_prefix(&below).unwrap_or(&real));
    Ok(Found { path, metadata: file.metadata()? })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("etc/deep")).unwrap();
        fs::write(root.join("etc/file"), "").unwrap();
        symlink("/etc/file", root.join("absolute")).unwrap();
        symlink("../../../../../../../../etc/file", root.join("etc/deep/up")).unwrap();
        symlink("/proc/self/root/etc/passwd", root.join("out")).unwrap();
        let host = HostPaths::below(root);
        for path in ["/etc/file", "/absolute", "/etc/deep/up", "/../etc/deep/../file"] {
            let found = lookup(&host, Path::new(path)).unwrap();
            assert_eq!(found.path, Path::new("/etc/file"), "{path}");
            assert!(found.metadata.is_file());
        }
        assert_eq!(lookup(&host, Path::new("/out")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(lookup(&HostPaths::default(), Path::new("/proc/self/exe")).is_err());
        assert_eq!(lookup(&host, Path::new("/etc")).unwrap().path, Path::new("/etc"));
    }

    #[test]
    fn a_root_by_a_crooked_path_is_the_same_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        fs::write(dir.path().join("real/file"), "").unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        let host = HostPaths::below(dir.path().join("link/../link"));
        assert_eq!(lookup(&host, Path::new("/file")).unwrap().path, Path::new("/file"));
    }
}
