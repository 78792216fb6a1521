//! How a container runs in the background, and how that is begun and ended: by systemd's unit `container@NAME.service`
//! where the host has one, and else by a supervisor of its own, which a keeper starts again where its restart policy says
//! so. Both look the same to every command.
//!
//! ```text
//! a unit      systemd -> nixrun boot NAME                            Restart= of the unit
//! our own     nixrun boot --background NAME                          restart: no
//!             nixrun boot --background --keep …  -> nixrun boot …    restart: on-failure, always
//! ```

pub mod keeper;
mod own;
pub mod policy;
mod unit;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use netsetup::Nat;
use runtime::HostPaths;
use runtime::instance;

use crate::configured;
use crate::ops::{self, Result};

/// How long a container may take to become ready when nothing says it.
pub const START_TIME: Duration = Duration::from_secs(60);

/// A container to be started in the background.
#[derive(Debug, Clone)]
pub struct StartRequest<'a> {
    /// Its name.
    pub name: &'a str,
    /// Who translates its addresses, over what its files say; a unit takes no such thing.
    pub nat: Option<Nat>,
    /// How long it may take to become ready. When not set: `startTimeout` of its configuration, and else
    /// [`START_TIME`]; of a unit, its `TimeoutStartSec=`.
    pub timeout: Option<Duration>,
    /// Readable when the caller wants it no more, such as a signalfd. What was begun of our own is ended then.
    pub interrupt: Option<BorrowedFd<'a>>,
}

impl<'a> StartRequest<'a> {
    /// A start as its configuration says.
    #[must_use]
    pub fn new(name: &'a str) -> StartRequest<'a> {
        StartRequest { name, nat: None, timeout: None, interrupt: None }
    }
}

/// What a start came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// It ran already, and is ready.
    Already,
    /// This unit of systemd runs it.
    Unit(String),
    /// A supervisor of our own runs it; its console is in this log.
    Own(PathBuf),
}

/// Starts a container and waits until it is ready. One that runs is left alone; one that somebody else is starting is
/// waited for.
///
/// # Errors
/// When it is not configured, does not become ready in time, or the caller interrupts: what was begun is ended then.
pub fn start(request: &StartRequest<'_>, paths: &HostPaths) -> Result<Started> {
    configured::find(request.name, paths)?;
    match unit::find(request.name, paths)? {
        // Somebody runs it by hand, beside its unit.
        Some(unit) if !unit.is_up() && is_alive(request.name, paths) => own::start(request, paths),
        Some(unit) => unit.start(request, paths),
        None => own::start(request, paths),
    }
}

/// Shuts a container down and waits until nothing is left of it. What has not ended after `timeout` is killed; whether
/// that was needed is returned. It is not started again: its policy is for what nobody asked for.
///
/// # Errors
/// When the container does not run, or does not end.
pub fn stop(name: &str, timeout: Duration, paths: &HostPaths) -> Result<bool> {
    match unit::find(name, paths)?.filter(unit::Unit::is_up) {
        Some(unit) => unit.stop(timeout, paths),
        None => ops::stop(name, timeout, paths),
    }
}

/// Shuts a container down, if it runs, and starts it. `timeout` is how long either may take.
///
/// # Errors
/// As of [`stop`] and [`start`].
pub fn restart(request: &StartRequest<'_>, stop_timeout: Duration, paths: &HostPaths) -> Result<Started> {
    let name = request.name;
    configured::find(name, paths)?;
    match unit::find(name, paths)? {
        Some(unit) if unit.is_up() || !is_alive(name, paths) => unit.restart(request, stop_timeout, paths),
        _ => {
            if is_alive(name, paths) || keeper::find(name, paths).is_some() {
                ops::stop(name, stop_timeout, paths)?;
            }
            start(request, paths)
        }
    }
}

/// Ends every process of a container at once, for good, and waits until nothing is left of it.
///
/// # Errors
/// When the container does not run, or does not end.
pub fn terminate(name: &str, paths: &HostPaths) -> Result<()> {
    match unit::find(name, paths)?.filter(unit::Unit::is_up) {
        Some(unit) => unit.terminate(paths),
        None => ops::kill(name, None, paths),
    }
}

fn is_alive(name: &str, paths: &HostPaths) -> bool {
    instance::find(paths, name).is_some_and(|found| found.alive)
}
