//! The thread that launches a container and supervises it, and what it shares with the handle.

use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::stat::{Mode, umask};
use runtime::HostPaths;
use runtime::instance::State;
use runtime::supervisor::{Attached, Event, Stopper};

use super::{Container, End, Launch};
use crate::ops::{Error, Result, Running};

/// Signals that the kernel sends to the thread whose fault they are; blocked, they end the program without a word.
const FAULTS: [Signal; 6] =
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGTRAP, Signal::SIGSYS];

/// What a start has to say.
pub(super) struct Started {
    pub(super) state: State,
    pub(super) paths: HostPaths,
    pub(super) stopper: Stopper,
    pub(super) warnings: Vec<String>,
}

/// What is known of a container, to every thread.
#[derive(Debug, Default)]
pub(super) struct Shared {
    now: Mutex<Now>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Now {
    ready: bool,
    asked: bool,
    /// How it ended, or why it could not be supervised.
    end: Option<std::result::Result<End, String>>,
    listeners: Vec<Sender<Event>>,
}

impl Shared {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: &Event) {
        let mut now = self.now();
        now.ready |= *event == Event::Ready;
        now.listeners.retain(|listener| listener.send(event.clone()).is_ok());
        self.changed.notify_all();
    }

    fn end(&self, end: std::result::Result<End, String>) {
        let mut now = self.now();
        now.end.get_or_insert(end);
        now.listeners.clear();
        self.changed.notify_all();
    }

    /// What happens from now on, up to the end; that it is ready comes first if it is.
    pub(super) fn listen(&self) -> Receiver<Event> {
        let (sender, receiver) = mpsc::channel();
        let mut now = self.now();
        if now.ready {
            let _ = sender.send(Event::Ready);
        }
        if now.end.is_none() {
            now.listeners.push(sender);
        }
        receiver
    }

    /// Whether nobody has asked for a stop before.
    pub(super) fn ask(&self) -> bool {
        !std::mem::replace(&mut self.now().asked, true)
    }

    /// Waits up to `timeout`, or without end, until it has ended, or is ready if that is enough. Both answers may be no.
    pub(super) fn wait(&self, timeout: Option<Duration>, ready: bool) -> (bool, Option<Result<End>>) {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut now = self.now();
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if now.end.is_some() || ready && now.ready || left == Some(Duration::ZERO) {
                let end = now.end.clone().map(|end| end.map_err(Error::Other));
                return (now.ready, end);
            }
            now = match left {
                Some(left) => self.changed.wait_timeout(now, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(now).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// Starts the thread and waits until the container's program is executed, or why it is not.
pub(super) fn start(launch: Launch) -> Result<Container> {
    let name = launch.request.container.name.clone();
    let (report, started) = mpsc::sync_channel(1);
    let shared = Arc::new(Shared::default());
    let thread = spawn(&name, {
        let shared = Arc::clone(&shared);
        move || run(launch, &report, &shared)
    })
    .map_err(|error| Error::Other(format!("cannot start a thread for container {name}: {error}")))?;
    match started.recv() {
        Ok(Ok(started)) => Ok(Container::new(started, shared, thread)),
        Ok(Err(error)) => {
            let _ = thread.join();
            Err(error)
        }
        Err(_) => Err(Error::Other(format!("the thread that was to start container {name} panicked"))),
    }
}

/// A thread on which no handler of the program's runs: a new one has the mask of who makes it, which is put back at once.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let mut blocked = SigSet::all();
    FAULTS.into_iter().for_each(|fault| blocked.remove(fault));
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let thread = thread::Builder::new().name(format!("nixrun:{name}")).spawn(body);
    before.thread_set_mask()?;
    thread
}

fn run(launch: Launch, report: &SyncSender<Result<Started>>, shared: &Shared) {
    // A panic is the end of the container, whose values are dropped; who waits for it is told.
    let _panic = EndOfThread(shared);
    match apart().and_then(|()| launch.plan()).and_then(|planned| planned.start(&launch.paths)) {
        Ok(running) => supervise(running, &launch, report, shared),
        Err(error) => drop(report.send(Err(error))),
    }
}

/// Parts this thread from the program's working directory and umask, and takes the umask that everything here is made
/// with.
fn apart() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_FS)
        .map_err(|error| Error::Other(format!("cannot part a thread from the program's umask: {error}")))?;
    umask(Mode::from_bits_truncate(0o022));
    Ok(())
}

fn supervise(running: Running, launch: &Launch, report: &SyncSender<Result<Started>>, shared: &Shared) {
    let notes = launch.request.notes.iter().chain(running.supervisor().warnings()).chain(running.warnings());
    let started = Started {
        state: running.state().clone(),
        paths: launch.paths.clone(),
        stopper: running.supervisor().stopper(),
        warnings: notes.cloned().collect(),
    };
    if started.state.ready {
        shared.tell(&Event::Ready);
    }
    if report.send(Ok(started)).is_err() {
        // Nobody is left to have it.
        return;
    }
    let attached = Attached {
        signals: None,
        output: launch.console.as_ref().map(AsFd::as_fd),
        input: None,
        grace: launch.grace,
    };
    let finished = running.supervise(&attached, None, &launch.paths, |event| shared.tell(&event));
    shared.end(match finished {
        Ok(finished) => Ok(End {
            outcome: finished.outcome,
            cleanup: finished.cleanup.iter().map(ToString::to_string).collect(),
        }),
        Err(error) => Err(error.to_string()),
    });
}

struct EndOfThread<'a>(&'a Shared);

impl Drop for EndOfThread<'_> {
    fn drop(&mut self) {
        self.0.end(Err(
            "the thread that supervised the container panicked; the container was killed".to_owned()
        ));
    }
}
