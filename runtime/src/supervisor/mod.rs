//! A running container: one poll loop over its process, the notify socket, the console and the caller's signals.

mod commands;
mod console;
mod memory;
mod notify;
mod stop;
mod terminal;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signalfd::SignalFd;
use serde::Serialize;

pub use notify::HostNotify;
pub(crate) use terminal::Terminal;

use crate::cgroup::Cgroup;
use crate::config::Console;
use crate::error::{Doing, Error};
use crate::launch::Launched;
use crate::made::Made;
use crate::prepare::Prepared;
use crate::sys::process::Ended;
use crate::users::Users;
use commands::Commands;
use console::Forward;
use memory::OomKills;
use stop::Stop;
pub use stop::listens;

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// PID 1 exited with this status.
    Exited(i32),
    /// It powered off or halted: reboot(2) ends a pid namespace's init with SIGINT.
    PoweredOff,
    /// It asked for a reboot: reboot(2) ends a pid namespace's init with SIGHUP.
    Rebooted,
    /// This signal killed PID 1.
    Killed(i32),
}

impl From<Ended> for Outcome {
    fn from(ended: Ended) -> Outcome {
        match ended {
            Ended::Exited(status) => Outcome::Exited(status),
            Ended::Killed(libc::SIGINT) => Outcome::PoweredOff,
            Ended::Killed(libc::SIGHUP) => Outcome::Rebooted,
            Ended::Killed(signal) => Outcome::Killed(signal),
        }
    }
}

/// The end of a container.
#[derive(Debug)]
pub struct End {
    /// How PID 1 ended.
    pub outcome: Outcome,
    /// What could not be cleaned up.
    pub cleanup: Vec<Error>,
}

/// What happens while a container runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// PID 1 said READY=1.
    Ready,
    /// PID 1 described what it does (`STATUS=`).
    Status(String),
    /// PID 1 said STOPPING=1: it ends by itself, or because it was asked to.
    Ending,
    /// PID 1 was asked to shut down with this signal.
    Stopping(i32),
    /// The shutdown is asked for, but PID 1 does not listen to the signal yet, and would lose it.
    NotListening(i32),
    /// The container did not shut down in time, or was asked to twice: it is being killed.
    Killing,
    /// The kernel killed so many processes of the container for want of memory.
    OomKilled(u64),
    /// Something beside the container failed, which runs on: one sentence. For those who do something beside it; the
    /// supervisor itself does not say it.
    Warning(String),
    /// Something beside the container is other than a reader of the documentation may expect, and nothing is wrong: one
    /// sentence. Said by whom a warning is said by.
    Note(String),
}

/// Asks a running container to stop, from any thread.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<EventFd>);

/// What [`Stopper::kill`] adds to the counter: more than any number of stops.
const KILL: u64 = 1 << 32;

impl Stopper {
    /// The first call asks PID 1 to shut down, the second kills the container.
    pub fn stop(&self) {
        // Fails only when the counter would overflow.
        let _ = self.0.write(1);
    }

    /// Kills the container, whatever was asked for before.
    pub fn kill(&self) {
        let _ = self.0.write(KILL);
    }

    /// Passes on what was asked for since the last time.
    fn pass_on(&self, stop: &mut Stop) {
        match self.0.read() {
            Ok(asked) if asked >= KILL => stop.kill(),
            // Further ones than the second change nothing.
            Ok(asked) => (0..asked.min(2)).for_each(|_| stop.request()),
            Err(_) => {}
        }
    }
}

/// What the caller connects to a running container.
#[derive(Debug)]
pub struct Attached<'a> {
    /// Signals of the caller, blocked in every thread: SIGTERM, SIGINT and SIGHUP stop the container, SIGWINCH
    /// resizes its console.
    pub signals: Option<&'a SignalFd>,
    /// Where the console's output goes; nowhere when absent.
    pub output: Option<BorrowedFd<'a>>,
    /// Where an interactive console's input comes from.
    pub input: Option<BorrowedFd<'a>>,
    /// How long the container may take to shut down before it is killed.
    pub grace: Duration,
}

/// A running container. Dropping it kills the container and removes its groups.
pub struct Supervisor {
    // Before the group in the order of destruction: its processes end, then it can be removed.
    launched: Launched,
    cgroup: Cgroup,
    name: String,
    uuid: [u8; 16],
    stop_signal: i32,
    /// Whether the program is the init of a pid namespace.
    init: bool,
    notify: Option<UnixDatagram>,
    console: Option<OwnedFd>,
    mode: Console,
    /// What was made on the host; removed when no process of the container is left.
    made: Made,
    /// Keeps others off the container's ids.
    _users: Option<Users>,
    /// Keeps the writers of /dev/kmsg's stand-in from a hang-up.
    _kernel_log: Option<OwnedFd>,
    stopper: Stopper,
    warnings: Vec<String>,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("name", &self.name)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

impl Supervisor {
    pub(crate) fn new(
        mut launched: Launched,
        mut prepared: Prepared,
        cgroup: Cgroup,
    ) -> Result<Supervisor, Error> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .doing(|| "make an eventfd".to_owned())?;
        let mut warnings = std::mem::take(&mut prepared.warnings);
        warnings.append(&mut launched.warnings);
        Ok(Supervisor {
            warnings,
            launched,
            cgroup,
            uuid: prepared.uuid,
            stop_signal: prepared.plan.stop_signal,
            init: prepared.plan.namespaces.pid,
            mode: prepared.plan.console,
            notify: prepared.notify,
            console: prepared.console,
            made: prepared.made,
            _users: prepared.users,
            _kernel_log: prepared.kernel_log,
            name: prepared.plan.name,
            stopper: Stopper(Arc::new(event)),
        })
    }

    /// The container's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the container started without, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// PID of PID 1 in our pid namespace, valid as long as this value lives.
    #[must_use]
    pub fn pid(&self) -> libc::pid_t {
        self.launched.pid()
    }

    /// The container's uuid.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// Host path of the container's control group.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    /// A handle that stops the container from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Supervises the container until it ends, then kills what is left of it and removes its groups.
    ///
    /// # Errors
    /// When polling or waiting fails; the container is killed then.
    pub fn run(mut self, attached: &Attached<'_>, mut on_event: impl FnMut(Event)) -> Result<End, Error> {
        // A passive console is kept and not read: who writes to it waits once the terminal is full, as under nspawn.
        let console = self.console.as_ref().filter(|_| self.mode != Console::Passive);
        let mut forward = Forward::new(console, self.mode == Console::Interactive, attached)?;
        let mut stop = Stop::new(self.stop_signal, attached.grace, self.init);
        let mut oom = OomKills::of(self.cgroup.path());
        let mut commands = Commands::of(self.cgroup.path());
        let mut thawed = false;
        loop {
            let timeout = earlier(stop.timeout(), commands.timeout());
            let ready = self.poll(attached, &forward, oom.as_ref(), timeout)?;
            if let Some(signals) = attached.signals.filter(|_| ready.signal) {
                self.take_signals(signals, &mut stop, &forward);
            }
            if ready.stop {
                self.stopper.pass_on(&mut stop);
            }
            if stop.is_begun() && !std::mem::replace(&mut thawed, true) {
                // What is frozen hears of no stop.
                self.cgroup.thaw();
                commands.end();
            }
            if let Some(socket) = self.notify.as_ref().filter(|_| ready.notify) {
                notify::receive(socket, self.launched.pid(), &mut |event| {
                    if event == Event::Ending {
                        commands.end_soon();
                    }
                    on_event(event);
                });
            }
            commands.advance();
            if let Some(kills) = oom.as_mut().filter(|_| ready.oom) {
                match kills.new_ones() {
                    Some(0) => {}
                    Some(count) => on_event(Event::OomKilled(count)),
                    // It would be ready for ever.
                    None => oom = None,
                }
            }
            forward.transfer();
            if forward.escaped() {
                stop.kill();
            }
            stop.advance(&self.launched, &mut on_event)?;
            if ready.ended {
                break;
            }
        }
        let ended = self.launched.reap()?;
        forward.drain();
        drop(forward);
        let mut cleanup: Vec<Error> = self.cgroup.remove().err().into_iter().collect();
        cleanup.extend(self.made.remove());
        let outcome = match ended {
            // No reboot(2), which acts on the machine there.
            Ended::Killed(signal) if !self.init => Outcome::Killed(signal),
            ended => ended.into(),
        };
        Ok(End { outcome, cleanup })
    }

    fn poll(
        &self,
        attached: &Attached<'_>,
        forward: &Forward<'_>,
        oom: Option<&OomKills>,
        timeout: PollTimeout,
    ) -> Result<Ready, Error> {
        let mut fds = Vec::with_capacity(8);
        let ended = add(&mut fds, Some(self.launched.pidfd()), PollFlags::POLLIN);
        let stop = add(&mut fds, Some(self.stopper.0.as_fd()), PollFlags::POLLIN);
        let signal = add(&mut fds, attached.signals.map(AsFd::as_fd), PollFlags::POLLIN);
        let notify = add(&mut fds, self.notify.as_ref().map(AsFd::as_fd), PollFlags::POLLIN);
        let oom = add(&mut fds, oom.map(AsFd::as_fd), PollFlags::POLLPRI);
        for (fd, flags) in forward.interest().into_iter().flatten() {
            add(&mut fds, Some(fd), flags);
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).doing(|| format!("wait for container {}", self.name)),
        }
        let is = |index: Option<usize>| {
            index.and_then(|i| fds.get(i)).and_then(PollFd::revents).is_some_and(|events| !events.is_empty())
        };
        Ok(Ready { ended: is(ended), stop: is(stop), signal: is(signal), notify: is(notify), oom: is(oom) })
    }

    fn take_signals(&self, signals: &SignalFd, stop: &mut Stop, forward: &Forward<'_>) {
        while let Some(signal) = next_signal(signals) {
            match signal {
                libc::SIGTERM | libc::SIGINT | libc::SIGHUP => stop.request(),
                libc::SIGWINCH => forward.resize(),
                _ => {}
            }
        }
    }
}

/// The next signal, if one waits; whether the caller's descriptor would block does not matter.
fn next_signal(signals: &SignalFd) -> Option<i32> {
    if !console::is_ready(signals.as_fd(), PollFlags::POLLIN) {
        return None;
    }
    signals.read_signal().ok().flatten().map(|info| info.ssi_signo as i32)
}

/// The earlier of two timeouts, of which none is never.
fn earlier(a: PollTimeout, b: PollTimeout) -> PollTimeout {
    match (a.is_none(), b.is_none()) {
        (false, false) if b.as_millis() < a.as_millis() => b,
        (true, _) => b,
        _ => a,
    }
}

#[derive(Debug, Default)]
struct Ready {
    ended: bool,
    stop: bool,
    signal: bool,
    notify: bool,
    oom: bool,
}

/// Adds a descriptor to be polled, if there is one, and says where.
fn add<'a>(fds: &mut Vec<PollFd<'a>>, fd: Option<BorrowedFd<'a>>, flags: PollFlags) -> Option<usize> {
    let fd = fd?;
    fds.push(PollFd::new(fd, flags));
    Some(fds.len() - 1)
}
