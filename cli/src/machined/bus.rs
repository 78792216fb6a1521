//! systemd-machined over D-Bus, org.freedesktop.machine1(5).

use std::path::Path;
use std::time::Instant;

use super::{Failure, Machine, Machined, Registered};
use crate::dbus::wire::{Message, Reader, Writer};
use crate::dbus::{Call, CallError, Connection};
use crate::local_stream::CallOff;

const SERVICE: &str = "org.freedesktop.machine1";
const MANAGER_PATH: &str = "/org/freedesktop/machine1";
const MANAGER: &str = "org.freedesktop.machine1.Manager";
const MACHINE: &str = "org.freedesktop.machine1.Machine";

pub(super) struct Client {
    connection: Connection,
    start: bool,
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        match error {
            CallError::Io(error) => error.into(),
            CallError::Refused { name, text } => match name.as_str() {
                "org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.DBus.Error.NameHasNoOwner" => {
                    Failure::Absent
                }
                "org.freedesktop.DBus.Error.UnknownMethod" => Failure::Unknown,
                "org.freedesktop.machine1.MachineExists" => Failure::Exists,
                "org.freedesktop.machine1.NoSuchMachine" => Failure::NoMachine,
                _ => Failure::Refused(text),
            },
        }
    }
}

impl Client {
    /// `start`: whether systemd-machined is started when it does not run.
    pub(super) fn open(
        bus: &Path,
        deadline: Instant,
        call_off: Option<CallOff>,
        start: bool,
    ) -> Result<Client, Failure> {
        Ok(Client { connection: Connection::open(bus, deadline, call_off)?, start })
    }

    fn call(&mut self, member: &str, signature: &str, body: Writer) -> Result<Message, Failure> {
        let call = Call {
            destination: SERVICE,
            path: MANAGER_PATH,
            interface: MANAGER,
            member,
            signature,
            body,
            start: self.start,
        };
        Ok(self.connection.call(call)?)
    }

    /// The answer to a question for a property: a variant, whose signature is left for the caller to skip.
    fn property(&mut self, path: &str, name: &str) -> Result<Message, Failure> {
        let mut body = Writer::default();
        body.string(MACHINE).string(name);
        let call = Call {
            destination: SERVICE,
            path,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            signature: "ss",
            body,
            start: false,
        };
        Ok(self.connection.call(call)?)
    }

    fn text(&mut self, path: &str, name: &str) -> Result<String, Failure> {
        let message = self.property(path, name)?;
        let mut reader = Reader::new(&message.body);
        Ok(reader.signature().and_then(|_| reader.string()).unwrap_or_default().to_owned())
    }
}

impl Machined for Client {
    fn register(&mut self, machine: &Machine) -> Result<(), Failure> {
        let mut body = Writer::default();
        body.string(&machine.name).bytes(&machine.id).string(&machine.service).string("container");
        // D-Bus has no other strings than UTF-8.
        body.u32(machine.leader).string(machine.root.to_str().unwrap_or_default());
        body.array(4, |links| {
            for link in &machine.links {
                // An `i` is a `u` to the wire.
                links.u32(link.cast_unsigned());
            }
        });
        self.call("RegisterMachineWithNetwork", "sayssusai", body).map(drop)
    }

    fn find(&mut self, name: &str) -> Result<Registered, Failure> {
        let mut body = Writer::default();
        body.string(name);
        let found = self.call("GetMachine", "s", body)?;
        let path = Reader::new(&found.body).string().unwrap_or_default().to_owned();
        let leader = self.property(&path, "Leader")?;
        let mut reader = Reader::new(&leader.body);
        Ok(Registered {
            leader: reader.signature().and_then(|_| reader.u32()).unwrap_or_default(),
            service: self.text(&path, "Service")?,
            unit: self.text(&path, "Unit")?,
        })
    }

    fn unregister(&mut self, name: &str) -> Result<(), Failure> {
        let mut body = Writer::default();
        body.string(name);
        self.call("UnregisterMachine", "s", body).map(drop)
    }
}
