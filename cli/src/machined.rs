//! Registration with systemd-machined, which makes `machinectl`, `systemctl -M` and `journalctl -M` know a container:
//! over varlink where systemd listens for it (v257), else over D-Bus.
//!
//! Nothing depends on it but those: a container that cannot be registered runs all the same.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use runtime::HostPaths;

use crate::dbus::SYSTEM_BUS;
use crate::local_stream::CallOff;

mod bus;
mod varlink;

/// Where systemd-machined listens for varlink, below the host's root.
const VARLINK: &str = "/run/systemd/machine/io.systemd.Machine";

/// How long it may take to find out what is registered, or to undo it. Somebody waits for the container's end.
const SHORT: Duration = Duration::from_secs(2);

/// How often a registration is tried again after one that is out of date was removed.
const TRIES: u32 = 3;

/// A container, as systemd-machined is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its uuid.
    pub id: [u8; 16],
    /// Who runs it, such as `systemd-nspawn`.
    pub service: String,
    /// Host pid of its PID 1.
    pub leader: u32,
    /// Its root directory; empty when that is no directory of the host.
    pub root: PathBuf,
    /// Indices of the host's ends of its links.
    pub links: Vec<i32>,
}

/// A machine that is registered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Registered {
    service: String,
    leader: u32,
    unit: String,
}

/// Why a container is not registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// systemd-machined is not installed here.
    #[error("systemd-machined is not there")]
    Absent,
    /// Another one with the same name is registered, and runs.
    #[error(
        "cannot register container {name} with systemd-machined: {service} has registered a machine of this name, which \
         runs in {unit} as process {leader}; stop it, or give this container another name"
    )]
    Taken {
        /// The name.
        name: String,
        /// Who registered it.
        service: String,
        /// Its unit.
        unit: String,
        /// Its leader.
        leader: u32,
    },
    /// systemd-machined, or what is to start it, says no or nothing.
    #[error("cannot register container {name} with systemd-machined: {problem}; machinectl will not show it")]
    Failed {
        /// The name.
        name: String,
        /// What it said.
        problem: String,
    },
}

/// How a request to systemd-machined can fail.
#[derive(Debug)]
enum Failure {
    /// There is no systemd-machined.
    Absent,
    /// It does not know such a request.
    Unknown,
    /// The connection broke, or there was no answer in time.
    Broken(io::Error),
    /// A machine of this name is registered.
    Exists,
    /// The same, and that one is alive.
    Taken(Registered),
    /// No machine of this name is registered.
    NoMachine,
    /// It refuses.
    Refused(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::Absent,
            _ => Failure::Broken(error),
        }
    }
}

/// A connection to systemd-machined.
trait Machined {
    fn register(&mut self, machine: &Machine) -> Result<(), Failure>;
    fn find(&mut self, name: &str) -> Result<Registered, Failure>;
    fn unregister(&mut self, name: &str) -> Result<(), Failure>;
}

/// Registers a container whose program has been executed.
///
/// # Errors
/// [`RegisterError`], after `timeout` at the latest, and soon after a call-off.
pub fn register(
    machine: &Machine,
    paths: &HostPaths,
    timeout: Duration,
    call_off: &CallOff,
) -> Result<(), RegisterError> {
    let deadline = Instant::now() + timeout;
    let over_varlink = varlink::Client::open(&paths.join(VARLINK), deadline, Some(call_off.clone()))
        .and_then(|mut client| register_anew(&mut client, machine, paths));
    let result = match over_varlink {
        // Not there, older or newer than what is known here, or in the way: the bus says why, if it is no better.
        Err(Failure::Absent | Failure::Unknown | Failure::Broken(_)) if !call_off.is_called_off() => {
            bus::Client::open(&paths.join(SYSTEM_BUS), deadline, Some(call_off.clone()), true)
                .and_then(|mut client| register_anew(&mut client, machine, paths))
        }
        result => result,
    };
    result.map_err(|failure| {
        let name = machine.name.clone();
        let problem = match failure {
            Failure::Absent => return RegisterError::Absent,
            Failure::Taken(Registered { service, unit, leader }) => {
                return RegisterError::Taken { name, service, unit, leader };
            }
            Failure::Unknown => "it does not know how".to_owned(),
            Failure::Broken(error) => error.to_string(),
            Failure::Exists | Failure::NoMachine => "a machine of this name comes and goes".to_owned(),
            Failure::Refused(text) => text.trim_end_matches('.').to_owned(),
        };
        RegisterError::Failed { name, problem }
    })
}

/// Registers, after what is registered under this name and dead was removed: systemd-machined keeps a machine for as
/// long as its unit is active, which a unit that restarts is all the time. Its TerminateMachine would stop that unit.
fn register_anew(machined: &mut impl Machined, machine: &Machine, paths: &HostPaths) -> Result<(), Failure> {
    for _ in 0..TRIES {
        match machined.register(machine) {
            Err(Failure::Exists) => {}
            result => return result,
        }
        match machined.find(&machine.name) {
            Ok(found) if found.leader == machine.leader => return Ok(()),
            Ok(found) if is_alive(found.leader, paths) => return Err(Failure::Taken(found)),
            Ok(_) => match machined.unregister(&machine.name) {
                Ok(()) | Err(Failure::NoMachine) => {}
                result => return result,
            },
            Err(Failure::NoMachine) => {}
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::Exists)
}

/// Takes a container that has ended out of systemd-machined's list. What fails is left to a next registration. It is
/// not started for this: when the host shuts down it may be gone already, and starting it would wait for the end of
/// the shutdown.
pub fn unregister(name: &str, paths: &HostPaths) {
    let result = over_any(paths, |machined| machined.unregister(name));
    if matches!(result, Err(Failure::Absent)) {
        remove_file_of_dead(name, paths);
    }
}

/// Does the same with the registration of a container whose nixrun was killed, unless it is a living one's by now.
/// Returns whether there was one.
pub fn unregister_dead(name: &str, paths: &HostPaths) -> bool {
    let result = over_any(paths, |machined| {
        let found = machined.find(name)?;
        if is_alive(found.leader, paths) { Err(Failure::Taken(found)) } else { machined.unregister(name) }
    });
    match result {
        Err(Failure::Absent) => remove_file_of_dead(name, paths),
        result => result.is_ok(),
    }
}

/// Removes what a systemd-machined that does not run has written down of a container that has ended. When it starts
/// again it believes its file, finds the leader dead, and stops the unit that the file names: by then that of the next
/// container of this name, since units are called the same.
fn remove_file_of_dead(name: &str, paths: &HostPaths) -> bool {
    let directory = paths.join("/run/systemd/machines");
    let file = directory.join(name);
    let Ok(text) = std::fs::read_to_string(&file) else { return false };
    let value = |key| text.lines().find_map(|line| line.strip_prefix(key));
    let leader = value("LEADER=").and_then(|leader| leader.parse().ok());
    if leader.is_none_or(|leader| is_alive(leader, paths)) {
        return false;
    }
    if let Some(unit) = value("SCOPE=") {
        // A link to the file; the backslashes of a unit's name are written twice.
        let _ = std::fs::remove_file(directory.join(format!("unit:{}", unit.replace("\\\\", "\\"))));
    }
    std::fs::remove_file(&file).is_ok()
}

fn over_any(
    paths: &HostPaths,
    work: impl Fn(&mut dyn Machined) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + SHORT;
    match bus::Client::open(&paths.join(SYSTEM_BUS), deadline, None, false) {
        Ok(mut client) => work(&mut client),
        // A host without a bus.
        Err(Failure::Absent) => work(&mut varlink::Client::open(&paths.join(VARLINK), deadline, None)?),
        Err(failure) => Err(failure),
    }
}

/// Whether there is such a process and it has not ended: one that nobody has waited for yet is dead.
fn is_alive(pid: u32, paths: &HostPaths) -> bool {
    let stat = std::fs::read_to_string(paths.proc(&format!("{pid}/stat"))).unwrap_or_default();
    // The name, in parentheses, may hold anything; the state comes after it.
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

#[cfg(test)]
mod tests;
