//! A client of the system bus, as small as what nixrun says to systemd and systemd-machined: calls, their answers,
//! and signals to us. [`scope`] asks systemd for a scope, [`manager`] for
//! units to be started and stopped.
//!
//! ```text
//! us  -> bus      AUTH EXTERNAL, BEGIN; Hello
//! us  -> service  a call, one at a time
//! us <-  service  its answer; signals come before and after it
//! ```

use std::io;
use std::path::Path;
use std::time::Instant;

use crate::local_stream::{CallOff, LocalStream};
use wire::{FIXED, Message, Reader, Writer, field, flag, kind};

pub mod manager;
pub mod scope;
pub(crate) mod wire;

/// Where the system bus listens, below the host's root.
pub const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The bus cannot be reached, the connection broke, or there was no answer in time.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Whoever was called, or the bus in its place, said no.
    #[error("{name}: {text}")]
    Refused {
        /// Name of the D-Bus error.
        name: String,
        /// What it says.
        text: String,
    },
}

/// A method call.
pub(crate) struct Call<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
    pub(crate) signature: &'a str,
    pub(crate) body: Writer,
    /// Whether a service that does not run is started for it.
    pub(crate) start: bool,
}

impl Call<'_> {
    /// A call to the bus itself.
    pub(crate) fn to_bus<'a>(member: &'a str, signature: &'a str, body: Writer) -> Call<'a> {
        Call {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member,
            signature,
            body,
            start: true,
        }
    }
}

/// A connection to a message bus.
#[derive(Debug)]
pub struct Connection {
    stream: LocalStream,
    serial: u32,
    name: String,
}

impl Connection {
    /// Connects to the bus at this socket.
    ///
    /// # Errors
    /// When it cannot be reached, does not accept us, or takes too long.
    pub fn open(bus: &Path, deadline: Instant, call_off: Option<CallOff>) -> Result<Connection, CallError> {
        let stream = LocalStream::connect(bus, deadline, call_off)?;
        let mut connection = Connection { stream, serial: 0, name: String::new() };
        connection.authenticate()?;
        let answer = connection.call(Call::to_bus("Hello", "", Writer::default()))?;
        connection.name = Reader::new(&answer.body).string().ok_or_else(malformed)?.to_owned();
        Ok(connection)
    }

    /// Proves who we are.
    fn authenticate(&mut self) -> io::Result<()> {
        let uid: String =
            nix::unistd::geteuid().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") && answer.len() < 256 {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            answer.extend(byte);
        }
        if !answer.starts_with(b"OK ") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the bus does not accept us"));
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    /// Our unique name on the bus.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Until when everything from now on has to be done.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.stream.set_deadline(deadline);
    }

    /// Calls a method and waits for its answer.
    pub(crate) fn call(&mut self, call: Call<'_>) -> Result<Message, CallError> {
        self.serial += 1;
        let mut fields = vec![
            (field::PATH, call.path),
            (field::INTERFACE, call.interface),
            (field::MEMBER, call.member),
            (field::DESTINATION, call.destination),
        ];
        if !call.signature.is_empty() {
            fields.push((field::SIGNATURE, call.signature));
        }
        let flags = if call.start { 0 } else { flag::NO_AUTO_START };
        self.stream.write_all(&wire::message(kind::CALL, flags, self.serial, &fields, None, call.body))?;
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
                    return Err(CallError::Refused { name: message.error, text });
                }
                _ => {}
            }
        }
    }

    /// Waits for as long as it takes until a message begins to come in; `false` when that is called off.
    pub(crate) fn wait_for_more(&self, call_off: &CallOff) -> io::Result<bool> {
        self.stream.wait_for_more(call_off)
    }

    /// The next message.
    pub(crate) fn next(&mut self) -> io::Result<Message> {
        let mut bytes = vec![0; FIXED];
        self.stream.read_exact(&mut bytes)?;
        let length = wire::message_length(&bytes).ok_or_else(malformed)?;
        bytes.resize(length, 0);
        self.stream.read_exact(&mut bytes[FIXED..])?;
        Message::read(&bytes).ok_or_else(malformed)
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the bus sent a message that makes no sense")
}

#[cfg(test)]
pub(crate) mod tests;
