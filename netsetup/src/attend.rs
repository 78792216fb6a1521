//! What has to be done for a container's network while it runs: a thread that is there only for containers on bridges, with
//! relays, or whose forwards follow their addresses.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::config::Forward;
use crate::error::{Error, Result};
use crate::facts::NetPaths;
use crate::follow::Addresses;
use crate::rejoin::Ports;
use crate::relay::{Interest, Relays, Targets};
use crate::shared;

/// The running thread. Dropping it ends the thread and waits for it.
#[derive(Debug)]
pub(crate) struct Attendant {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread looks after.
#[derive(Debug)]
pub(crate) struct Duty {
    pub(crate) relays: Relays,
    pub(crate) targets: Targets,
    /// Absent when the forwards lead to configured addresses.
    pub(crate) follow: Option<Follow>,
    /// Absent when the container is on no bridge.
    pub(crate) ports: Option<Ports>,
}

/// Forwards that follow a container's addresses.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) paths: NetPaths,
    pub(crate) container: String,
    pub(crate) forwards: Vec<Forward>,
    pub(crate) addresses: Addresses,
}

impl Attendant {
    /// Starts the thread, in the calling thread's network namespace and with its signal mask.
    pub(crate) fn start(duty: Duty) -> Result<Attendant> {
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let stop = Arc::new(stop.map_err(Error::sys("make an eventfd"))?);
        let ours = Arc::clone(&stop);
        let thread = thread::Builder::new().name("nixrun-network".into()).spawn(move || attend(duty, &ours));
        let thread = thread.map_err(Error::io("start a thread for the container's network"))?;
        Ok(Attendant { stop, thread: Some(thread) })
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        // Fails only when the counter would overflow.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn attend(mut duty: Duty, stop: &EventFd) {
    // What changed between the launch and now was heard, and is looked at first.
    duty.follow_addresses();
    duty.ports.iter_mut().for_each(Ports::rejoin);
    while duty.wait(stop) {
        if duty.follow.as_mut().is_some_and(|follow| follow.addresses.changed()) {
            duty.follow_addresses();
        }
        if let Some(ports) = &mut duty.ports
            && ports.changed()
        {
            ports.rejoin();
        }
        duty.relays.advance(duty.targets);
    }
}

impl Duty {
    /// Sleeps until there is something to do; `false` when that is to end.
    fn wait(&self, stop: &EventFd) -> bool {
        let mut interest = Interest::default();
        interest.push(stop, PollFlags::POLLIN);
        if let Some(follow) = &self.follow {
            interest.push(&follow.addresses, PollFlags::POLLIN);
        }
        if let Some(ports) = &self.ports {
            interest.push(ports, PollFlags::POLLIN);
        }
        self.relays.interest(&mut interest);
        let timeout = self.relays.timeout().and_then(|timeout| PollTimeout::try_from(timeout).ok());
        match poll(&mut interest.fds, timeout.unwrap_or(PollTimeout::NONE)) {
            Ok(_) => interest.fds[0].revents().is_none_or(|events| events.is_empty()),
            Err(Errno::EINTR) => true,
            // Nothing that could be waited for any more.
            Err(_) => false,
        }
    }

    /// Leads the forwards to the addresses of now. What fails is tried again at the next change: there is nobody to
    /// tell it to.
    fn follow_addresses(&mut self) {
        let Some(follow) = &mut self.follow else { return };
        let Ok(targets) = follow.addresses.now() else { return };
        if targets != self.targets
            && shared::retarget(&follow.paths, &follow.container, &follow.forwards, targets).is_ok()
        {
            self.targets = targets;
        }
    }
}
