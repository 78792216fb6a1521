//! `nixrun cp`: files into a container and out of it, running or not.
//!
//! A path in a container is resolved as the container would resolve it: below its root, whose symlinks lead nowhere
//! else. A running one is seen through its PID 1, with all that is mounted in it.
//!
//! As `cp -aH`: directories whole, everything about a file kept, a symlink that is named itself is followed. Owners are
//! numbers as the container counts them, in both directions: its user 1000 is user 1000 outside. What comes out of a container brings no rights along: no set-id bits, no file capabilities, no device nodes.

mod place;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use runtime::HostPaths;
use runtime::tree::{MakeAs, Mounts, Node, Shift};

pub use place::Place;

use crate::archive::Watch;
use crate::archive::member::{Member, What};
use crate::archive::unpack::Unpacker;
use crate::archive::write::{Data, Take, Tree, WriteError};
use crate::ops::{Error, Result};

/// What is to be copied where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRequest {
    /// What.
    pub source: Place,
    /// Its new name, or the directory that it is to lie in.
    pub target: Place,
}

/// Set-id bits.
const SET_ID: u32 = 0o6000;
/// Attributes that give rights, or that the host's own programs believe.
const RIGHTS: [&[u8]; 2] = [b"security.", b"trusted."];

/// Copies. What to tell the user is returned, a sentence each.
///
/// # Errors
/// When either place cannot be reached, and when a file cannot be copied: those before it are there then.
pub fn copy(request: &CopyRequest, watch: &mut dyn Watch, paths: &HostPaths) -> Result<Vec<String>> {
    let CopyRequest { source, target } = request;
    if source.container.is_none() && target.container.is_none() {
        return Err(Error::Other(format!(
            "cannot copy {source} to {target}: neither is in a container; write NAME:PATH, or use cp"
        )));
    }
    let (from, to) = (source.open(paths)?, target.open(paths)?);
    let failed = |place: &Place, error: io::Error| {
        Error::Other(format!("cannot copy {source} to {target}: {place}: {error}"))
    };
    let found = from.find(&source.path).map_err(|error| failed(source, error))?;
    let into = to.target(&target.path, found.name.as_deref()).map_err(|error| failed(target, error))?;
    let is_directory = found.node.kind() == libc::S_IFDIR;
    if !is_directory && into.name.is_none() {
        return Err(failed(target, io::Error::from_raw_os_error(libc::EISDIR)));
    }
    // What is made belongs to the container's root before it gets its owner.
    let _made_as = (to.shift.base() != 0)
        .then(|| MakeAs::new(to.shift.base()))
        .transpose()
        .map_err(|error| failed(target, error))?;
    let mut receiver = Receiver {
        unpacker: Unpacker::new(into.directory, to.shift, watch).among_others(),
        name: into.name,
        plain: source.container.is_some(),
        warnings: Vec::new(),
    };
    let copied = if is_directory {
        let top: OwnedFd = found.open().map_err(|error| failed(source, error))?;
        Tree::new(&mut receiver, top.as_fd(), from.shift, Mounts::Cross).all()
    } else {
        let name = found.real_name.as_os_str();
        Tree::new(&mut receiver, found.directory.as_fd(), from.shift, Mounts::Cross)
            .entry(found.directory.as_fd(), name, Path::new(""))
            .map(drop)
    };
    copied.map_err(|error| match error {
        WriteError::Write(error) if error.kind() == io::ErrorKind::Interrupted => Error::Other(format!(
            "cannot copy {source} to {target}: it was interrupted; what was copied stays"
        )),
        WriteError::Write(error) => failed(target, error),
        WriteError::Read { path, source: error } => {
            failed(source, io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        }
    })?;
    let Receiver { unpacker, mut warnings, .. } = receiver;
    let unknown = unpacker.finish().map_err(|error| failed(target, error))?;
    warnings.extend(
        unknown
            .into_iter()
            .map(|name| format!("the file system of {target} has no attributes called {name}")),
    );
    Ok(warnings)
}

/// What of a container, or of the host, can be reached.
#[derive(Debug)]
struct Side {
    root: OwnedFd,
    shift: Shift,
    /// Whether paths are resolved below the root alone.
    scoped: bool,
    /// Nobody starts a container that does not run, meanwhile.
    _hold: Option<runtime::instance::RootHold>,
}

/// A file that is to be copied.
struct Found {
    directory: OwnedFd,
    /// Its name there, where no symlink is any more.
    real_name: OsString,
    node: Node,
    /// The name that it has been called by; none for a directory whose content is meant.
    name: Option<OsString>,
}

impl Found {
    fn open(&self) -> io::Result<OwnedFd> {
        runtime::tree::directory(self.directory.as_fd(), Path::new(&self.real_name), Mounts::Cross)
    }
}

/// Where it goes.
struct Into {
    directory: OwnedFd,
    /// Its name there; none when the directory itself is filled.
    name: Option<OsString>,
}

/// The files, one after the other, under the target's name.
struct Receiver<'w> {
    unpacker: Unpacker<'w>,
    name: Option<OsString>,
    /// Whether rights are left behind.
    plain: bool,
    warnings: Vec<String>,
}

impl Receiver<'_> {
    fn path(&self, path: &Path) -> PathBuf {
        let name = self.name.as_deref().unwrap_or(OsStr::new(""));
        if path.as_os_str().is_empty() { PathBuf::from(name) } else { Path::new(name).join(path) }
    }
}

impl Take for Receiver<'_> {
    fn take(&mut self, mut member: Member, file: Option<&File>) -> std::result::Result<(), WriteError> {
        if self.plain {
            if matches!(member.what, What::Device { .. }) {
                self.warn(format!("{:?} is a device node, which was left out", member.path));
                return Ok(());
            }
            member.mode &= !SET_ID;
            member.attributes.retain(|(name, _)| !RIGHTS.iter().any(|rights| name.starts_with(rights)));
        }
        let mut data = Data::new(&member, file);
        let path = member.path.clone();
        member.path = self.path(&path);
        if let What::HardLink(to) = &member.what {
            member.what = What::HardLink(self.path(to));
        }
        if member.path.as_os_str().is_empty() {
            // A directory that is filled stays what it is.
            return Ok(());
        }
        let made = self.unpacker.member(member, &mut data);
        if let Some(source) = data.failed.take() {
            return Err(WriteError::Read { path, source });
        }
        made.map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error.into(),
            kind => io::Error::new(kind, format!("{}: {error}", path.display())).into(),
        })
    }

    fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }
}
