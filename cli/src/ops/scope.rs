//! A control group of the container's own on a systemd host, when we come from a shell.

use std::time::Duration;

use runtime::{HostFacts, HostPaths};

use super::error::{Error, Result};
use crate::dbus;

/// How long systemd may take to start a scope; its own default for a job is longer, but somebody is waiting.
const TIMEOUT: Duration = Duration::from_secs(25);

/// Checks that this process may start containers, and on a systemd host sees to a group that it may manage: unless
/// a unit was delegated to us, it moves into a new `machine-NAME.scope`, because systemd lets nobody else manage a
/// part of the tree. Returns whether it moved: a plan made before names the old place.
///
/// # Errors
/// When we are not root, or systemd refuses.
pub fn enter_scope(name: &str, paths: &HostPaths) -> Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::Other(format!(
            "cannot start container {name} as an ordinary user: namespaces, mounts and links need root; use sudo"
        )));
    }
    if !paths.join("/run/systemd/system").is_dir() {
        return Ok(false);
    }
    let facts = HostFacts::probe(paths)?;
    if facts.cgroup.is_some_and(|cgroup| cgroup.delegated.is_some()) {
        return Ok(false);
    }
    dbus::start_scope(&paths.join(dbus::SYSTEM_BUS), name, TIMEOUT)?;
    Ok(true)
}
