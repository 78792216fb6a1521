//! Finds files below a root directory as a process inside it would, for checks before anything is created.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};

use runtime::HostPaths;

/// A file that exists.
#[derive(Debug)]
pub struct Found {
    /// Its path from the root, with no symlink left in it.
    pub path: PathBuf,
    /// Its type and mode.
    pub metadata: Metadata,
}

/// As many symlinks as the kernel follows in one path (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Where another store may be linked in when the host's root is a directory for tests: these links are part of how
/// that host was put together, not of what a process on it sees. Nix itself refuses a store behind a link.
const STORE_LINKS: [&str; 2] = ["/nix", "/nix/store"];

/// Follows an absolute `path` with `host`'s root as `/`: symlinks, absolute ones and `..` too, stay below it. The
/// host's own files are not hostile; this is for paths that mean the same on the host and in the container.
///
/// # Errors
/// What lstat(2) or readlink(2) says; `ELOOP` after 40 symlinks.
pub fn lookup(host: &HostPaths, path: &Path) -> io::Result<Found> {
    let mut done = PathBuf::from("/");
    let mut metadata = fs::metadata(host.root())?;
    let mut left = components(path);
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            done.pop();
            metadata = fs::symlink_metadata(host.join(&done))?;
            continue;
        }
        let next = done.join(&name);
        let place = host.join(&next);
        metadata = fs::symlink_metadata(&place)?;
        let store = STORE_LINKS.iter().any(|link| next == Path::new(link));
        if metadata.is_symlink() && store {
            metadata = fs::metadata(&place)?;
        }
        if !metadata.is_symlink() {
            done = next;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        let to = fs::read_link(&place)?;
        if to.is_absolute() {
            done = PathBuf::from("/");
        }
        for name in components(&to).into_iter().rev() {
            left.push_front(name);
        }
    }
    Ok(Found { path: done, metadata })
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
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
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(lookup(&host, Path::new("/loop")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
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
