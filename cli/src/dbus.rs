//! One request to systemd over the system bus: a scope of its own for this process, so that a container started from
//! a shell lives in a delegated control group (`machine-NAME.scope`) and not in the shell's.
//!
//! ```text
//! us  -> bus      AUTH EXTERNAL, BEGIN; Hello
//! us  -> bus      AddMatch(JobRemoved)         before the call, so that the signal cannot be missed
//! us  -> systemd  StartTransientUnit(machine-NAME.scope, …, PIDs=[us])
//! us <-  systemd  return: the job              the scope may not exist yet
//! us <-  systemd  signal JobRemoved(job, "done")   now we are in it
//! ```

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wire::{FIXED, Message, Reader, Writer, field, kind};

mod wire;

/// Where the system bus listens, below the host's root.
pub const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

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

/// Moves this process into a new scope [`scope_name`]`(container)` in `machine.slice`, delegated to us, and returns
/// when that is done. Any thread may call; it moves them all.
///
/// # Errors
/// [`ScopeError`]; the process is then where it was. `bus` is waited for `timeout` at most.
pub fn start_scope(bus: &Path, container: &str, timeout: Duration) -> Result<(), ScopeError> {
    let unit = scope_name(container);
    let pid = std::process::id();
    request(bus, &unit, container, pid, Instant::now() + timeout).map_err(|failure| match failure {
        Failure::Io(source) => ScopeError::Bus { unit, bus: bus.to_owned(), source },
        Failure::Error(error, text) => ScopeError::Refused { unit, error, text },
        Failure::Job(result) => ScopeError::Job { unit, result },
    })
}

enum Failure {
    Io(io::Error),
    Error(String, String),
    Job(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

fn request(bus: &Path, unit: &str, container: &str, pid: u32, deadline: Instant) -> Result<(), Failure> {
    let mut connection = Connection::open(bus, deadline)?;
    connection.call(BUS, BUS_PATH, BUS, "Hello", "", Writer::default())?;

    let mut rule = Writer::default();
    rule.string(&format!(
        "type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved',path='{SYSTEMD_PATH}'"
    ));
    connection.call(BUS, BUS_PATH, BUS, "AddMatch", "s", rule)?;

    let body = transient_scope(unit, container, pid);
    let reply =
        connection.call(SYSTEMD, SYSTEMD_PATH, MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", body)?;
    let job = Reader::new(&reply.body).string().ok_or_else(malformed)?.to_owned();
    loop {
        let message = connection.next()?;
        if message.kind != kind::SIGNAL || message.member != "JobRemoved" || message.interface != MANAGER {
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

/// The body of `StartTransientUnit`: unit, mode, properties, auxiliary units.
fn transient_scope(unit: &str, container: &str, pid: u32) -> Writer {
    let mut body = Writer::default();
    body.string(unit).string("fail");
    body.array(8, |properties| {
        let text = |p: &mut Writer, name: &str, value: &str| {
            p.align(8).string(name).signature("s").string(value);
        };
        text(properties, "Description", &format!("Container {container}"));
        text(properties, "Slice", "machine.slice");
        // A scope that failed would stand in the way of the next start.
        text(properties, "CollectMode", "inactive-or-failed");
        properties.align(8).string("Delegate").signature("b").u32(1);
        properties.align(8).string("PIDs").signature("au").array(4, |pids| {
            pids.u32(pid);
        });
    });
    body.array(8, |_| {});
    body
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the bus sent a message that makes no sense")
}

struct Connection {
    stream: UnixStream,
    serial: u32,
    deadline: Instant,
}

impl Connection {
    /// Connects and proves who we are.
    fn open(bus: &Path, deadline: Instant) -> io::Result<Connection> {
        let mut connection = Connection { stream: UnixStream::connect(bus)?, serial: 0, deadline };
        let uid: String =
            nix::unistd::geteuid().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        connection.stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") && answer.len() < 256 {
            answer.push(connection.read(1)?[0]);
        }
        if !answer.starts_with(b"OK ") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the bus does not accept us"));
        }
        connection.stream.write_all(b"BEGIN\r\n")?;
        Ok(connection)
    }

    /// Calls a method and waits for its answer.
    fn call(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        signature: &str,
        body: Writer,
    ) -> Result<Message, Failure> {
        self.serial += 1;
        let mut fields = vec![
            (field::PATH, path),
            (field::INTERFACE, interface),
            (field::MEMBER, member),
            (field::DESTINATION, destination),
        ];
        if !signature.is_empty() {
            fields.push((field::SIGNATURE, signature));
        }
        self.stream.write_all(&wire::message(kind::CALL, self.serial, &fields, None, body))?;
        loop {
            let message = self.next()?;
            if message.reply_to != Some(self.serial) {
                continue;
            }
            match message.kind {
                kind::RETURN => return Ok(message),
                kind::ERROR => {
                    let text =
                        message.signature.starts_with('s').then(|| Reader::new(&message.body).string());
                    let text = text.flatten().unwrap_or("no reason given").to_owned();
                    return Err(Failure::Error(message.error, text));
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> io::Result<Message> {
        let mut bytes = self.read(FIXED)?;
        let length = wire::message_length(&bytes).ok_or_else(malformed)?;
        bytes.extend(self.read(length - FIXED)?);
        Message::read(&bytes).ok_or_else(malformed)
    }

    /// Reads exactly `count` bytes before the deadline.
    fn read(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut bytes[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
