//! A directory and all that is in it, removed: of a container's root, which the container has filled. Nothing is
//! reached but by descriptors of what lies above it: a symbolic link is removed and never followed, and what is mounted
//! in the tree is detached, its content left as it is.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use runtime::sys::attributes::make_mutable;

/// How deep the tree is followed: what lies deeper moves up first, so that no tree takes more descriptors or stack.
const DEEPEST: usize = 64;
/// How many names of a directory are read at a time.
const NAMES: usize = 1024;
/// How many mounts may lie on one place, and how often a directory may be filled while it is emptied.
const TRIES: usize = 256;

/// Why a tree could not be removed; what is left of it can be removed by another call.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {errno}", path.display())]
pub struct RemoveError {
    doing: &'static str,
    path: PathBuf,
    errno: Errno,
}

/// Removes what is at `path`, which need not be there. A mount at `path` itself is emptied, as the container's own, and
/// then detached; one further in is only detached. Returns the paths of what was detached, those in the tree as they
/// were found.
///
/// # Errors
/// The first thing that cannot be removed.
pub fn tree(path: &Path) -> Result<Vec<PathBuf>, RemoveError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(RemoveError { doing: "remove", path: path.to_owned(), errno: Errno::EINVAL });
    };
    let mut remover = Remover { at: path.to_owned(), top: None, moved: 0, detached: Vec::new() };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let parent = match nix::fcntl::open(parent, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        opened => opened.map_err(|errno| remover.failed("open the directory above", errno))?,
    };
    remover.whole(&parent, &to_cstring(name))?;
    fsync(&parent);
    Ok(remover.detached)
}

struct Remover {
    /// Where we are, for messages.
    at: PathBuf,
    /// The tree's own directory, into which moves what lies too deep.
    top: Option<OwnedFd>,
    /// How much has moved.
    moved: u64,
    detached: Vec<PathBuf>,
}

impl Remover {
    fn failed(&self, doing: &'static str, errno: Errno) -> RemoveError {
        RemoveError { doing, path: self.at.clone(), errno }
    }

    /// The tree itself: emptied wherever it is mounted, layer by layer.
    fn whole(&mut self, parent: &OwnedFd, name: &CString) -> Result<(), RemoveError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        for _ in 0..TRIES {
            match openat(parent, name.as_c_str(), flags, Mode::empty()) {
                Err(Errno::ENOENT) => return Ok(()),
                Err(Errno::ENOTDIR | Errno::ELOOP) => return self.file(parent, name),
                Err(errno) => return Err(self.failed("open", errno)),
                Ok(directory) => {
                    self.top =
                        Some(directory.try_clone().map_err(|error| self.failed("open", errno_of(&error)))?);
                    let emptied = self.contents(&directory, 0);
                    self.top = None;
                    let mounted = self.is_mounted(parent, name);
                    match emptied {
                        // A file system that cannot be written to, which is not lost when it is detached.
                        Err(error) if error.errno == Errno::EROFS && mounted => {}
                        emptied => emptied?,
                    }
                    if !mounted {
                        match self.unlink(parent, name, UnlinkatFlags::RemoveDir) {
                            Err(error) if error.errno == Errno::ENOTEMPTY => continue,
                            Err(error) if error.errno == Errno::EBUSY => {}
                            done => return done,
                        }
                    }
                    drop(directory);
                    self.detach(parent, name)?;
                }
            }
        }
        Err(self.failed("empty", Errno::EBUSY))
    }

    /// Everything in a directory.
    fn contents(&mut self, directory: &OwnedFd, depth: usize) -> Result<(), RemoveError> {
        loop {
            let names = names(directory).map_err(|errno| self.failed("list", errno))?;
            if names.is_empty() {
                return Ok(());
            }
            for name in names {
                self.at.push(OsStr::from_bytes(name.as_bytes()));
                let done = self.entry(directory, &name, depth);
                // An error keeps its path.
                done?;
                self.at.pop();
            }
        }
    }

    fn entry(&mut self, directory: &OwnedFd, name: &CString, depth: usize) -> Result<(), RemoveError> {
        match unlinkat(directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EISDIR) => self.directory(directory, name, depth),
            // A mount point, an attribute, or a directory all the same.
            Err(_) if is_directory(directory, name) => self.directory(directory, name, depth),
            Err(_) => self.file(directory, name),
        }
    }

    fn file(&mut self, directory: &OwnedFd, name: &CString) -> Result<(), RemoveError> {
        for _ in 0..TRIES {
            match self.unlink(directory, name, UnlinkatFlags::NoRemoveDir) {
                Err(error) if error.errno == Errno::EBUSY => self.detach(directory, name)?,
                done => return done,
            }
        }
        Err(self.failed("remove", Errno::EBUSY))
    }

    fn directory(&mut self, parent: &OwnedFd, name: &CString, depth: usize) -> Result<(), RemoveError> {
        for _ in 0..TRIES {
            match within(parent, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
                Err(Errno::ENOENT) => return Ok(()),
                Err(Errno::EXDEV) => self.detach(parent, name)?,
                Err(errno) => return Err(self.failed("open", errno)),
                Ok(_) if depth >= DEEPEST => return self.move_up(parent, name),
                Ok(directory) => {
                    self.contents(&directory, depth + 1)?;
                    match self.unlink(parent, name, UnlinkatFlags::RemoveDir) {
                        Err(error) if error.errno == Errno::EBUSY => self.detach(parent, name)?,
                        Err(error) if error.errno == Errno::ENOTEMPTY => {}
                        done => return done,
                    }
                }
            }
        }
        Err(self.failed("empty", Errno::EBUSY))
    }

    /// Moves a directory to the top of the tree, whose turn comes again.
    fn move_up(&mut self, parent: &OwnedFd, name: &CString) -> Result<(), RemoveError> {
        let top = self.top.as_ref().map(OwnedFd::try_clone).transpose();
        let Ok(Some(top)) = top else { return Err(self.failed("open", Errno::EMFILE)) };
        loop {
            self.moved += 1;
            let new = format!(".nixrun-removes-{}", self.moved);
            // A directory replaces an empty one and nothing else.
            let moved = renameat(parent, name.as_c_str(), &top, new.as_str());
            match moved {
                Err(Errno::EEXIST | Errno::ENOTDIR | Errno::ENOTEMPTY) => {}
                Err(Errno::EPERM | Errno::EACCES) if self.mutable(parent, name) => {}
                moved => return moved.map_err(|errno| self.failed("move", errno)),
            }
        }
    }

    fn unlink(
        &mut self,
        directory: &OwnedFd,
        name: &CString,
        flag: UnlinkatFlags,
    ) -> Result<(), RemoveError> {
        let unlink = || unlinkat(directory, name.as_c_str(), flag);
        let mut done = unlink();
        if matches!(done, Err(Errno::EPERM | Errno::EACCES)) && self.mutable(directory, name) {
            done = unlink();
        }
        match done {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(self.failed("remove", errno)),
        }
    }

    /// Takes away what attributes of the directory or the entry forbid; whether there were any.
    fn mutable(&self, directory: &OwnedFd, name: &CString) -> bool {
        let above = make_mutable(directory.as_fd()).unwrap_or(false);
        let kind = |kind: &SFlag| matches!(*kind, SFlag::S_IFREG | SFlag::S_IFDIR);
        // Only these are opened: a device may begin to do what it does.
        let entry = file_type(directory, name)
            .filter(kind)
            .and_then(|_| within(directory, name, OFlag::O_RDONLY | OFlag::O_NONBLOCK).ok())
            .is_some_and(|file| make_mutable(file.as_fd()).unwrap_or(false));
        above || entry
    }

    fn is_mounted(&self, parent: &OwnedFd, name: &CString) -> bool {
        within(parent, name, OFlag::O_PATH).is_err_and(|errno| errno == Errno::EXDEV)
    }

    /// Detaches the topmost mount at a place, with all that is mounted in it.
    fn detach(&mut self, parent: &OwnedFd, name: &CString) -> Result<(), RemoveError> {
        // Crosses into the mount: the descriptor is of its root, and of what it was asked for though a name changes.
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let root = openat(parent, name.as_c_str(), flags, Mode::empty())
            .map_err(|errno| self.failed("open", errno))?;
        let root_path = format!("/proc/self/fd/{}", root.as_raw_fd());
        umount2(root_path.as_str(), MntFlags::MNT_DETACH)
            .map_err(|errno| self.failed("detach what is mounted on", errno))?;
        self.detached.push(self.at.clone());
        Ok(())
    }
}

/// Opens an entry of a directory, neither a link nor the root of a mount (EXDEV).
fn within(directory: &OwnedFd, name: &CString, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve =
        ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH;
    let how = OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).resolve(resolve);
    loop {
        match openat2(directory, name.as_c_str(), how) {
            // Something was renamed meanwhile.
            Err(Errno::EAGAIN) => {}
            opened => return opened,
        }
    }
}

/// Some of the names in a directory.
fn names(directory: &OwnedFd) -> nix::Result<Vec<CString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // Opened anew: read from its beginning.
    let mut listing = Dir::openat(directory, c".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
        if names.len() == NAMES {
            break;
        }
    }
    Ok(names)
}

fn file_type(directory: &OwnedFd, name: &CString) -> Option<SFlag> {
    let stat = fstatat(directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
    Some(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)
}

fn is_directory(directory: &OwnedFd, name: &CString) -> bool {
    file_type(directory, name) == Some(SFlag::S_IFDIR)
}

fn fsync(directory: &OwnedFd) {
    // What was removed may be there again after a power failure; then the change is completed again.
    let _ = nix::unistd::fsync(directory);
}

fn to_cstring(name: &OsStr) -> CString {
    // A path from the system or of a checked name has no NUL.
    CString::new(name.as_bytes()).unwrap_or_default()
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_removed_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("data"), "important").unwrap();
        symlink(&outside, root.join("a/link")).unwrap();
        symlink("../../outside", root.join("a/b/up")).unwrap();
        symlink("/nowhere", root.join("dangling")).unwrap();
        assert_eq!(tree(&root).unwrap(), Vec::<PathBuf>::new());
        assert!(fs::symlink_metadata(&root).is_err());
        assert_eq!(fs::read(outside.join("data")).unwrap(), b"important");

        symlink(&outside, &root).unwrap();
        tree(&root).unwrap();
        assert!(fs::symlink_metadata(&root).is_err());
        assert_eq!(fs::read(outside.join("data")).unwrap(), b"important");
        tree(&root).unwrap();
        tree(&dir.path().join("none/at/all")).unwrap();
    }

    #[test]
    fn no_tree_is_too_deep_or_too_wide() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        // Deeper than a path can name: made from the deepest directory up.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let mut at = nix::fcntl::open(&root, flags, Mode::empty()).unwrap();
        for _ in 0..1000 {
            nix::sys::stat::mkdirat(&at, "deep", Mode::S_IRWXU).unwrap();
            at = openat(&at, "deep", flags, Mode::empty()).unwrap();
        }
        // Names that those of what moves up meet.
        for number in 1..5 {
            fs::write(root.join(format!(".nixrun-removes-{number}")), "").unwrap();
        }
        for number in 0..1000 {
            fs::write(root.join(format!("file-{number}")), "").unwrap();
        }
        tree(&root).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn what_cannot_be_removed_is_named() {
        let error = tree(Path::new("/proc/self/fdinfo")).unwrap_err().to_string();
        assert!(error.contains("/proc/self/fdinfo/"), "{error}");
    }
}
