//! A nixrun, or systemd-nspawn, that a test has started and that holds a container.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Host, wait_for};

/// How a program ended and what it wrote.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it wrote to standard output: the console.
    pub out: String,
    /// What it wrote to standard error: its own words.
    pub err: String,
}

/// Runs a program to its end.
///
/// # Panics
/// When it cannot be started.
pub fn finish(command: &mut Command) -> Finished {
    let output = command.output().expect("the program starts");
    let (out, err) = crate::host::texts(&output);
    Finished { code: output.status.code(), out, err }
}

/// A running container. Dropping it kills everything that the test has started on its host.
#[derive(Debug)]
pub struct Container<'h> {
    host: &'h Host<'h>,
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
    ended: bool,
}

impl<'h> Container<'h> {
    /// Starts a program that will hold the container `name`, with its output in files.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn spawn(host: &'h Host<'h>, name: &str, mut command: Command) -> Container<'h> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = |kind: &str| host.path(&format!("output/{name}-{number}.{kind}"));
        let (out, err) = (file("out"), file("err"));
        fs::create_dir_all(host.path("output")).expect("a directory for output");
        let child = command
            .stdout(File::create(&out).expect("a file for output"))
            .stderr(File::create(&err).expect("a file for output"))
            .spawn()
            .expect("the program starts");
        Container { host, name: name.to_owned(), child, out, err, ended: false }
    }

    /// What `nixrun status --json` says; `None` where it fails.
    #[must_use]
    pub fn status(&self) -> Option<serde_json::Value> {
        let output = self.host.run(&["status", "--json", &self.name]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// The state that this nixrun has published; `None` while there is none, or only a dead one's.
    #[must_use]
    pub fn state(&self) -> Option<serde_json::Value> {
        let file = self.host.path("run/nixrun").join(&self.name).join("state");
        let state: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        (state["supervisor"]["pid"] == self.supervisor()).then_some(state)
    }

    /// Waits until the container said that it is ready.
    ///
    /// # Panics
    /// When nixrun ends before, or it takes too long.
    #[track_caller]
    pub fn wait_ready(&self) {
        wait_for(&format!("{} to be ready", self.name), || {
            let ready = self.state().is_some_and(|state| state["ready"] == true);
            let dead = !ready && self.state().is_none() && self.is_gone();
            assert!(!dead, "nixrun has ended: {}{}", self.out(), self.err());
            ready.then_some(())
        });
    }

    /// Whether the program has ended, be it unreaped.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .map_or(true, |stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
    }

    /// Host pid of the supervisor.
    #[must_use]
    pub fn supervisor(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or_default()
    }

    /// Host pid of the container's PID 1.
    ///
    /// # Panics
    /// When the container has not published its state.
    #[must_use]
    #[track_caller]
    pub fn leader(&self) -> i32 {
        let state = wait_for("the state", || self.state());
        i32::try_from(state["leader"]["pid"].as_i64().unwrap_or_default()).unwrap_or_default()
    }

    /// Sends a signal to the supervisor.
    ///
    /// # Panics
    /// When it is gone.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.supervisor()), signal).expect("the supervisor is there");
    }

    /// What the console has printed so far.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// What nixrun has said so far.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// Waits for the program's end.
    ///
    /// # Panics
    /// When it takes too long.
    #[track_caller]
    pub fn wait(mut self) -> Finished {
        let status =
            wait_for(&format!("the end of {}", self.name), || self.child.try_wait().expect("our child"));
        self.ended = true;
        Finished { code: status.code(), out: self.out(), err: self.err() }
    }

    /// SIGTERM to the supervisor, and its end.
    ///
    /// # Panics
    /// When it takes too long.
    #[track_caller]
    pub fn stop(self) -> Finished {
        self.signal(Signal::SIGTERM);
        self.wait()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if std::thread::panicking() {
            eprintln!("{} printed: {}{}", self.name, self.out(), self.err());
        }
        self.host.end_processes();
        let _ = self.child.wait();
    }
}
