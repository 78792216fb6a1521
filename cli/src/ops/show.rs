//! What is configured and what runs.

use std::fmt;

use runtime::instance::{self, Found, State};
use runtime::{HostPaths, cgroup_processes};
use schemars::JsonSchema;
use serde::Serialize;

use super::error::{Error, Result};
use crate::settings::Settings;
use crate::systems::profile;
use crate::{configured, life, live, nearest};

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Configured, and not running.
    Stopped,
    /// Its PID 1 runs and is not ready yet.
    Starting,
    /// It is ready.
    Running,
    /// Its processes are frozen; `nixrun resume` lets them go on.
    Paused,
    /// Its supervisor was killed and something may be left; `nixrun reclaim` removes it.
    Crashed,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Stopped => "stopped",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Paused => "paused",
            Phase::Crashed => "crashed",
        })
    }
}

/// A container, for `list` and `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Host pid of its PID 1.
    pub leader: Option<i32>,
    /// Host pid of its supervisor.
    pub supervisor: Option<i32>,
    /// Seconds since it was started.
    pub uptime: Option<u64>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Number of its processes.
    pub processes: Option<usize>,
    /// Host path of its root directory.
    pub root: Option<std::path::PathBuf>,
    /// Host path of its control group.
    pub cgroup: Option<std::path::PathBuf>,
    /// Its uuid.
    pub uuid: Option<String>,
    /// Its program.
    pub program: Option<String>,
    /// The file that configures it.
    pub configuration: Option<std::path::PathBuf>,
    /// Number of the generation of its system that starts next, if it has any.
    pub generation: Option<u64>,
    /// Store path of the system that starts next.
    pub system: Option<std::path::PathBuf>,
    /// Whether it starts with the host; none where its files cannot be read.
    #[serde(rename = "autoStart")]
    pub auto_start: Option<bool>,
    /// Whether the host's own configuration declares it, so that `destroy` leaves it alone.
    pub declarative: Option<bool>,
}

impl Listed {
    /// Adds what the container's files say, which a list of what runs does without.
    #[must_use]
    pub fn with_files(mut self, paths: &HostPaths) -> Listed {
        let Some(file) = &self.configuration else { return self };
        self.declarative = Some(life::is_declarative(file));
        let settings = Settings::read(&self.name, paths).ok();
        self.auto_start = settings.as_ref().map(|settings| settings.document.auto_start == Some(true));
        let said = settings.and_then(|settings| settings.document.system).map(|system| system.0);
        let current = profile::current(&self.name, paths).ok().flatten();
        self.generation = current.as_ref().filter(|_| said.is_none()).map(|generation| generation.number);
        self.system = said.or_else(|| current.map(|generation| generation.system));
        self
    }
}

/// Every container that is configured or has files, by name.
///
/// # Errors
/// When a directory cannot be read.
pub fn list(paths: &HostPaths) -> Result<Vec<Listed>> {
    let mut all: Vec<Listed> = instance::list(paths).into_iter().map(listed).collect();
    for configured in configured::list(paths)? {
        match all.iter_mut().find(|listed| listed.name == configured.name) {
            Some(listed) => listed.configuration = Some(configured.file),
            None => all.push(stopped(configured)),
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// One container.
///
/// # Errors
/// When there is none of this name; the nearest one is suggested.
pub fn status(name: &str, paths: &HostPaths) -> Result<Listed> {
    let all = list(paths)?;
    match all.iter().find(|listed| listed.name == name) {
        Some(listed) => Ok(listed.clone()),
        None => Err(unknown(name, &all)),
    }
}

/// Why a container cannot be started, if the reason is that it runs.
#[must_use]
pub fn already_running(name: &str, paths: &HostPaths) -> Option<Error> {
    let found = instance::find(paths, name).filter(|found| found.alive)?;
    let by = found.state.map(|state| format!(", supervised by process {}", state.supervisor.pid));
    let by = by.unwrap_or_default();
    Some(Error::Other(format!("container {name} is running already{by}; stop it with `nixrun stop {name}`")))
}

/// Why a command needs a running container and this one is not.
pub(crate) fn not_running(name: &str, paths: &HostPaths) -> Error {
    match status(name, paths) {
        Ok(listed) if listed.phase == Phase::Crashed => Error::Other(format!(
            "container {name} is not running, its nixrun was killed; clean up with `nixrun reclaim {name}`"
        )),
        Ok(listed) if listed.configuration.is_some() => {
            Error::Other(format!("container {name} is not running; start it with `nixrun start {name}`"))
        }
        Ok(_) => Error::Other(format!("container {name} is not running")),
        Err(error) => error,
    }
}

fn unknown(name: &str, all: &[Listed]) -> Error {
    let advice = match nearest::nearest(name, all.iter().map(|listed| listed.name.as_str())) {
        Some(nearest) => format!("did you mean {nearest:?}?"),
        None => "`nixrun list` shows those that exist".to_owned(),
    };
    Error::Other(format!("there is no container called {name:?}; {advice}"))
}

/// Where a container with files of its own is in its life.
#[must_use]
pub fn phase_of(found: &Found) -> Phase {
    match &found.state {
        _ if !found.alive => Phase::Crashed,
        Some(state) if live::is_paused(&state.cgroup) => Phase::Paused,
        Some(state) if state.ready => Phase::Running,
        _ => Phase::Starting,
    }
}

fn listed(found: Found) -> Listed {
    let phase = phase_of(&found);
    let Found { name, alive, state, .. } = found;
    let state = state.as_ref();
    Listed {
        name,
        phase,
        leader: state.filter(|_| alive).map(|state| state.leader.pid),
        supervisor: state.filter(|_| alive).map(|state| state.supervisor.pid),
        uptime: state.filter(|_| alive).map(State::uptime),
        addresses: state.map(|state| state.addresses.clone()).unwrap_or_default(),
        processes: state.map(|state| cgroup_processes(&state.cgroup).len()),
        root: state.map(|state| state.root.clone()),
        cgroup: state.map(|state| state.cgroup.clone()),
        uuid: state.map(|state| state.uuid.clone()),
        program: state.map(|state| state.program.clone()),
        configuration: None,
        generation: None,
        system: None,
        auto_start: None,
        declarative: None,
    }
}

fn stopped(configured: configured::Configured) -> Listed {
    Listed {
        name: configured.name,
        phase: Phase::Stopped,
        leader: None,
        supervisor: None,
        uptime: None,
        addresses: Vec::new(),
        processes: None,
        root: None,
        cgroup: None,
        uuid: None,
        program: None,
        configuration: Some(configured.file),
        generation: None,
        system: None,
        auto_start: None,
        declarative: None,
    }
}
