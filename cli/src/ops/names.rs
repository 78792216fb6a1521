//! What keeps names right while a container runs, in a thread of its own that ends with the supervision: the container's
//! name servers follow the host's.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use runtime::HostPaths;
use runtime::instance::State;

use crate::inside::Inside;
use crate::resolver::Follower;
use crate::watch::{INTERVAL, Watch};

/// Who writes a file often does so several times: what follows shortly is waited for.
const SETTLE: Duration = Duration::from_millis(50);

/// What is to be kept.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The container's name servers.
    pub(super) resolver: Option<Follower>,
}

/// Whose files they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Concern {
    Resolver,
}

impl Names {
    /// Calls `supervise` on this thread and keeps the names of the container, which runs, on another one meanwhile, or not
    /// at all where there is nothing to keep. What goes wrong is told to `warn`.
    pub(super) fn beside<T>(
        self,
        state: &State,
        paths: &HostPaths,
        warn: &(dyn Fn(String) + Sync),
        supervise: impl FnOnce(&Signal) -> T,
    ) -> T {
        let idle = self.resolver.is_none();
        let (signal, inside) = match (Signal::new(), Inside::of(state)) {
            (Ok(signal), Some(inside)) if !idle => (signal, inside),
            (Err(error), _) if !idle => {
                warn(format!(
                    "cannot make an eventfd: {error}; the container's name servers stay as they are"
                ));
                return supervise(&Signal::default());
            }
            _ => return supervise(&Signal::default()),
        };
        let keeper = Keeper { names: self, name: &state.name, inside, paths, warn, told: BTreeSet::new() };
        std::thread::scope(|threads| {
            // Whatever ends this closure ends the thread, which the scope waits for.
            let ending = Ending(&signal);
            let builder = std::thread::Builder::new().name("names".to_owned());
            if let Err(error) = builder.spawn_scoped(threads, || keeper.run(&signal)) {
                warn(format!(
                    "cannot start a thread: {error}; the container's name servers stay as they are"
                ));
            }
            let result = supervise(&signal);
            drop(ending);
            result
        })
    }
}

/// Reaches the thread from others.
#[derive(Debug, Default)]
pub(super) struct Signal {
    event: Option<EventFd>,
    ending: AtomicBool,
}

/// What the thread was woken by.
#[derive(Debug, PartialEq, Eq)]
enum Woken {
    Ending,
    Again,
    Otherwise,
}

impl Signal {
    fn new() -> nix::Result<Signal> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Signal { event: Some(event), ending: AtomicBool::new(false) })
    }

    /// Has everything looked at again: the container's own start may have changed its files.
    pub(super) fn again(&self) {
        // Fails only when the counter would overflow.
        let _ = self.event.as_ref().map(|event| event.write(1));
    }

    /// Waits for a call from another thread, for `watch`, or for as long as `timeout`.
    fn wait(&self, watch: Option<std::os::fd::BorrowedFd<'_>>, timeout: Option<Duration>) -> Woken {
        let Some(event) = &self.event else { return Woken::Ending };
        let mut fds = vec![PollFd::new(event.as_fd(), PollFlags::POLLIN)];
        fds.extend(watch.map(|watch| PollFd::new(watch, PollFlags::POLLIN)));
        let timeout = timeout.and_then(|timeout| PollTimeout::try_from(timeout).ok());
        match poll(&mut fds, timeout.unwrap_or(PollTimeout::NONE)) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Nothing that could be waited for any more.
            Err(_) => return Woken::Ending,
        }
        let called = event.read().is_ok();
        match self.ending.load(Ordering::Acquire) {
            true => Woken::Ending,
            false if called => Woken::Again,
            false => Woken::Otherwise,
        }
    }
}

/// Ends the thread when it is dropped, by a panic for one.
struct Ending<'a>(&'a Signal);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.ending.store(true, Ordering::Release);
        self.0.again();
    }
}

/// What the thread works with.
struct Keeper<'a> {
    names: Names,
    name: &'a str,
    inside: Inside,
    paths: &'a HostPaths,
    warn: &'a (dyn Fn(String) + Sync),
    /// What has gone wrong and been told.
    told: BTreeSet<Concern>,
}

impl Keeper<'_> {
    fn run(mut self, signal: &Signal) {
        let mut watch = Watch::new(self.paths, self.files());
        let everything: BTreeSet<Concern> = self.files().into_iter().map(|(_, concern)| concern).collect();
        let mut due = everything.clone();
        loop {
            due.iter().for_each(|concern| self.look(*concern));
            due.clear();
            let interval = watch.fd().is_none().then_some(INTERVAL);
            match signal.wait(watch.fd(), interval) {
                Woken::Ending => return,
                Woken::Again => due.clone_from(&everything),
                Woken::Otherwise => due = watch.changed(),
            }
            if !due.is_empty() && !self.settle(signal) {
                return;
            }
            due.extend(watch.changed());
        }
    }

    /// Lets others finish what they have begun; `false` when all is to end meanwhile.
    fn settle(&self, signal: &Signal) -> bool {
        let until = Instant::now() + SETTLE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match signal.wait(None, Some(left)) {
                Woken::Ending => return false,
                _ if left.is_zero() => return true,
                _ => {}
            }
        }
    }

    fn files(&self) -> Vec<(PathBuf, Concern)> {
        let resolver = self.names.resolver.iter().flat_map(Follower::files);
        resolver.map(|file| (file, Concern::Resolver)).collect()
    }

    fn look(&mut self, concern: Concern) {
        let result = match (concern, &self.names.resolver) {
            (Concern::Resolver, Some(resolver)) => resolver.look(&self.inside, self.paths),
            _ => Ok(()),
        };
        match result {
            Ok(()) => {
                self.told.remove(&concern);
            }
            // It has ended, or the plan said so already.
            Err(error) if is_expected(&error) => {}
            Err(error) if self.told.insert(concern) => (self.warn)(format!(
                "cannot keep the name servers of container {} after the host's: {error} (/etc/resolv.conf)",
                self.name
            )),
            Err(_) => {}
        }
    }
}

fn is_expected(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT | libc::EROFS))
}
