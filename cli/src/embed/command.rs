//! Commands inside a container.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use runtime::HostPaths;
use runtime::exec::Streams;
use runtime::supervisor::Attached;
use runtime::sys::process::Ended;

use crate::ops::{self, Error, ExecRequest, Result};

/// A command to be run inside a container, in all its namespaces and its control group, with what its PID 1 may do. It
/// dies with the thread that runs it.
#[derive(Debug)]
pub struct Command<'c> {
    request: ExecRequest,
    paths: &'c HostPaths,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: Ended,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl<'c> Command<'c> {
    pub(super) fn new(name: &str, paths: &'c HostPaths, argv: Vec<OsString>) -> Command<'c> {
        let name = name.to_owned();
        let request = ExecRequest { name, argv, env: Vec::new(), cwd: None, terminal: false, streams: None };
        Command { request, paths }
    }

    /// Sets a variable, beside those that every command has.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Command<'c> {
        self.request.env.push((key.into(), value.into()));
        self
    }

    /// Its working directory inside; `/` unless given.
    #[must_use]
    pub fn cwd(mut self, directory: impl Into<PathBuf>) -> Command<'c> {
        self.request.cwd = Some(directory.into());
        self
    }

    /// Runs it to its end with these standard streams.
    ///
    /// # Errors
    /// When the container does not run or the command cannot be executed.
    pub fn run(mut self, streams: Streams) -> Result<Ended> {
        self.request.streams = Some(streams);
        let attached = Attached { signals: None, output: None, input: None, grace: Duration::MAX };
        ops::exec(&self.request, &attached, self.paths)
    }

    /// Runs it to its end without input and returns what it wrote. What it leaves in the background holds this up until
    /// it, too, has ended or closed what it has as standard output and error.
    ///
    /// # Errors
    /// As [`Command::run`].
    pub fn output(self) -> Result<Output> {
        let failed = |error: io::Error| Error::Other(format!("cannot make pipes for a command: {error}"));
        let input = File::open("/dev/null").map_err(failed)?;
        let (stdout, to_stdout) = io::pipe().map_err(failed)?;
        let (stderr, to_stderr) = io::pipe().map_err(failed)?;
        let streams = Streams::new(input.as_fd(), to_stdout.as_fd(), to_stderr.as_fd())?;
        // Their copies are all that is left, and go with the command's request.
        drop((to_stdout, to_stderr));
        thread::scope(|scope| {
            let stdout = scope.spawn(move || read(stdout));
            let stderr = scope.spawn(move || read(stderr));
            let status = self.run(streams);
            let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
            Ok(Output { status: status?, stdout, stderr })
        })
    }
}

fn read(mut from: PipeReader) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    bytes
}
