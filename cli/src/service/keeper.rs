//! The keeper of a container with a restart policy: a process beside its supervisor that does nothing but wait for that
//! one's end, which may be a SIGKILL, and starts another one. It becomes responsible once the container was ready for the
//! first time; until then the `start` that waits is.
//!
//! ```text
//! /run/nixrun/.keepers/NAME         held by the keeper, with its process id
//!                     /NAME.notify  where its supervisor says READY=1
//!
//! SIGTERM (`stop`)   passed on; with the supervisor's end the keeper ends, too
//! SIGQUIT (`kill`)   the supervisor is killed, and with it the container
//! ```
//! A supervisor that was asked to stop by somebody else tells so by its exit code ([`exit::ASKED`]).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use runtime::HostPaths;
use runtime::instance::ProcessId;
use runtime::supervisor::HostNotify;
use runtime::sys::process::{pidfd_open, pidfd_send_signal};

use super::policy::{Backoff, Ended, LIMIT, LIMIT_INTERVAL, Restart, wants};
use crate::events::{self, Kind};
use crate::exit;
use crate::held::{self, Held};
use crate::ops::{self, Error, Result};
use crate::output::Output;

/// The signal that has a keeper end its container at once.
pub const END: i32 = libc::SIGQUIT;

const DIRECTORY: &str = "/run/nixrun/.keepers";

/// What a keeper keeps.
#[derive(Debug)]
pub struct Kept<'a> {
    /// The container.
    pub name: &'a str,
    /// When it is started again.
    pub policy: Restart,
    /// How long a later start may take until it is ready.
    pub start_timeout: Duration,
    /// The signals of this process: SIGTERM, SIGINT, SIGHUP and SIGQUIT, blocked.
    pub signals: &'a SignalFd,
    /// The start that waits for the first readiness.
    pub starter: Option<HostNotify>,
}

/// The word of a policy on the command line and in NAME.json.
#[must_use]
pub fn word(policy: Restart) -> &'static str {
    match policy {
        Restart::No => "no",
        Restart::OnFailure => "on-failure",
        Restart::Always => "always",
    }
}

/// The keeper of a container, if it has one that lives.
#[must_use]
pub fn find(name: &str, paths: &HostPaths) -> Option<ProcessId> {
    serde_json::from_str(&held::holder(&paths.join(DIRECTORY).join(name))?).ok()
}

/// Removes what a killed keeper left; a living one's files stay.
pub(crate) fn tidy(name: &str, paths: &HostPaths) {
    let path = paths.join(DIRECTORY).join(name);
    if path.exists()
        && let Ok(Some(held)) = Held::take(&path, 2)
    {
        let _ = std::fs::remove_file(notify_path(&path));
        drop(held);
    }
}

fn notify_path(held: &Path) -> PathBuf {
    let mut path = held.as_os_str().to_owned();
    path.push(".notify");
    path.into()
}

/// Keeps a container until nobody wants it any more: each run is one of `supervisor`'s, whose output goes where ours goes.
/// Returns the exit code.
///
/// # Errors
/// When it is kept already, or processes cannot be started.
pub fn keep(
    kept: &Kept<'_>,
    supervisor: &dyn Fn() -> Command,
    paths: &HostPaths,
    out: &Output,
) -> Result<u8> {
    let name = kept.name;
    let path = paths.join(DIRECTORY).join(name);
    let failed = |error: io::Error| Error::Other(format!("cannot keep container {name}: {error}"));
    let Some(mut held) = Held::take(&path, 2).map_err(failed)? else {
        return Err(Error::Other(format!("container {name} has a keeper already")));
    };
    let us = ProcessId::of(std::process::id().cast_signed());
    held.say(&serde_json::to_string(&us).unwrap_or_default()).map_err(failed)?;
    let socket = Socket::bind(notify_path(&path)).map_err(failed)?;
    let mut backoff = Backoff::new(Instant::now());
    let mut armed = false;
    let mut deadline = None;
    loop {
        let child = supervisor().env("NOTIFY_SOCKET", &socket.path).spawn().map_err(failed)?;
        let mut run = Run { child, kept, socket: &socket, asked: false, armed, deadline };
        let status = run.watch(out).map_err(failed)?;
        armed = run.armed;
        let asked = run.asked || status.code() == Some(exit::ASKED.into());
        if status.code().is_none()
            && let Err(error) = ops::reclaim(Some(name), paths)
        {
            out.warning(error);
        }
        let ended = if status.success() { Ended::Well } else { Ended::Badly };
        let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::FAILURE);
        if asked {
            return Ok(exit::SUCCESS);
        }
        if !armed || !wants(kept.policy, ended) {
            return Ok(code);
        }
        let Some(pause) = backoff.next(Instant::now()) else {
            let limit = LIMIT_INTERVAL.as_secs();
            out.error(format_args!(
                "Container {name} was started {LIMIT} times within {limit} s and is not started again."
            ));
            return Ok(exit::FAILURE);
        };
        let how = describe(status);
        out.note(format_args!("Container {name} ended ({how}); it is started again in {pause:?}."));
        if asked_within(kept.signals, pause).map_err(failed)? {
            return Ok(exit::SUCCESS);
        }
        events::tell(paths, name, Kind::Restarted, Some(&how));
        deadline = Some(Instant::now() + kept.start_timeout);
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("its nixrun was killed by {}", crate::signals::name(signal)),
        (None, None) => "it is gone".to_owned(),
    }
}

/// Where the supervisor says that the container is ready.
struct Socket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Socket {
    fn bind(path: PathBuf) -> io::Result<Socket> {
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        Ok(Socket { socket, path })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One run of the supervisor.
struct Run<'a> {
    child: Child,
    kept: &'a Kept<'a>,
    socket: &'a Socket,
    /// Whether somebody asked for its end.
    asked: bool,
    /// Whether the container was ready once, in this run or an earlier one.
    armed: bool,
    /// When it has to be ready.
    deadline: Option<Instant>,
}

impl Run<'_> {
    fn watch(&mut self, out: &Output) -> io::Result<ExitStatus> {
        // Ours until it is waited for: the id cannot be another's.
        let pidfd = pidfd_open(self.child.id().cast_signed())?;
        loop {
            let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            let mut fds = [
                PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.kept.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.socket.socket.as_fd(), PollFlags::POLLIN),
            ];
            let _ = poll(&mut fds, timeout);
            self.hear();
            while let Some(signal) = next_signal(self.kept.signals)? {
                self.asked = true;
                let passed_on = if signal == END { libc::SIGKILL } else { libc::SIGTERM };
                self.send(&pidfd, passed_on)?;
            }
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let limit = self.kept.start_timeout.as_secs();
                out.error(format_args!("Container {} was not ready within {limit} s.", self.kept.name));
                self.deadline = None;
                self.send(&pidfd, libc::SIGKILL)?;
            }
        }
    }

    fn send(&self, pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
        match pidfd_send_signal(pidfd.as_fd(), signal) {
            Err(error) if error.errno() == nix::errno::Errno::ESRCH => Ok(()),
            result => result.map_err(io::Error::from),
        }
    }

    fn hear(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.socket.recv(&mut buffer) {
            let message = buffer.get(..length).unwrap_or_default();
            if !message.split(|b| *b == b'\n').any(|line| line == b"READY=1") {
                continue;
            }
            self.deadline = None;
            if !self.armed {
                self.armed = true;
                self.kept.starter.iter().for_each(|starter| starter.send("READY=1"));
            }
        }
    }
}

fn next_signal(signals: &SignalFd) -> io::Result<Option<i32>> {
    Ok(signals.read_signal()?.map(|info| info.ssi_signo.cast_signed()))
}

/// Lets time go by; whether somebody wants no further start.
fn asked_within(signals: &SignalFd, time: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + time;
    loop {
        if next_signal(signals)?.is_some() {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], timeout);
    }
}
