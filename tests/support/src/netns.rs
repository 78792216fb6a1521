//! Network namespaces without names.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::host::sh;
use crate::{Error, Result};

/// A network namespace; it lives as long as this value, or a process or link in it.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// A new one, with its loopback link up.
    ///
    /// # Errors
    /// When the kernel refuses one (this needs root).
    pub fn new() -> Result<Netns> {
        let make = || -> Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET).map_err(Error::doing("make a network namespace"))?;
            sh("ip link set lo up")?;
            let file = File::open("/proc/thread-self/ns/net");
            Ok(file.map_err(Error::doing("open the network namespace"))?.into())
        };
        joined(|scope| scope.spawn(make)).map(Netns)
    }

    /// Runs `job` inside, on a thread of its own; so do the programs that it starts.
    ///
    /// # Errors
    /// When the namespace cannot be entered, and those of `job`.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).map_err(Error::doing("enter a network namespace"))?;
            job()
        };
        joined(|scope| scope.spawn(inside))
    }

    /// Runs a shell command inside; what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.run(|| sh(script))
    }

    /// A path that `ip link ... netns PATH` takes.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// The result of one scoped thread; a panic in it goes on in the caller.
pub(crate) fn joined<'env, T: Send>(
    spawn: impl for<'scope> FnOnce(&'scope thread::Scope<'scope, 'env>) -> thread::ScopedJoinHandle<'scope, T>,
) -> T {
    thread::scope(|scope| spawn(scope).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}
