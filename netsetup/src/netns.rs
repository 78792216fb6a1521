//! Work inside another network namespace, on a thread of its own.
//!
//! `setns` changes the calling thread only, and a thread that fails to come back would do the rest of its life's
//! work in the wrong namespace. So a short-lived thread goes in, and what it opens there (a netlink socket stays
//! in the namespace it was opened in) comes back.

use std::os::fd::BorrowedFd;
use std::panic;
use std::thread::{Scope, ScopedJoinHandle};

use nix::sched::{CloneFlags, setns};

use crate::error::{Error, Result};

/// A job under way inside a network namespace.
pub(crate) struct Inside<'scope, T>(ScopedJoinHandle<'scope, Result<T>>);

impl<T> Inside<'_, T> {
    /// Waits for the job's result.
    pub(crate) fn join(self) -> Result<T> {
        self.0.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
    }
}

/// Starts `job` on a thread inside `netns`.
pub(crate) fn start_inside<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    netns: BorrowedFd<'scope>,
    job: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Result<Inside<'scope, T>> {
    let enter = move || {
        setns(netns, CloneFlags::CLONE_NEWNET)
            .map_err(Error::sys("enter the container's network namespace"))?;
        job()
    };
    let thread = std::thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, enter);
    thread.map(Inside).map_err(Error::io("start a thread for the container's network namespace"))
}
