//! Who changes a container: one at a time, and known by name to those who come too late.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use runtime::HostPaths;
use runtime::sys::lock;

use crate::configured;
use crate::ops::{Error, Result};

pub(super) const DIRECTORY: &str = "/run/nixrun/.changes";

/// A lock on a container's name. The kernel releases it when we are killed.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    parents: [PathBuf; 2],
    _file: File,
}

impl Lock {
    pub(super) fn take(name: &str, command: &str, paths: &HostPaths) -> Result<Lock> {
        configured::check_name(name)?;
        let directory = paths.join(DIRECTORY);
        let path = directory.join(name);
        let parents = [directory, paths.join("/run/nixrun")];
        let locked = open_locked(&path).map_err(|error| {
            Error::Other(format!(
                "cannot lock container {name} by {}: {error}{}",
                path.display(),
                if error.kind() == io::ErrorKind::PermissionDenied { "; run nixrun as root" } else { "" }
            ))
        })?;
        let Some(mut file) = locked else {
            let holder = holder(name, paths).unwrap_or_else(|| "another process".to_owned());
            return Err(Error::Other(format!(
                "container {name} is being changed by {holder}; wait until that has ended"
            )));
        };
        // Only for the sentence above.
        let _ = file.set_len(0).and_then(|()| write!(file, "{} {command}", std::process::id()));
        Ok(Lock { path, parents, _file: file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is held: who opens it from now on sees that it has no name any more.
        let _ = fs::remove_file(&self.path);
        for parent in &self.parents {
            let _ = fs::remove_dir(parent);
        }
    }
}

pub(super) fn holder(name: &str, paths: &HostPaths) -> Option<String> {
    let mut file = File::open(paths.join(DIRECTORY).join(name)).ok()?;
    if !lock::is_locked(&file).unwrap_or(false) {
        return None;
    }
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let (pid, command) = text.split_once(' ')?;
    Some(format!("process {pid} (nixrun {command})"))
}

/// Opens and locks a file that its holders remove; `None` when it is held.
fn open_locked(path: &std::path::Path) -> io::Result<Option<File>> {
    loop {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW);
        let file = match options.open(path) {
            // The last of other changes has removed the directory between the two steps.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        match lock::try_lock(&file) {
            Ok(()) => {}
            Err(error) if matches!(error.errno(), nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
        let (ours, now) = (file.metadata()?, fs::metadata(path));
        if now.is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino())) {
            return Ok(Some(file));
        }
    }
}
