//! How many containers may be starting at the same time when it is systemd that starts them: a hundred units at once
//! would otherwise share the host until all of them are late.
//!
//! ```text
//! /run/nixrun/.slots/0 … N-1   each held (section 7 of ARCHITECTURE.md) by a `boot` in a unit, from before it launches
//!                              until its container is ready, or ends; nobody's files go with their holders
//!
//! us -> systemd  EXTEND_TIMEOUT_USEC   while we wait for a slot, and while the container makes progress:
//!                                      it is late only when it stands still, or for longer than the limits here
//! ```

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runtime::HostPaths;
use runtime::supervisor::HostNotify;

use crate::held::Held;
use crate::host_settings::HostSettings;

const DIRECTORY: &str = "/run/nixrun/.slots";
/// How often to look for a slot that has come free.
const LOOK: Duration = Duration::from_millis(50);
/// Who has waited for so long starts without one: a crowd must not keep a container off for good.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 60);
/// How often systemd is told that it is not over.
const TELL: Duration = Duration::from_secs(5);
/// How soon it is told for the first time: a unit may have a short TimeoutStartSec=.
const TELL_FIRST: Duration = Duration::from_secs(1);
/// How long it then waits for the next word; longer than a busy host may keep us from a turn.
const EXTENSION: Duration = Duration::from_secs(30);
/// A container that gets less of a CPU than this between two words stands still.
const PROGRESS: Duration = Duration::from_millis(50);
/// How long one that makes progress may take to become ready, whatever its unit's TimeoutStartSec= says.
const LONGEST_START: Duration = Duration::from_secs(15 * 60);

/// The permission to be starting a container. It is given back when dropped.
#[derive(Debug)]
pub struct Slot {
    _held: Option<Held>,
}

/// Takes a slot, waiting for one if need be: some minutes at most. `None` when `interrupt` becomes readable first.
/// Where slots cannot be had, because /run cannot be written to or the host's settings not read, nobody is kept waiting.
pub fn admit(notify: &HostNotify, interrupt: BorrowedFd<'_>, paths: &HostPaths) -> Option<Slot> {
    // What is wrong with the settings is not this container's fault.
    let slots = HostSettings::read(paths).map_or(usize::MAX, |settings| settings.jobs());
    if slots == usize::MAX {
        return Some(Slot { _held: None });
    }
    let directory = paths.join(DIRECTORY);
    let begun = Instant::now();
    let mut told: Option<Instant> = None;
    loop {
        match take(&directory, slots) {
            Ok(Some(held)) => {
                if told.is_some() {
                    notify.send(&format!("{}STATUS=Starting.", extension()));
                }
                return Some(Slot { _held: Some(held) });
            }
            Ok(None) if begun.elapsed() < LONGEST_WAIT => {}
            Ok(None) | Err(_) => return Some(Slot { _held: None }),
        }
        if told.is_none_or(|told| told.elapsed() >= TELL) {
            told = Some(Instant::now());
            notify.send(&format!("{}STATUS=Waiting: {slots} containers are starting.", extension()));
        }
        let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
        if poll(&mut [PollFd::new(interrupt.as_fd(), PollFlags::POLLIN)], timeout)
            .is_ok_and(|ready| ready > 0)
        {
            return None;
        }
    }
}

fn extension() -> String {
    format!("EXTEND_TIMEOUT_USEC={}\n", EXTENSION.as_micros())
}

fn take(directory: &Path, slots: usize) -> std::io::Result<Option<Held>> {
    // Each begins elsewhere, so that many find a free one at their first try.
    let first = std::process::id() as usize % slots;
    for i in 0..slots {
        let path = directory.join(((first + i) % slots).to_string());
        if let Some(held) = Held::take(&path, 2)? {
            return Ok(Some(held));
        }
    }
    Ok(None)
}

/// Removes what killed holders left.
pub(crate) fn tidy(paths: &HostPaths) {
    let entries = std::fs::read_dir(paths.join(DIRECTORY)).into_iter().flatten().flatten();
    for entry in entries {
        drop(Held::take(&entry.path(), 2));
    }
}

/// Tells systemd, from a thread of its own, that a start goes on, for as long as the container uses its CPUs.
#[derive(Debug, Default)]
pub struct Progress {
    over: Mutex<bool>,
    changed: Condvar,
}

impl Progress {
    /// Tells until [`Progress::end`], or until the container has taken too long. While it stands still nothing is said.
    pub fn tell(&self, notify: &HostNotify, cgroup: &Path) {
        let file: PathBuf = cgroup.join("cpu.stat");
        let begun = Instant::now();
        let mut before = Duration::ZERO;
        let mut pause = TELL_FIRST;
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*over && begun.elapsed() < LONGEST_START {
            let waited = self.changed.wait_timeout(over, pause);
            pause = TELL;
            over = waited.unwrap_or_else(PoisonError::into_inner).0;
            if *over {
                return;
            }
            let now = std::fs::read_to_string(&file).ok().and_then(|text| used(&text)).unwrap_or_default();
            if now.saturating_sub(before) >= PROGRESS {
                notify.send(extension().trim_end());
            }
            before = now;
        }
    }

    /// The container is ready, or has ended.
    pub fn end(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

/// What a group has used of the CPUs, from its `cpu.stat`, which groups without the controller have, too.
fn used(text: &str) -> Option<Duration> {
    let value = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    value.trim().parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_full_house_waits_says_so_and_is_called_off() {
        let dir = tempfile::tempdir().unwrap();
        let paths = HostPaths::below(dir.path());
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/nixrun.json"), r#"{"startJobs": 2}"#).unwrap();
        let manager = UnixDatagram::bind(dir.path().join("manager")).unwrap();
        manager.set_nonblocking(true).unwrap();
        let notify = HostNotify::new(dir.path().join("manager").as_os_str()).unwrap();
        let (silent, caller) = UnixDatagram::pair().unwrap();
        let one = admit(&notify, silent.as_fd(), &paths).unwrap();
        let two = admit(&notify, silent.as_fd(), &paths).unwrap();
        assert!(manager.recv(&mut [0; 9]).is_err(), "without a crowd there is nothing to say");
        caller.send(b"stop").unwrap();
        assert!(admit(&notify, silent.as_fd(), &paths).is_none());
        let mut buffer = [0; 200];
        let length = manager.recv(&mut buffer).unwrap();
        let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert_eq!(said, "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=Waiting: 2 containers are starting.");
        drop(one);
        let three = admit(&notify, silent.as_fd(), &paths).unwrap();
        drop((two, three));
        assert!(!dir.path().join("run/nixrun").exists());
    }

    #[test]
    fn cpu_time_is_read() {
        let text = "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n";
        assert_eq!(used(text), Some(Duration::from_millis(1500)));
        assert_eq!(used("nr_periods 0\n"), None);
    }
}
