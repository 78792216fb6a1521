//! The two ends of a copy.

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use runtime::HostPaths;
use runtime::instance;
use runtime::sys::fd::openat2;
use runtime::sys::inroot::{RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS};
use runtime::sys::process::pidfd_send_signal;
use runtime::tree::{Node, Shift};

use super::{Found, Into, Side};
use crate::ops::{Error, Result};
use crate::settings::Settings;
use crate::{archive, configured, nixos_boot};

/// A path in a container, or on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The container.
    pub container: Option<String>,
    /// The path; in a container it begins at its root.
    pub path: PathBuf,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.container {
            Some(name) => write!(f, "{name}:{}", self.path.display()),
            None => write!(f, "{}", self.path.display()),
        }
    }
}

impl FromStr for Place {
    type Err = &'static str;

    /// NAME:PATH is in a container; a file of the host whose name has a colon is written ./NAME:PATH.
    fn from_str(text: &str) -> std::result::Result<Place, &'static str> {
        let (container, path) = match text.split_once(':') {
            Some((name, path)) if !name.contains('/') => (Some(name.to_owned()), path),
            _ => (None, text),
        };
        if path.is_empty() {
            return Err("there is no path");
        }
        Ok(Place { container, path: path.into() })
    }
}

impl Place {
    pub(super) fn open(&self, paths: &HostPaths) -> Result<Side> {
        let Some(name) = &self.container else {
            let root = File::open(".").map_err(|error| Error::Other(format!("cannot open .: {error}")))?;
            return Ok(Side { root: root.into(), shift: Shift::from_base(0), scoped: false, _hold: None });
        };
        configured::check_name(name)?;
        let failed = |why: String| Error::Other(format!("cannot reach the files of container {name}: {why}"));
        if let Some(found) = instance::find(paths, name).filter(|found| found.alive) {
            let gone = || failed("it is just being started, or ending".to_owned());
            let state = found.state.ok_or_else(gone)?;
            let leader = state.leader.open().ok_or_else(gone)?;
            let path = format!("/proc/{}/root", state.leader.pid);
            let root = File::open(&path).map_err(|error| failed(format!("{path}: {error}")))?;
            // The path is the leader's only if that still lives.
            pidfd_send_signal(leader.as_fd(), 0).map_err(|_| gone())?;
            let shift = Shift::from_base(state.users.map_or(0, |users| users.base));
            return Ok(Side { root: root.into(), shift, scoped: true, _hold: None });
        }
        let settings = Settings::read(name, paths)?;
        if settings.document.image == Some(true) {
            return Err(failed("its root is a disk image; start it first".to_owned()));
        }
        let path = nixos_boot::root_directory(name, &settings, paths)?;
        let hold = instance::hold_root(paths, &path)?;
        match archive::open_root(&path, settings.document.users()).map_err(failed)? {
            Some((root, shift)) => Ok(Side { root, shift, scoped: true, _hold: Some(hold) }),
            None => {
                Err(failed(format!("it was never started, and has no root directory {}", path.display())))
            }
        }
    }
}

impl Side {
    fn resolve(&self, path: &Path, flags: i32) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let path = CString::new(path.as_os_str().as_bytes())?;
        let resolve = if self.scoped { RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS } else { 0 };
        Ok(openat2(self.root.as_fd(), &path, flags, 0, resolve)?)
    }

    /// What is at a path, symlinks followed.
    pub(super) fn find(&self, path: &Path) -> io::Result<Found> {
        let mut path = path.to_owned();
        let asked = last(&path);
        for _ in 0..MOST_LINKS {
            let Some(name) = last(&path) else { break };
            let parent = path.parent().unwrap_or(Path::new(""));
            let directory = self.resolve(parent, libc::O_RDONLY | libc::O_DIRECTORY)?;
            let node = Node::open(directory.as_fd(), &name)?;
            if node.kind() != libc::S_IFLNK {
                return Ok(Found { directory, real_name: name, node, name: asked });
            }
            path = parent.join(node.target()?);
        }
        // `/`, `.` and `..`, or too many symlinks, which the kernel says.
        let directory = self.resolve(&path, libc::O_RDONLY | libc::O_DIRECTORY)?;
        let node = Node::open(directory.as_fd(), OsStr::new("."))?;
        Ok(Found { directory, real_name: ".".into(), node, name: asked })
    }

    /// Where something called `name` is to lie.
    pub(super) fn target(&self, path: &Path, name: Option<&OsStr>) -> io::Result<Into> {
        match self.resolve(path, libc::O_RDONLY | libc::O_DIRECTORY) {
            Ok(directory) => Ok(Into { directory, name: name.map(OsStr::to_owned) }),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                // A name of its own; the error is the one of a parent that is missing.
                let own = last(path).filter(|_| !path.as_os_str().as_bytes().ends_with(b"/")).ok_or(error)?;
                let parent = path.parent().unwrap_or(Path::new(""));
                let directory = self.resolve(parent, libc::O_RDONLY | libc::O_DIRECTORY)?;
                Ok(Into { directory, name: Some(own) })
            }
            Err(error) => Err(error),
        }
    }
}

/// As many as the kernel follows.
const MOST_LINKS: usize = 40;

/// The last part of a path, if it is a name; `a/.` means the content of `a`.
fn last(path: &Path) -> Option<OsString> {
    if path.as_os_str().as_bytes().ends_with(b"/.") {
        return None;
    }
    match path.components().next_back() {
        Some(Component::Normal(name)) => Some(name.to_owned()),
        _ => None,
    }
}
