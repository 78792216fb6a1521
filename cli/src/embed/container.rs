//! The handle of a running container.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Duration;

use runtime::instance::State;
use runtime::supervisor::{Event, Stopper};
use runtime::{HostPaths, Outcome};

use super::Command;
use super::supervision::{Shared, Started};
use crate::ops::{Error, Result};

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// How its PID 1 ended. Of [`Outcome::Rebooted`] nothing else comes: who wants it to run again starts it again.
    pub outcome: Outcome,
    /// What could not be cleaned up, one sentence each; `nixrun reclaim` tries again.
    pub cleanup: Vec<String>,
}

/// A running container, to be used from any thread.
///
/// Dropping it kills the container and waits until nothing of it is left; [`Container::detach`] lets it run.
#[derive(Debug)]
pub struct Container {
    state: State,
    paths: HostPaths,
    warnings: Vec<String>,
    stopper: Stopper,
    shared: Arc<Shared>,
    /// None once it was let go.
    thread: Option<JoinHandle<()>>,
}

impl Container {
    pub(super) fn new(started: Started, shared: Arc<Shared>, thread: JoinHandle<()>) -> Container {
        let Started { state, paths, stopper, warnings } = started;
        Container { state, paths, warnings, stopper, shared, thread: Some(thread) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// What was known when it started: its PID 1, its control group, its addresses.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What is not as asked for although it runs, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Waits until PID 1 has said that it is ready, which one that says nothing is as soon as it runs.
    ///
    /// # Errors
    /// When the container ends before, or is not ready after `timeout`; it runs on then.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        let name = self.name();
        match self.shared.wait(Some(timeout), true) {
            (true, _) => Ok(()),
            (false, None) => Err(Error::Other(format!("container {name} was not ready within {timeout:?}"))),
            (false, Some(Err(error))) => Err(error),
            (false, Some(Ok(end))) => Err(Error::Other(format!(
                "container {name} ended before it was ready: {}",
                match end.outcome {
                    Outcome::Exited(status) => format!("its PID 1 exited with status {status}"),
                    Outcome::Killed(signal) => format!("its PID 1 was killed by signal {signal}"),
                    Outcome::PoweredOff => "it was shut down".to_owned(),
                    Outcome::Rebooted => "it asked to be rebooted".to_owned(),
                }
            ))),
        }
    }

    /// What happens to it from now on; that it is ready comes first if it is already. Ends with the container.
    #[must_use]
    pub fn events(&self) -> Receiver<Event> {
        self.shared.listen()
    }

    /// A command to be run inside: the program, by its path inside or its name, and its arguments.
    #[must_use]
    pub fn command(&self, argv: impl IntoIterator<Item = impl Into<OsString>>) -> Command<'_> {
        Command::new(self.name(), &self.paths, argv.into_iter().map(Into::into).collect())
    }

    /// Asks it to shut down and waits for its end; it is killed after its grace ([`super::Launch::grace`]).
    ///
    /// # Errors
    /// When it could not be supervised; it is gone then, too.
    pub fn stop(&self) -> Result<End> {
        // Twice would be to kill it.
        if self.shared.ask() {
            self.stopper.stop();
        }
        self.wait()
    }

    /// Ends every process of it at once and waits until nothing of it is left.
    ///
    /// # Errors
    /// As [`Container::stop`].
    pub fn kill(&self) -> Result<End> {
        self.stopper.kill();
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// As [`Container::stop`].
    pub fn wait(&self) -> Result<End> {
        let never = || Err(Error::Other(format!("container {} has not ended", self.name())));
        self.shared.wait(None, false).1.unwrap_or_else(never)
    }

    /// The same, up to `timeout`; `None` when it still runs.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<End>> {
        self.shared.wait(Some(timeout), false).1
    }

    /// Lets it run until it ends by itself, `nixrun stop` ends it, or the program ends.
    pub fn detach(mut self) {
        self.thread = None;
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stopper.kill();
            let _ = thread.join();
        }
    }
}
