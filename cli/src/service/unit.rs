//! A container that is a unit of systemd's: it is started and stopped through systemd, which would otherwise start it
//! again, or believe that it failed.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use runtime::HostPaths;

use super::{StartRequest, Started};
use crate::dbus::manager::{Job, Manager, Unit as Known};
use crate::dbus::{CallError, SYSTEM_BUS};
use crate::ops::{self, Error, Planned, Result};

/// How long systemd may take to answer.
const ANSWER: Duration = Duration::from_secs(25);
/// How long a killed container's unit may take to end.
const CLEANUP: Duration = Duration::from_secs(15);
/// When no one gives up: longer than any unit's own limit.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A container's unit.
#[derive(Debug)]
pub(super) struct Unit {
    container: String,
    name: String,
    known: Known,
    bus: PathBuf,
}

/// The unit of a container; `None` where systemd is not the host's init or has none.
pub(super) fn find(container: &str, paths: &HostPaths) -> Result<Option<Unit>> {
    if !paths.join("/run/systemd/system").is_dir() {
        return Ok(None);
    }
    // Every name of a container is an instance name as it is: letters, digits, dashes, dots.
    let name = format!("container@{container}.service");
    let bus = paths.join(SYSTEM_BUS);
    let known = Manager::connect(&bus, Instant::now() + ANSWER).and_then(|mut manager| manager.unit(&name));
    let known = known.map_err(|error| {
        Error::Other(format!("cannot ask systemd for {name} over {}: {error}", bus.display()))
    })?;
    let there = known.load == "loaded" || known.load == "masked" || known.active != "inactive";
    Ok(there.then(|| Unit { container: container.to_owned(), name, known, bus }))
}

impl Unit {
    /// Whether systemd has something to stop: a container that runs, or one that it is about to start again.
    pub(super) fn is_up(&self) -> bool {
        !matches!(self.known.active.as_str(), "inactive" | "failed")
    }

    fn manager(&self, time: Duration) -> Result<Manager> {
        Manager::connect(&self.bus, Instant::now() + time)
            .map_err(|error| self.cannot("reach systemd", &error))
    }

    fn cannot(&self, what: &str, error: &CallError) -> Error {
        Error::Other(format!(
            "cannot {what} for container {}, which is the unit {}: {error}",
            self.container, self.name
        ))
    }

    pub(super) fn start(&self, request: &StartRequest<'_>, paths: &HostPaths) -> Result<Started> {
        if request.nat.is_some() {
            return Err(Error::Other(format!(
                "cannot start container {} with --nat: it is the unit {}, which takes what its configuration says; \
                 set nat in /etc/nixrun/{}.json",
                self.container, self.name, self.container
            )));
        }
        if self.known.active == "active" {
            return Ok(Started::Already);
        }
        self.run(Job::Start, request.timeout, paths)?;
        Ok(Started::Unit(self.name.clone()))
    }

    pub(super) fn restart(
        &self,
        request: &StartRequest<'_>,
        stop_timeout: Duration,
        paths: &HostPaths,
    ) -> Result<Started> {
        let both = request.timeout.map(|start| start.saturating_add(stop_timeout));
        self.run(Job::Restart, both, paths)?;
        Ok(Started::Unit(self.name.clone()))
    }

    /// A start, or a restart, and its end.
    fn run(&self, job: Job, timeout: Option<Duration>, paths: &HostPaths) -> Result<()> {
        let mut manager = self.manager(ANSWER)?;
        let queued = manager.queue(job, &self.name).map_err(|error| self.cannot("queue a start", &error))?;
        manager.set_deadline(Instant::now() + timeout.unwrap_or(FOREVER).min(FOREVER));
        match manager.wait(&queued) {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => Err(self.failed(&result, paths)),
            Err(CallError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                let ended = self.terminate(paths).err().map(|error| format!("; {error}")).unwrap_or_default();
                Err(Error::Other(format!(
                    "container {} was not ready within {} s and was ended; see `journalctl -u {}`{ended}",
                    self.container,
                    timeout.unwrap_or_default().as_secs(),
                    self.name
                )))
            }
            Err(error) => Err(self.cannot("wait for the start", &error)),
        }
    }

    /// Why a start did not succeed, in the unit's own words.
    fn failed(&self, job: &str, paths: &HostPaths) -> Error {
        let (container, unit) = (&self.container, &self.name);
        let look = format!("see `journalctl -u {unit}`");
        if job == "canceled" {
            return Error::Other(format!(
                "container {container} was not started: somebody else stopped {unit} meanwhile"
            ));
        }
        if job == "dependency" {
            return Error::Other(format!(
                "container {container} was not started: something that {unit} needs failed; {look}"
            ));
        }
        let end = self.manager(ANSWER).ok().and_then(|mut manager| manager.service_end(unit).ok());
        let end = end.unwrap_or_default();
        let mut why = match end.result.as_str() {
            "" | "success" => job.to_owned(),
            "exit-code" => format!("exit status {}", end.status),
            "signal" | "core-dump" => format!("signal {}", end.status),
            "timeout" => "it was not ready in time, by TimeoutStartSec= of the unit".to_owned(),
            "start-limit-hit" => {
                format!("it was started too often; `systemctl reset-failed {unit}` allows more")
            }
            other => other.to_owned(),
        };
        if !end.status_text.is_empty() {
            why += &format!("; it last said: {}", end.status_text.replace(char::is_control, " "));
        }
        // The journal is systemd's; what is wrong with the configuration can be said here.
        let options = ops::BootOptions::default();
        let planned = ops::boot_request(container, &options, runtime::Console::ReadOnly, paths)
            .and_then(|request| Planned::new(&request, paths));
        if let Err(error) = planned {
            why += &format!("; {error}");
        }
        Error::Other(format!("container {container} did not start: {unit} failed ({why}); {look}"))
    }

    pub(super) fn stop(&self, timeout: Duration, paths: &HostPaths) -> Result<bool> {
        let mut manager = self.manager(ANSWER)?;
        let job =
            manager.queue(Job::Stop, &self.name).map_err(|error| self.cannot("queue a stop", &error))?;
        manager.set_deadline(Instant::now() + timeout.min(FOREVER));
        match manager.wait(&job) {
            Ok(result) if result == "done" => {
                manager.set_deadline(Instant::now() + ANSWER);
                let end = manager.service_end(&self.name).unwrap_or_default();
                // Its own TimeoutStopSec= came first.
                Ok(end.result == "timeout")
            }
            Ok(result) => Err(Error::Other(format!(
                "container {} was not stopped: systemd's job for {} ended as {result}",
                self.container, self.name
            ))),
            Err(CallError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                self.kill(paths)?;
                Ok(true)
            }
            Err(error) => Err(self.cannot("wait for the stop", &error)),
        }
    }

    pub(super) fn terminate(&self, paths: &HostPaths) -> Result<()> {
        // Queued first: systemd starts nothing again that it is stopping.
        let mut manager = self.manager(ANSWER)?;
        manager.queue(Job::Stop, &self.name).map_err(|error| self.cannot("queue a stop", &error))?;
        self.kill(paths)?;
        // It was told to end like this: that is no failure.
        let _ = self.manager(ANSWER)?.reset_failed(&self.name);
        Ok(())
    }

    /// Kills a container whose unit is being stopped: its own processes first, so that its nixrun cleans up.
    fn kill(&self, paths: &HostPaths) -> Result<()> {
        if ops::kill_processes(&self.container, paths) && self.has_stopped(CLEANUP)? {
            return Ok(());
        }
        let mut manager = self.manager(ANSWER)?;
        manager.kill(&self.name, libc::SIGKILL).map_err(|error| self.cannot("kill the processes", &error))?;
        if self.has_stopped(CLEANUP)? {
            return ops::reclaim(Some(&self.container), paths).map(drop);
        }
        Err(Error::Other(format!(
            "container {} was killed, but its unit {} has not ended after {} s; see `systemctl status {}`",
            self.container,
            self.name,
            CLEANUP.as_secs(),
            self.name
        )))
    }

    /// Waits for the stop that is on its way, by joining it.
    fn has_stopped(&self, time: Duration) -> Result<bool> {
        let mut manager = self.manager(time)?;
        match manager.queue(Job::Stop, &self.name).and_then(|job| manager.wait(&job)) {
            Ok(_) => Ok(true),
            Err(CallError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => Ok(false),
            Err(error) => Err(self.cannot("wait for the stop", &error)),
        }
    }
}
