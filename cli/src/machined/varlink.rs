//! systemd-machined over varlink, its interface io.systemd.Machine: JSON objects that a NUL byte ends, one request and
//! one answer at a time.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::{Failure, Machine, Machined, Registered};
use crate::local_stream::{CallOff, LocalStream};

/// Longest answer that is read; systemd's are a few hundred bytes.
const LONGEST: usize = 1 << 20;

pub(super) struct Client {
    stream: LocalStream,
}

impl Client {
    pub(super) fn open(
        socket: &Path,
        deadline: Instant,
        call_off: Option<CallOff>,
    ) -> Result<Client, Failure> {
        Ok(Client { stream: LocalStream::connect(socket, deadline, call_off)? })
    }

    fn call(&mut self, method: &str, parameters: Value) -> Result<Value, Failure> {
        let request = json!({"method": format!("io.systemd.Machine.{method}"), "parameters": parameters});
        self.stream.write_all(format!("{request}\0").as_bytes())?;
        let mut text = Vec::new();
        let mut chunk = [0; 4096];
        while text.last() != Some(&0) {
            let read = self.stream.read(&mut chunk)?;
            text.extend_from_slice(&chunk[..read]);
            if text.len() > LONGEST {
                return Err(Failure::Unknown);
            }
        }
        text.pop();
        // What is no JSON comes from something else than systemd-machined.
        let mut answer: Value = serde_json::from_slice(&text).map_err(|_| Failure::Unknown)?;
        match answer["error"].as_str() {
            None => Ok(answer["parameters"].take()),
            Some(error) => Err(failure(error, &answer["parameters"])),
        }
    }
}

fn failure(error: &str, parameters: &Value) -> Failure {
    match error {
        "io.systemd.Machine.MachineExists" => Failure::Exists,
        "io.systemd.Machine.NoSuchMachine" => Failure::NoMachine,
        // An interface, a method or a parameter that this version does not have.
        _ if error.starts_with("org.varlink.service.") => Failure::Unknown,
        _ if parameters.as_object().is_none_or(serde_json::Map::is_empty) => {
            Failure::Refused(error.to_owned())
        }
        _ => Failure::Refused(format!("{error}: {parameters}")),
    }
}

impl Machined for Client {
    fn register(&mut self, machine: &Machine) -> Result<(), Failure> {
        let mut parameters = json!({
            "name": machine.name,
            "id": machine.id.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "service": machine.service,
            "class": "container",
            "leader": machine.leader,
            "ifIndices": machine.links,
        });
        // JSON has no other strings than Unicode.
        if let Some(root) = machine.root.to_str().filter(|root| !root.is_empty()) {
            parameters["rootDirectory"] = root.into();
        }
        self.call("Register", parameters).map(drop)
    }

    fn find(&mut self, name: &str) -> Result<Registered, Failure> {
        let found = self.call("List", json!({"name": name}))?;
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        let leader = found["leader"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        Ok(Registered { leader: leader.unwrap_or_default(), service: text("service"), unit: text("unit") })
    }

    fn unregister(&mut self, name: &str) -> Result<(), Failure> {
        self.call("Unregister", json!({"name": name})).map(drop)
    }
}
