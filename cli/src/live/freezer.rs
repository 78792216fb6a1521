//! Pausing: the cgroup freezer holds every process of the container's group, commands of `exec` among them.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runtime::HostPaths;

use crate::events::{self, Kind};
use crate::ops::{self, Error, Result};

/// How long the kernel may take: a process that waits for a dead disk or NFS server is frozen only when that answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Freezes every process of a running container, and returns when all are. One that is paused already stays so.
///
/// # Errors
/// When it does not run, and when a process cannot be frozen in time; the container runs on then.
pub fn pause(name: &str, paths: &HostPaths) -> Result<()> {
    let state = ops::running(name, paths)?;
    let failed = |error: &dyn std::fmt::Display| {
        Error::Other(format!("cannot pause container {name} by {}: {error}", state.cgroup.display()))
    };
    if is_paused(&state.cgroup) {
        return Ok(());
    }
    write(&state.cgroup, true).map_err(|error| failed(&error))?;
    match wait(&state.cgroup, true) {
        Ok(true) => {}
        result => {
            let _ = write(&state.cgroup, false);
            return Err(match result {
                Err(error) => failed(&error),
                Ok(_) => Error::Other(format!(
                    "cannot pause container {name}: a process of it has not been frozen within {} s; it may be waiting \
                     for a disk or a file server. The container runs on",
                    PATIENCE.as_secs()
                )),
            });
        }
    }
    events::tell(paths, name, Kind::Paused, None);
    Ok(())
}

/// Lets a paused container go on; one that is not paused does so anyway.
///
/// # Errors
/// When it does not run.
pub fn resume(name: &str, paths: &HostPaths) -> Result<()> {
    let state = ops::running(name, paths)?;
    let was_paused = is_paused(&state.cgroup);
    thaw(&state.cgroup).map_err(|error| {
        Error::Other(format!("cannot resume container {name} by {}: {error}", state.cgroup.display()))
    })?;
    if was_paused {
        events::tell(paths, name, Kind::Resumed, None);
    }
    Ok(())
}

/// Whether the container with this control group is paused, or is about to be.
#[must_use]
pub fn is_paused(group: &Path) -> bool {
    fs::read_to_string(group.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
}

/// Lets the processes of a control group go on, as they must to hear of a stop. A group that is gone needs nothing.
///
/// # Errors
/// The kernel's.
pub fn thaw(group: &Path) -> io::Result<()> {
    match write(group, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn write(group: &Path, frozen: bool) -> io::Result<()> {
    fs::write(group.join("cgroup.freeze"), if frozen { "1" } else { "0" })
}

/// Waits until `cgroup.events` says so; the kernel tells of a change by POLLPRI (cgroup-v2.rst). Whether it did in time.
fn wait(group: &Path, frozen: bool) -> io::Result<bool> {
    let line = if frozen { "frozen 1" } else { "frozen 0" };
    let mut events = File::open(group.join("cgroup.events"))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut text = String::new();
        events.seek(SeekFrom::Start(0))?;
        events.read_to_string(&mut text)?;
        if text.lines().any(|found| found == line) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
