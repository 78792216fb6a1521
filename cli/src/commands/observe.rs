//! `nixrun top`, `events`, `stats`, `inspect` and `metrics`.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use runtime::HostPaths;

use super::{Result, missing, printed, signals};
use crate::args::{EventsArgs, InspectArgs, MetricsArgs, StatsArgs, TopArgs};
use crate::ops::Error;
use crate::output::Output;
use crate::{configured, events, exit};

pub(super) fn top(_args: &TopArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("top")
}

/// Prints events until a signal, or until nobody reads them any more.
pub(super) fn events(args: &EventsArgs, paths: &HostPaths, out: &Output) -> Result {
    for name in &args.names {
        configured::check_name(name).map_err(|error| Error::Other(error.to_string()))?;
    }
    let signals = signals::take(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])?;
    let failed = |error: io::Error| {
        Error::Other(format!("cannot listen in {}: {error}", paths.join(events::DIRECTORY).display()))
    };
    let mut listener = events::subscribe(paths).map_err(failed)?;
    let stdout = io::stdout();
    loop {
        while let Some(event) = listener.wait(Some(Duration::ZERO)).map_err(failed)? {
            if args.names.is_empty() || args.names.contains(&event.name) {
                printed(out.json_line(&event))?;
            }
        }
        let mut ready = [
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            // POLLERR, which comes unasked, says that a pipe's reader has gone.
            PollFd::new(stdout.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        if ready[1..].iter().any(|fd| fd.any().unwrap_or(false)) {
            return Ok(exit::SUCCESS);
        }
    }
}

pub(super) fn stats(_args: &StatsArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("stats")
}

pub(super) fn inspect(_args: &InspectArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("inspect")
}

pub(super) fn metrics(_args: &MetricsArgs, _paths: &HostPaths, _out: &Output) -> Result {
    missing("metrics")
}
