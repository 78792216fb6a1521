//! `nixrun logs`, `pause`, `resume` and `set`.

use std::io;
use std::os::fd::AsFd;

use jiff::tz::TimeZone;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use runtime::HostPaths;

use super::{Result, printed, signals};
use crate::args::{LogsArgs, PauseArgs, ResumeArgs, SetArgs};
use crate::live::{Effect, SetRequest};
use crate::logs::{LogRequest, Logs};
use crate::ops::Error;
use crate::output::Output;
use crate::{exit, live};

/// How many lines of what is there `--follow` begins with.
const BACKLOG: usize = 10;
/// How long to wait, in milliseconds, for word of a change before looking: a container that is started again tells nobody.
const LOOK: u16 = 1000;

/// Prints what is there; with `--follow` goes on until a signal, or until nobody reads it any more.
pub(super) fn logs(args: &LogsArgs, paths: &HostPaths, out: &Output) -> Result {
    let request = LogRequest {
        name: args.name.clone(),
        lines: args.lines.or(args.follow.then_some(BACKLOG)),
        unit: args.unit.clone(),
        console: args.console,
    };
    let signals =
        args.follow.then(|| signals::take(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])).transpose()?;
    let zone = TimeZone::system();
    let mut logs = Logs::open(&request, paths)?;
    let stdout = io::stdout();
    loop {
        logs.read(&mut |line| {
            printed(if args.format.json { out.json_line(line) } else { out.text(line.text(&zone) + "\n") })
        })?;
        let Some(signals) = &signals else { return Ok(exit::SUCCESS) };
        let mut ready = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            // POLLERR, which comes unasked, says that a pipe's reader has gone.
            PollFd::new(stdout.as_fd(), PollFlags::empty()),
        ];
        ready.extend(logs.changes().into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut ready, PollTimeout::from(LOOK)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(Error::Other(format!("cannot wait for the log of {}: {errno}", args.name)));
            }
        }
        if ready[..2].iter().any(|fd| fd.any().unwrap_or(false)) {
            return Ok(exit::SUCCESS);
        }
    }
}

pub(super) fn pause(args: &PauseArgs, paths: &HostPaths, out: &Output) -> Result {
    live::pause(&args.name, paths)?;
    out.info(format_args!("Container {} is paused.", args.name));
    Ok(exit::SUCCESS)
}

pub(super) fn resume(args: &ResumeArgs, paths: &HostPaths, out: &Output) -> Result {
    live::resume(&args.name, paths)?;
    out.info(format_args!("Container {} goes on.", args.name));
    Ok(exit::SUCCESS)
}

pub(super) fn set(args: &SetArgs, paths: &HostPaths, out: &Output) -> Result {
    let request = SetRequest { name: args.name.clone(), settings: args.settings.clone(), live: args.live };
    let effects = live::set(&request, paths)?;
    for (setting, effect) in args.settings.iter().zip(effects) {
        let when = match effect {
            Effect::AtOnce => "has taken effect, and does at every start",
            Effect::UntilItEnds => "has taken effect, until the container ends",
            Effect::AtNextStart => "takes effect at the next start",
        };
        printed(out.text(format_args!("{setting}: {when}")))?;
    }
    Ok(exit::SUCCESS)
}
