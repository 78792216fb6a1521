//! What keeps names right while a container runs, in a thread of its own that ends with the supervision: the container's
//! name servers follow the host's, its own name is known on the host, and those of others in the container.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use runtime::HostPaths;
use runtime::exec::Streams;
use runtime::instance::{Record, State};
use runtime::supervisor::{Attached, Event};
use runtime::sys::process::Ended;

use super::error::Result;
use super::exec::ExecRequest;
use super::reclaim;
use crate::host_settings::HostSettings;
use crate::hosts_file::{self, HostFile, LIST};
use crate::inside::Inside;
use crate::resolver::{Follower, RESOLVCONF};
use crate::watch::{INTERVAL, Watch};

/// Who writes a file often does so several times: what follows shortly is waited for.
const SETTLE: Duration = Duration::from_millis(50);
/// How long to wait for others that start or end at the same time, for each that there is: a thousand containers write
/// their files every five seconds then while all start, and not a thousand times.
const EACH: Duration = Duration::from_millis(5);
/// What a pipe takes without anybody who reads, in bytes: one that a user with many of them still gets.
const PIPE: usize = 4096;
/// How long readiness waits for the name on the host.
const ENTERED: Duration = Duration::from_secs(5);

/// What is to be kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    /// The container's name servers.
    pub(super) resolver: Option<Follower>,
    /// The addresses under which it is known; none for a container that is not.
    pub(super) addresses: Vec<IpAddr>,
    /// Whether it knows others.
    pub(super) neighbours: bool,
}

/// Whose files they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Concern {
    Resolver,
    Neighbours,
}

impl Names {
    /// The journal's record of the name, for who cleans up if we are killed.
    pub(super) fn record(&self) -> Option<Record> {
        let record = || Record { kind: reclaim::NAMES.to_owned(), value: serde_json::Value::Null };
        (!self.addresses.is_empty()).then(record)
    }

    /// Makes the container unknown again once it has ended.
    pub(super) fn forget(&self, name: &str, paths: &HostPaths) -> Result<()> {
        if self.addresses.is_empty() {
            return Ok(());
        }
        reclaim::remove_name(name, paths, &mut Vec::new())
    }

    /// Calls `supervise` on this thread and keeps the names of the container, which runs, on another one meanwhile, or not
    /// at all where there is nothing to keep. What goes wrong is an event.
    pub(super) fn beside<T>(
        &self,
        state: &State,
        paths: &HostPaths,
        tell: &(dyn Fn(Event) + Sync),
        supervise: impl FnOnce(&Signal) -> T,
    ) -> T {
        let idle = self.resolver.is_none() && self.addresses.is_empty() && !self.neighbours;
        let Some(inside) = Inside::of(state).filter(|_| !idle) else {
            return supervise(&Signal::default());
        };
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            tell(Event::Warning(format!(
                "cannot {what}: {error}; names in and of the container stay as they are"
            )));
        };
        let signal = match Signal::new() {
            Ok(signal) => signal,
            Err(error) => {
                failed("make an eventfd", &error);
                return supervise(&Signal::default());
            }
        };
        let keeper = Keeper {
            names: self.clone(),
            state,
            inside,
            paths,
            tell,
            told: BTreeSet::new(),
            others: 0,
            ready: state.ready,
        };
        std::thread::scope(|threads| {
            // Whatever ends this closure ends the thread, which the scope waits for.
            let ending = Ending(&signal);
            let builder = std::thread::Builder::new().name("names".to_owned());
            if let Err(error) = builder.spawn_scoped(threads, || keeper.run(&signal)) {
                signal.entered();
                failed("start a thread", &error);
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
    entered: (Mutex<bool>, Condvar),
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
        Ok(Signal { event: Some(event), ..Signal::default() })
    }

    /// The container is ready: its name on the host is waited for, so that whoever hears of it finds it there, and
    /// everything is looked at again, since the start inside may have changed files.
    pub(super) fn ready(&self) {
        if self.event.is_some() {
            let (entered, condition) = &self.entered;
            let guard = entered.lock().unwrap_or_else(PoisonError::into_inner);
            drop(condition.wait_timeout_while(guard, ENTERED, |entered| !*entered));
        }
        self.call();
    }

    fn call(&self) {
        // Fails only when the counter would overflow.
        let _ = self.event.as_ref().map(|event| event.write(1));
    }

    /// What is to be known of the container on the host is known.
    fn entered(&self) {
        let (entered, condition) = &self.entered;
        *entered.lock().unwrap_or_else(PoisonError::into_inner) = true;
        condition.notify_all();
    }

    /// Waits for a call from another thread, for `watch`, or for as long as `timeout`.
    fn wait(&self, watch: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> Woken {
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
        self.0.call();
    }
}

/// What the thread works with.
struct Keeper<'a> {
    names: Names,
    state: &'a State,
    inside: Inside,
    paths: &'a HostPaths,
    tell: &'a (dyn Fn(Event) + Sync),
    /// What has gone wrong and been told.
    told: BTreeSet<Concern>,
    /// How many other containers there are.
    others: usize,
    /// Whether the container said so: what is missing in its root then is not going to be made.
    ready: bool,
}

impl Keeper<'_> {
    fn run(mut self, signal: &Signal) {
        self.enter();
        signal.entered();
        let mut watch = Watch::new(self.paths, self.files());
        let everything: BTreeSet<Concern> = self.files().into_iter().map(|(_, concern)| concern).collect();
        let mut due = everything.clone();
        loop {
            due.iter().for_each(|concern| self.look(*concern));
            due.clear();
            // What failed is tried again: a container that was paused goes on at some time.
            let again = watch.fd().is_none() || !self.told.is_empty();
            let interval = again.then_some(INTERVAL);
            match signal.wait(watch.fd(), interval) {
                Woken::Ending => return,
                Woken::Again => {
                    self.ready = true;
                    due.clone_from(&everything);
                }
                Woken::Otherwise => {
                    due = watch.changed();
                    due.extend(&self.told);
                }
            }
            if !due.is_empty() {
                match self.settle(signal, &due) {
                    Woken::Ending => return,
                    Woken::Again => {
                        self.ready = true;
                        due.clone_from(&everything);
                    }
                    Woken::Otherwise => {}
                }
                due.extend(watch.changed());
            }
        }
    }

    /// Makes the container known on the host, unless the host does without.
    fn enter(&mut self) {
        if self.names.addresses.is_empty() && !self.names.neighbours {
            return;
        }
        let wanted = HostSettings::read(self.paths).map(|settings| settings.hosts_file);
        if let Err(error) = &wanted {
            (self.tell)(Event::Warning(format!("names of containers are not kept: {error}")));
        }
        if !wanted.unwrap_or(false) {
            self.names.addresses.clear();
            self.names.neighbours = false;
        }
        if self.names.addresses.is_empty() {
            return;
        }
        let name = &self.state.name;
        match hosts_file::enter(self.paths, name, &self.names.addresses) {
            Ok(HostFile::Kept) => {}
            Ok(HostFile::LeftAlone(why)) => (self.tell)(Event::Note(format!(
                "{name}.containers is not in {}: {why}",
                self.paths.join("/etc/hosts").display()
            ))),
            Err(error) => (self.tell)(Event::Warning(reclaim::names_error(name, &error).to_string())),
        }
    }

    /// Lets others finish what they have begun.
    fn settle(&self, signal: &Signal, due: &BTreeSet<Concern>) -> Woken {
        let many = EACH * u32::try_from(self.others).unwrap_or(u32::MAX).min(2000);
        let until =
            Instant::now() + SETTLE + if due.contains(&Concern::Neighbours) { many } else { Duration::ZERO };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match signal.wait(None, Some(left)) {
                Woken::Otherwise if left.is_zero() => return Woken::Otherwise,
                Woken::Otherwise => {}
                called => return called,
            }
        }
    }

    fn files(&self) -> Vec<(PathBuf, Concern)> {
        let resolver = self.names.resolver.iter().flat_map(Follower::files);
        let resolver = resolver.map(|file| (file, Concern::Resolver));
        let neighbours = self.names.neighbours.then(|| (PathBuf::from(LIST), Concern::Neighbours));
        resolver.chain(neighbours).collect()
    }

    fn look(&mut self, concern: Concern) {
        let result = match (concern, &mut self.names.resolver) {
            (Concern::Resolver, Some(resolver)) => {
                resolver.look(&self.inside, self.paths, |text| give(&self.state.name, self.paths, text))
            }
            (Concern::Resolver, None) => Ok(()),
            (Concern::Neighbours, _) => {
                hosts_file::tell_neighbour(self.paths, &self.state.name, &self.inside, self.ready)
                    .map(|others| self.others = others.unwrap_or(self.others))
            }
        };
        match result {
            Ok(()) => {
                self.told.remove(&concern);
            }
            // It has ended, or the plan said so already.
            Err(error) if is_expected(&error) => {}
            Err(error) if self.told.insert(concern) => {
                (self.tell)(Event::Warning(self.failure(concern, &error)))
            }
            Err(_) => {}
        }
    }

    fn failure(&self, concern: Concern, error: &io::Error) -> String {
        let name = &self.state.name;
        match concern {
            Concern::Resolver => format!(
                "cannot keep the name servers of container {name} after the host's: {error} (its /etc/resolv.conf)"
            ),
            Concern::Neighbours => {
                format!("cannot tell container {name} the names of others: {error} (its /etc/hosts)")
            }
        }
    }
}

/// Gives name servers to the container's own resolvconf(8), which has nothing of ours but them.
fn give(name: &str, paths: &HostPaths, text: &str) -> io::Result<()> {
    let (input, mut writer) = io::pipe()?;
    if text.len() > PIPE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    writer.write_all(text.as_bytes())?;
    drop(writer);
    let null = File::options().write(true).open("/dev/null")?;
    let streams = Streams::new(input.as_fd(), null.as_fd(), null.as_fd()).map_err(io::Error::other)?;
    let request = ExecRequest {
        name: name.to_owned(),
        argv: RESOLVCONF.map(Into::into).to_vec(),
        env: Vec::new(),
        cwd: None,
        terminal: false,
        streams: Some(streams),
    };
    let attached = Attached { signals: None, output: None, input: None, grace: Duration::ZERO };
    match super::exec(&request, &attached, paths).map_err(io::Error::other)? {
        Ended::Exited(0) => Ok(()),
        ended => Err(io::Error::other(format!("`{}` inside ended so: {ended:?}", RESOLVCONF.join(" ")))),
    }
}

fn is_expected(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT | libc::EROFS))
}
