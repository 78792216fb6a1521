//! A scope of its own for this process, so that a container started from a shell lives in a delegated control group
//! (`machine-NAME.scope`) and not in the shell's.
//!
//! ```text
//! us  -> bus      AddMatch(JobRemoved)         before the call, so that the signal cannot be missed
//! us  -> systemd  StartTransientUnit(machine-NAME.scope, …, Controller=us, PIDs=[us])
//! us <-  systemd  return: the job              the scope may not exist yet
//! us <-  systemd  signal JobRemoved(job, "done")   now we are in it
//!                 ...
//! us <-  systemd  signal RequestStop           instead of a SIGTERM to every process of the scope, the container's
//!                                              init among them, which would execute itself anew and stay
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::wire::{Message, Reader, Writer, kind};
use super::{Call, CallError, Connection, malformed};
use crate::local_stream::CallOff;
use crate::unit_property::{PropertyValue, UnitProperty};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const SCOPE: &str = "org.freedesktop.systemd1.Scope";

/// The slice of containers, unless another was asked for.
pub const SLICE: &str = "machine.slice";

/// Why systemd did not give us a scope.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// The bus cannot be reached or the connection broke.
    #[error("cannot ask systemd for {unit} over {}: {source}", bus.display())]
    Bus {
        /// The scope.
        unit: String,
        /// Socket of the bus.
        bus: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// systemd, or the bus in its place, said no.
    #[error("cannot start {unit}: systemd answered {error}: {text}")]
    Refused {
        /// The scope.
        unit: String,
        /// Name of the D-Bus error.
        error: String,
        /// What it says.
        text: String,
    },
    /// The job ran and did not succeed.
    #[error("cannot start {unit}: systemd's job ended as {result:?}; `systemctl status {unit}` may say why")]
    Job {
        /// The scope.
        unit: String,
        /// systemd's word for how the job ended, such as `failed` or `canceled`.
        result: String,
    },
}

/// A scope to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeRequest<'a> {
    /// Name of the container.
    pub container: &'a str,
    /// The slice that it goes into.
    pub slice: &'a str,
    /// What else it has, on top of what makes it a container's scope.
    pub properties: &'a [UnitProperty],
}

/// The name of the scope that systemd-machined, too, would give a container: `machine-NAME.scope`, NAME escaped as
/// systemd-escape(1) does, where a dash within becomes `\x2d`.
#[must_use]
pub fn scope_name(container: &str) -> String {
    let mut unit = String::from("machine-");
    for (i, byte) in container.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_') || (byte == b'.' && i > 0);
        if plain {
            unit.push(char::from(byte));
        } else {
            unit.push_str(&format!("\\x{byte:02x}"));
        }
    }
    unit + ".scope"
}

/// A scope that this process is in, for as long as it lives.
#[derive(Debug)]
pub struct Scope {
    connection: Connection,
}

impl Scope {
    /// Moves this process into a new scope [`scope_name`]`(container)`, delegated to us, and returns when that is
    /// done. Any thread may call; it moves them all.
    ///
    /// # Errors
    /// [`ScopeError`]; the process is then where it was. `bus` is waited for `timeout` at most.
    pub fn start(bus: &Path, request: &ScopeRequest<'_>, timeout: Duration) -> Result<Scope, ScopeError> {
        let unit = scope_name(request.container);
        let deadline = Instant::now() + timeout;
        let result = Connection::open(bus, deadline, None)
            .map_err(Failure::from)
            .and_then(|mut connection| start(&mut connection, &unit, request).map(|()| connection));
        match result {
            Ok(connection) => Ok(Scope { connection }),
            Err(Failure::Call(CallError::Io(source))) => {
                Err(ScopeError::Bus { unit, bus: bus.to_owned(), source })
            }
            Err(Failure::Call(CallError::Refused { name, text })) => {
                Err(ScopeError::Refused { unit, error: name, text })
            }
            Err(Failure::Job(result)) => Err(ScopeError::Job { unit, result }),
        }
    }

    /// Waits until systemd wants the scope to be stopped: `true`; `false` when the waiting is called off, or the
    /// connection broke.
    pub fn stop_requested(&mut self, call_off: &CallOff) -> bool {
        /// How long the rest of a message may take whose beginning is there.
        const REST: Duration = Duration::from_secs(10);
        while self.connection.wait_for_more(call_off).unwrap_or(false) {
            self.connection.set_deadline(Instant::now() + REST);
            match self.connection.next() {
                Ok(message)
                    if is_signal(&message, SCOPE, "RequestStop") && self.is_systemd(&message.sender) =>
                {
                    return true;
                }
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// Everybody may send signals, this one too. systemd has another name on the bus each time it executes itself anew.
    fn is_systemd(&mut self, sender: &str) -> bool {
        let mut name = Writer::default();
        name.string(SYSTEMD);
        let owner = self.connection.call(Call::to_bus("GetNameOwner", "s", name));
        owner.is_ok_and(|answer| Reader::new(&answer.body).string() == Some(sender))
    }
}

enum Failure {
    Call(CallError),
    Job(String),
}

impl<E: Into<CallError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Call(error.into())
    }
}

fn start(connection: &mut Connection, unit: &str, request: &ScopeRequest<'_>) -> Result<(), Failure> {
    let mut rule = Writer::default();
    rule.string(&format!(
        "type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved',path='{SYSTEMD_PATH}'"
    ));
    connection.call(Call::to_bus("AddMatch", "s", rule))?;
    let body = transient_scope(unit, request, connection.name(), std::process::id());
    let reply = connection.call(Call {
        destination: SYSTEMD,
        path: SYSTEMD_PATH,
        interface: MANAGER,
        member: "StartTransientUnit",
        signature: "ssa(sv)a(sa(sv))",
        body,
        start: true,
    })?;
    let job = Reader::new(&reply.body).string().ok_or_else(malformed)?.to_owned();
    loop {
        let message = connection.next()?;
        if !is_signal(&message, MANAGER, "JobRemoved") || message.sender != reply.sender {
            continue;
        }
        // id, job, unit, result
        let mut reader = Reader::new(&message.body);
        let (_, removed) = (reader.u32(), reader.string());
        let (_, result) = (reader.string(), reader.string().ok_or_else(malformed)?);
        if removed == Some(&job) {
            return if result == "done" { Ok(()) } else { Err(Failure::Job(result.to_owned())) };
        }
    }
}

pub(super) fn is_signal(message: &Message, interface: &str, member: &str) -> bool {
    message.kind == kind::SIGNAL && message.interface == interface && message.member == member
}

/// The body of `StartTransientUnit`: unit, mode, properties, auxiliary units. Of two properties of one name the later
/// one counts.
fn transient_scope(unit: &str, request: &ScopeRequest<'_>, controller: &str, pid: u32) -> Writer {
    let mut body = Writer::default();
    body.string(unit).string("fail");
    body.array(8, |properties| {
        let text = |p: &mut Writer, name: &str, value: &str| {
            p.align(8).string(name).signature("s").string(value);
        };
        text(properties, "Description", &format!("Container {}", request.container));
        text(properties, "Slice", request.slice);
        // A scope that failed would stand in the way of the next start.
        text(properties, "CollectMode", "inactive-or-failed");
        text(properties, "Controller", controller);
        properties.align(8).string("Delegate").signature("b").u32(1);
        for property in request.properties {
            properties.align(8).string(&property.name);
            variant(properties, &property.value);
        }
        properties.align(8).string("PIDs").signature("au").array(4, |pids| {
            pids.u32(pid);
        });
    });
    body.array(8, |_| {});
    body
}

fn variant(writer: &mut Writer, value: &PropertyValue) {
    match value {
        PropertyValue::Bool(value) => writer.signature("b").u32(u32::from(*value)),
        PropertyValue::Share(value) => writer.signature("u").u32(*value),
        PropertyValue::Number(value) => writer.signature("t").u64(*value),
        PropertyValue::Text(value) => writer.signature("s").string(value),
        PropertyValue::Texts(values) => writer.signature("as").array(4, |array| {
            for value in values {
                array.string(value);
            }
        }),
        PropertyValue::Bits(bytes) => writer.signature("ay").bytes(bytes),
        PropertyValue::Devices(devices) => writer.signature("a(ss)").array(8, |array| {
            for (path, access) in devices {
                array.align(8).string(path).string(access);
            }
        }),
        PropertyValue::PerDevice(devices) => writer.signature("a(st)").array(8, |array| {
            for (path, number) in devices {
                array.align(8).string(path).u64(*number);
            }
        }),
    };
}

#[cfg(test)]
mod tests;
