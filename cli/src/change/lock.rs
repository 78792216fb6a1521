//! Who changes a container: one at a time, and known by name to those who come too late.

use std::io;

use runtime::HostPaths;

use crate::configured;
use crate::held::{self, Held};
use crate::ops::{Error, Result};

pub(super) const DIRECTORY: &str = "/run/nixrun/.changes";

/// A lock on a container's name. The kernel releases it when we are killed.
#[derive(Debug)]
pub(super) struct Lock {
    _held: Held,
}

impl Lock {
    pub(super) fn take(name: &str, command: &str, paths: &HostPaths) -> Result<Lock> {
        configured::check_name(name)?;
        let path = paths.join(DIRECTORY).join(name);
        let held = Held::take(&path, 2).map_err(|error| {
            Error::Other(format!(
                "cannot lock container {name} by {}: {error}{}",
                path.display(),
                if error.kind() == io::ErrorKind::PermissionDenied { "; run nixrun as root" } else { "" }
            ))
        })?;
        let Some(mut held) = held else {
            let holder = holder(name, paths).unwrap_or_else(|| "another process".to_owned());
            return Err(Error::Other(format!(
                "container {name} is being changed by {holder}; wait until that has ended"
            )));
        };
        // Only for the sentence above.
        let _ = held.say(&format!("{} {command}", std::process::id()));
        Ok(Lock { _held: held })
    }
}

pub(super) fn holder(name: &str, paths: &HostPaths) -> Option<String> {
    let text = held::holder(&paths.join(DIRECTORY).join(name))?;
    let (pid, command) = text.split_once(' ')?;
    Some(format!("process {pid} (nixrun {command})"))
}
