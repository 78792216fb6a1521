//! `nixrun start`, `restart`, `terminate` and `autostart`.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::signal::Signal;
use runtime::HostPaths;

use super::{Result, printed, signals};
use crate::args::{AutostartArgs, RestartArgs, StartArgs, TerminateArgs};
use crate::autostart::{self, Outcome};
use crate::host_settings::HostSettings;
use crate::ops::Error;
use crate::output::Output;
use crate::service::{self, StartRequest, Started};
use crate::{change, exit};

pub(super) fn start(args: &StartArgs, paths: &HostPaths, out: &Output) -> Result {
    not_while_changed(&args.name, paths)?;
    let interrupt = signals::take(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])?;
    let request = StartRequest {
        name: &args.name,
        nat: args.nat.nat.clone(),
        timeout: args.timeout.map(Duration::from_secs),
        interrupt: Some(interrupt.as_fd()),
    };
    say(&args.name, &service::start(&request, paths)?, out);
    Ok(exit::SUCCESS)
}

fn say(name: &str, started: &Started, out: &Output) {
    match started {
        Started::Already => out.note(format_args!("Container {name} is running already.")),
        Started::Unit(unit) => out.info(format_args!("Container {name} is ready, as the unit {unit}.")),
        Started::Own(log) => {
            out.info(format_args!("Container {name} is ready; its console is logged to {}.", log.display()))
        }
    }
}

/// A container that is being updated, moved or destroyed is started by whoever does that, or not.
fn not_while_changed(name: &str, paths: &HostPaths) -> std::result::Result<(), Error> {
    change::settle(name, paths)?;
    match change::holder(name, paths) {
        Some(holder) => Err(Error::Other(format!(
            "container {name} is being changed by {holder}; wait until that has ended"
        ))),
        None => Ok(()),
    }
}

pub(super) fn restart(args: &RestartArgs, paths: &HostPaths, out: &Output) -> Result {
    not_while_changed(&args.name, paths)?;
    let interrupt = signals::take(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])?;
    let timeout = Duration::from_secs(args.timeout);
    let request = StartRequest {
        timeout: Some(timeout),
        interrupt: Some(interrupt.as_fd()),
        ..StartRequest::new(&args.name)
    };
    say(&args.name, &service::restart(&request, timeout, paths)?, out);
    Ok(exit::SUCCESS)
}

pub(super) fn terminate(args: &TerminateArgs, paths: &HostPaths) -> Result {
    service::terminate(&args.name, paths)?;
    Ok(exit::SUCCESS)
}

/// Exit code 1 when one that was to be started was not.
pub(super) fn autostart(args: &AutostartArgs, paths: &HostPaths, out: &Output) -> Result {
    let jobs = match args.jobs {
        Some(jobs) => jobs as usize,
        None => HostSettings::read(paths)?.jobs(),
    };
    let interrupt = signals::take(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])?;
    let rows = autostart::autostart(jobs, Some(interrupt.as_fd()), paths)?;
    if args.format.json {
        printed(out.json(&rows))?;
    } else if !rows.is_empty() {
        let cells = |row: &autostart::Row| {
            let result = match row.result {
                Outcome::Started => "started",
                Outcome::AlreadyRunning => "already running",
                Outcome::Failed => "failed",
                Outcome::Skipped => "skipped",
            };
            [row.name.clone(), result.to_owned(), row.detail.clone().unwrap_or_default()]
        };
        let cells: Vec<_> = rows.iter().map(cells).collect();
        printed(out.table(["NAME", "RESULT", "DETAIL"], &cells))?;
    }
    let all = rows.iter().all(|row| matches!(row.result, Outcome::Started | Outcome::AlreadyRunning));
    Ok(if all { exit::SUCCESS } else { exit::FAILURE })
}
