//! systemd's manager: units that are started and stopped by jobs, which are waited for, and what systemd knows of them.
//!
//! ```text
//! us  -> bus      AddMatch(JobRemoved)         before the first job, so that no signal can be missed
//! us  -> systemd  StartUnit(UNIT, "replace")   joins a job of the same kind that is on its way
//! us <-  systemd  return: the job
//! us <-  systemd  signal JobRemoved(job, "done")
//! ```

use std::path::Path;
use std::time::Instant;

use super::scope::is_signal;
use super::wire::{Message, Reader, Writer};
use super::{Call, CallError, Connection, malformed};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// What is to be done with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Start it, unless it is active.
    Start,
    /// Stop it.
    Stop,
    /// Stop it if it is active, and start it.
    Restart,
    /// Have it reload what it can without a restart.
    Reload,
}

impl Job {
    fn method(self) -> &'static str {
        match self {
            Job::Start => "StartUnit",
            Job::Stop => "StopUnit",
            Job::Restart => "RestartUnit",
            Job::Reload => "ReloadUnit",
        }
    }
}

/// A unit as systemd has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Whether there is one: `loaded`, `not-found`, `masked`, `bad-setting`, `error`.
    pub load: String,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`.
    pub active: String,
}

/// How a service ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceEnd {
    /// systemd's word: `success`, `exit-code`, `signal`, `timeout`, `start-limit-hit` and others.
    pub result: String,
    /// Exit status, or number of the signal, of its main process.
    pub status: u32,
    /// What it last said of itself (`STATUS=`).
    pub status_text: String,
}

/// A connection to systemd's manager.
#[derive(Debug)]
pub struct Manager {
    connection: Connection,
    listens: bool,
}

impl Manager {
    /// Connects over the bus at this socket. Nothing waits past `deadline`.
    ///
    /// # Errors
    /// When the bus cannot be reached.
    pub fn connect(bus: &Path, deadline: Instant) -> Result<Manager, CallError> {
        Ok(Manager { connection: Connection::open(bus, deadline, None)?, listens: false })
    }

    /// Until when everything from now on has to be done.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.connection.set_deadline(deadline);
    }

    /// A unit, read from its file if need be.
    ///
    /// # Errors
    /// When systemd says no; for a unit that is not there it does not.
    pub fn unit(&mut self, name: &str) -> Result<Unit, CallError> {
        let path = self.load(name)?;
        Ok(Unit {
            load: self.text(&path, UNIT, "LoadState")?,
            active: self.text(&path, UNIT, "ActiveState")?,
        })
    }

    /// How the last run of a service ended.
    ///
    /// # Errors
    /// When systemd says no.
    pub fn service_end(&mut self, name: &str) -> Result<ServiceEnd, CallError> {
        let path = self.load(name)?;
        Ok(ServiceEnd {
            result: self.text(&path, SERVICE, "Result")?,
            status: self.number(&path, SERVICE, "ExecMainStatus")?,
            status_text: self.text(&path, SERVICE, "StatusText")?,
        })
    }

    /// Queues a job in place of one that contradicts it, and returns its path for [`Manager::wait`].
    ///
    /// # Errors
    /// When systemd says no.
    pub fn queue(&mut self, job: Job, unit: &str) -> Result<String, CallError> {
        self.listen()?;
        let mut body = Writer::default();
        body.string(unit).string("replace");
        let answer = self.call(job.method(), "ss", body)?;
        Ok(path_of(&answer)?)
    }

    /// Waits for a job's end: systemd's word for it, such as `done`, `failed`, `timeout`, `canceled`, `dependency`.
    ///
    /// # Errors
    /// When it takes too long.
    pub fn wait(&mut self, job: &str) -> Result<String, CallError> {
        loop {
            let message = self.connection.next()?;
            if !is_signal(&message, MANAGER, "JobRemoved") {
                continue;
            }
            // id, job, unit, result
            let mut reader = Reader::new(&message.body);
            let (_, removed, _, result) = (reader.u32(), reader.string(), reader.string(), reader.string());
            if removed == Some(job) {
                return Ok(result.ok_or_else(malformed)?.to_owned());
            }
        }
    }

    /// Sends a signal to every process of a unit.
    ///
    /// # Errors
    /// When systemd says no.
    pub fn kill(&mut self, unit: &str, signal: i32) -> Result<(), CallError> {
        let mut body = Writer::default();
        body.string(unit).string("all").u32(signal.cast_unsigned());
        self.call("KillUnit", "ssi", body).map(drop)
    }

    /// Forgets that a unit failed.
    ///
    /// # Errors
    /// When systemd says no.
    pub fn reset_failed(&mut self, unit: &str) -> Result<(), CallError> {
        let mut body = Writer::default();
        body.string(unit);
        self.call("ResetFailedUnit", "s", body).map(drop)
    }

    /// Hears of jobs from now on.
    fn listen(&mut self) -> Result<(), CallError> {
        if !self.listens {
            let mut rule = Writer::default();
            rule.string(&format!(
                "type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved',path='{SYSTEMD_PATH}'"
            ));
            self.connection.call(Call::to_bus("AddMatch", "s", rule))?;
            self.listens = true;
        }
        Ok(())
    }

    fn load(&mut self, name: &str) -> Result<String, CallError> {
        let mut body = Writer::default();
        body.string(name);
        let answer = self.call("LoadUnit", "s", body)?;
        Ok(path_of(&answer)?)
    }

    fn call(&mut self, member: &str, signature: &str, body: Writer) -> Result<Message, CallError> {
        self.connection.call(Call {
            destination: SYSTEMD,
            path: SYSTEMD_PATH,
            interface: MANAGER,
            member,
            signature,
            body,
            start: true,
        })
    }

    fn property(&mut self, path: &str, interface: &str, name: &str) -> Result<Message, CallError> {
        let mut body = Writer::default();
        body.string(interface).string(name);
        self.connection.call(Call {
            destination: SYSTEMD,
            path,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            signature: "ss",
            body,
            start: true,
        })
    }

    fn text(&mut self, path: &str, interface: &str, name: &str) -> Result<String, CallError> {
        let answer = self.property(path, interface, name)?;
        let mut reader = Reader::new(&answer.body);
        let text = reader.signature().filter(|kind| *kind == "s").and_then(|_| reader.string());
        Ok(text.ok_or_else(malformed)?.to_owned())
    }

    fn number(&mut self, path: &str, interface: &str, name: &str) -> Result<u32, CallError> {
        let answer = self.property(path, interface, name)?;
        let mut reader = Reader::new(&answer.body);
        let number = reader.signature().filter(|kind| matches!(*kind, "i" | "u")).and_then(|_| reader.u32());
        Ok(number.ok_or_else(malformed)?)
    }
}

fn path_of(answer: &Message) -> std::io::Result<String> {
    Reader::new(&answer.body).string().map(str::to_owned).ok_or_else(malformed)
}

#[cfg(test)]
mod tests;
