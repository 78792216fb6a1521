//! `nixrun top`, `events`, `stats`, `inspect` and `metrics`.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use runtime::HostPaths;

use super::{Result, printed, signals};
use crate::args::{EventsArgs, InspectArgs, MetricsArgs, StatsArgs};
use crate::metrics::{self, Address, Server, ServerError};
use crate::ops::Error;
use crate::output::Output;
use crate::{configured, events, exit, files, inspect, stats};

/// How long `stats` looks for what is used in a second.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

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

pub(super) fn stats(args: &StatsArgs, paths: &HostPaths, out: &Output) -> Result {
    let first = stats::stats(&args.name, paths)?;
    // Nothing to be seen twice of one that does not run.
    let one = if first.cpu.is_some() {
        std::thread::sleep(BETWEEN_LOOKS);
        stats::stats(&args.name, paths)?.since(&first)
    } else {
        first
    };
    printed(match args.format.json {
        true => out.json(&one),
        false => out.text(stats::describe(&one, |text, colour| out.painted(text, colour))),
    })?;
    Ok(exit::SUCCESS)
}

pub(super) fn inspect(args: &InspectArgs, paths: &HostPaths, out: &Output) -> Result {
    let one = inspect::inspect(&args.name, paths)?;
    printed(match args.format.json {
        true => out.json(&one),
        false => out.text(inspect::describe(&one, |text, colour| out.painted(text, colour))),
    })?;
    Ok(exit::SUCCESS)
}

pub(super) fn metrics(args: &MetricsArgs, paths: &HostPaths, out: &Output) -> Result {
    if let Some(address) = &args.listen {
        return serve(address, paths, out);
    }
    let text = metrics::metrics(paths)?;
    match &args.file {
        None => printed(out.text(text))?,
        // The collector runs as another user.
        Some(file) => files::replace(file, text.as_bytes(), 0o644)
            .map_err(|error| Error::Other(format!("cannot write {}: {error}", file.display())))?,
    }
    Ok(exit::SUCCESS)
}

fn serve(address: &Address, paths: &HostPaths, out: &Output) -> Result {
    let other = |error: ServerError| Error::Other(error.to_string());
    // Before the socket is there: a signal that comes then must not leave it behind.
    let signals = signals::take(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])?;
    let server = Server::listen(address).map_err(other)?;
    if let Some(address) = server.address() {
        out.note(format_args!("Listening at {address}."));
    }
    server
        .serve(signals.as_fd(), || metrics::metrics(paths).map_err(|error| error.to_string()))
        .map_err(other)?;
    Ok(exit::SUCCESS)
}
