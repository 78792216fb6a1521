//! Just enough of QEMU's machine protocol to save a machine and end it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::Error;
use crate::shell;

/// A connection to one machine's monitor.
pub(crate) struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    pub(crate) fn new(stream: UnixStream) -> Result<Self, Error> {
        // The monitor answers at once unless the machine is in trouble.
        stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(failed)?;
        let mut monitor = Self { stream: BufReader::new(stream) };
        monitor.line()?;
        monitor.execute(&json!({"execute": "qmp_capabilities"}))?;
        Ok(monitor)
    }

    /// Writes the machine's state to `file`. The machine is not stopped first, because the state says whether
    /// it was running, and a restored one would wait as well; QEMU stops it when all memory is written.
    pub(crate) fn save(&mut self, file: &Path, deadline: Instant) -> Result<(), Error> {
        let bandwidth = json!({"max-bandwidth": 100_u64 << 30});
        self.execute(&json!({"execute": "migrate-set-parameters", "arguments": bandwidth}))?;
        let uri = format!("exec:cat > {}", shell::quote(&file.display().to_string()));
        self.execute(&json!({"execute": "migrate", "arguments": {"uri": uri}}))?;
        loop {
            let state = self.execute(&json!({"execute": "query-migrate"}))?;
            match state["status"].as_str() {
                Some("completed") => break,
                Some("failed" | "cancelled") => return Err(broken(format!("could not be saved: {state}"))),
                _ if Instant::now() > deadline => return Err(broken("could not be saved in time".into())),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        Ok(())
    }

    /// Ends the process in the orderly way, which writes what its disks still buffer.
    pub(crate) fn quit(mut self) -> Result<(), Error> {
        self.execute(&json!({"execute": "quit"})).map(drop)
    }

    fn execute(&mut self, command: &Value) -> Result<Value, Error> {
        writeln!(self.stream.get_mut(), "{command}").map_err(failed)?;
        loop {
            let mut answer = self.line()?;
            if let Some(error) = answer.get("error") {
                return Err(broken(format!("refused {command}: {error}")));
            }
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
            // Anything else is an event.
        }
    }

    fn line(&mut self) -> Result<Value, Error> {
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(failed)?;
        serde_json::from_str(&line).map_err(|_| broken(format!("said {line:?} on its monitor")))
    }
}

fn failed(source: std::io::Error) -> Error {
    broken(format!("does not answer on its monitor: {source}"))
}

fn broken(what: String) -> Error {
    Error::Machine { what, serial: String::new() }
}
