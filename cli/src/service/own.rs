//! A supervisor of our own: `nixrun boot` in a session of its own, with a log, which `start` waits for.
//!
//! ```text
//! /run/nixrun/.start/NAME       held by the `start` that is at it; another one waits
//!                   /start-PID  its readiness socket
//! ```

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runtime::sys::process::{pidfd_open, pidfd_send_signal};
use runtime::{Console, HostPaths, instance};

use super::policy::Restart;
use super::{START_TIME, StartRequest, Started, is_alive, keeper};
use crate::held::{self, Held};
use crate::ops::{self, BootOptions, Error, Planned, Result};
use crate::settings::Settings;

const DIRECTORY: &str = "/run/nixrun/.start";
/// How often to look at what tells nobody when it changes.
const LOOK: Duration = Duration::from_millis(50);
/// How often to try to bind the notify socket while other starts come and go.
const BIND_TRIES: u32 = 100;
/// A log longer than this, in bytes, makes way at the next start: one older one is kept.
const LONGEST_LOG: u64 = 16 << 20;
/// How much of the end of a log is searched for its last line, in bytes.
const LOG_END: u64 = 64 * 1024;

pub(super) fn start(request: &StartRequest<'_>, paths: &HostPaths) -> Result<Started> {
    let name = request.name;
    let settings = Settings::read(name, paths)?;
    let configured = settings.document.start_timeout.map(|seconds| Duration::from_secs(seconds.into()));
    let timeout = request.timeout.or(configured).unwrap_or(START_TIME);
    let waiting = Waiting { name, timeout, deadline: Instant::now() + timeout, interrupt: request.interrupt };
    let _turn = waiting.turn(paths)?;
    if is_alive(name, paths) {
        waiting.for_another(paths)?;
        return Ok(Started::Already);
    }
    // It is about to be started by its policy, of another time.
    if let Some(keeper) = keeper::find(name, paths) {
        ops::end_keeper(&keeper, name)?;
    }
    // Whatever is wrong with the configuration is said here, not in a log.
    let options = BootOptions { nat: request.nat.clone(), console: None };
    let boot = ops::boot_request(name, &options, Console::ReadOnly, paths)?;
    Planned::new(&boot, paths)?;
    let policy = settings.document.restart.map_or(Restart::No, |word| word.0);
    let socket = Socket::bind(paths)?;
    let log = paths.join("/var/log/nixrun").join(format!("{name}.log"));
    let mut child = background(request, policy, timeout, paths, &socket.path, &log)?;
    waiting.for_ready(&mut child, policy, &socket, &log, paths)?;
    Ok(Started::Own(log))
}

/// The readiness socket of a start.
struct Socket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Socket {
    fn bind(paths: &HostPaths) -> Result<Socket> {
        let directory = paths.join(DIRECTORY);
        // More than one thread may start containers.
        let path = directory.join(format!("start-{}", nix::unistd::gettid()));
        let failed =
            |error| Error::Other(format!("cannot bind a notify socket at {}: {error}", path.display()));
        let socket = bind(&path, &directory).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(Socket { socket, path })
    }

    fn is_ready(&self) -> bool {
        let mut buffer = [0; 4096];
        let message = self.socket.recv(&mut buffer).ok().and_then(|length| buffer.get(..length));
        message.unwrap_or_default().split(|b| *b == b'\n').any(|line| line == b"READY=1")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        // With the container that could not start the directory of all of them is ours to remove, if it was the last.
        for parent in self.path.ancestors().skip(1).take(2) {
            let _ = fs::remove_dir(parent);
        }
    }
}

fn bind(path: &Path, directory: &Path) -> io::Result<UnixDatagram> {
    // Of a start that was killed, when our id has come round again.
    let _ = fs::remove_file(path);
    for _ in 0..BIND_TRIES {
        // NotFound: the last of other starts removes the directory, here between two of our steps.
        match fs::create_dir_all(directory).and_then(|()| UnixDatagram::bind(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    UnixDatagram::bind(path)
}

fn background(
    request: &StartRequest<'_>,
    policy: Restart,
    timeout: Duration,
    paths: &HostPaths,
    socket: &Path,
    log: &Path,
) -> Result<Child> {
    let failed = |error| Error::Other(format!("cannot write the log {}: {error}", log.display()));
    log.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
    // What a console shows is not for everybody.
    if fs::metadata(log).is_ok_and(|found| found.len() > LONGEST_LOG) {
        fs::rename(log, log.with_extension("log.1")).map_err(failed)?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o640).open(log).map_err(failed)?;
    let copy = file.try_clone().map_err(failed)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("boot").arg("--host-root").arg(paths.root()).arg("--background");
    command.args(request.nat.iter().flat_map(|nat| ["--nat".to_owned(), nat.to_string()]));
    if policy != Restart::No {
        let timeout = format!("--keep-timeout={}", timeout.as_secs());
        command.arg(format!("--keep={}", keeper::word(policy))).arg(timeout);
    }
    command
        .arg("--")
        .arg(request.name)
        .env("NOTIFY_SOCKET", socket)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy)
        .spawn()
        .map_err(|error| Error::Other(format!("cannot start nixrun in the background: {error}")))
}

/// Why a wait has no result.
enum Over {
    Late,
    Interrupted,
}

/// What waits for a container, and until when.
struct Waiting<'a> {
    name: &'a str,
    timeout: Duration,
    deadline: Instant,
    interrupt: Option<BorrowedFd<'a>>,
}

impl Waiting<'_> {
    /// Our turn to start it: after another start, and after a stop that is on its way.
    fn turn(&self, paths: &HostPaths) -> Result<Held> {
        let path = paths.join(DIRECTORY).join(self.name);
        loop {
            let stopping = ops::stop_in_progress(self.name, paths);
            if stopping.is_none() {
                let held = Held::take(&path, 2).map_err(|error| {
                    Error::Other(format!(
                        "cannot start container {}: cannot lock {}: {error}",
                        self.name,
                        path.display()
                    ))
                })?;
                if let Some(mut held) = held {
                    let _ = held.say(&std::process::id().to_string());
                    return Ok(held);
                }
            }
            if let Err(over) = self.pause(&[], LOOK) {
                let holder = match stopping {
                    Some(pid) => format!("process {pid} (nixrun stop) still stops it"),
                    None => format!(
                        "process {} (nixrun start) still starts it",
                        held::holder(&path).unwrap_or_default()
                    ),
                };
                return Err(self.failed(&over, &holder));
            }
        }
    }

    /// Until a container that somebody else has begun is ready.
    fn for_another(&self, paths: &HostPaths) -> Result<()> {
        loop {
            let Some(found) = instance::find(paths, self.name).filter(|found| found.alive) else {
                return Err(Error::Other(format!(
                    "container {} ended before it was ready; somebody else had started it",
                    self.name
                )));
            };
            if found.state.is_some_and(|state| state.ready) {
                return Ok(());
            }
            if let Err(over) = self.pause(&[], LOOK) {
                return Err(self.failed(&over, "it was started by somebody else and is left alone"));
            }
        }
    }

    fn failed(&self, over: &Over, detail: &str) -> Error {
        Error::Other(match over {
            Over::Late => {
                format!("container {} is not ready after {} s; {detail}", self.name, self.timeout.as_secs())
            }
            Over::Interrupted => {
                format!("the start of container {} was interrupted; {detail}", self.name)
            }
        })
    }

    /// Waits for one of the descriptors, `time` at most.
    fn pause(&self, fds: &[BorrowedFd<'_>], time: Duration) -> std::result::Result<(), Over> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Over::Late);
        }
        let all = self.interrupt.iter().chain(fds);
        let mut polled: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        let time =
            PollTimeout::try_from(left.min(time) + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut polled, time);
        let interrupted = self.interrupt.is_some()
            && polled.first().and_then(PollFd::revents).is_some_and(|events| !events.is_empty());
        if interrupted { Err(Over::Interrupted) } else { Ok(()) }
    }

    fn for_ready(
        &self,
        child: &mut Child,
        policy: Restart,
        socket: &Socket,
        log: &Path,
        paths: &HostPaths,
    ) -> Result<()> {
        let failed =
            |error: io::Error| Error::Other(format!("cannot wait for container {}: {error}", self.name));
        let pidfd = pidfd_open(child.id().cast_signed()).map_err(|error| failed(error.into()))?;
        loop {
            // What else comes, even without end, does not put the deadline off.
            if socket.is_ready() {
                return Ok(());
            }
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Err(Error::Other(format!(
                    "container {} ended before it was ready ({status}): {}",
                    self.name,
                    last_line(log)
                )));
            }
            if let Err(over) = self.pause(&[socket.socket.as_fd(), pidfd.as_fd()], Duration::from_secs(60)) {
                // A stop first would wait for a shutdown that may not come: its end is what was asked for.
                let end = if policy == Restart::No { libc::SIGKILL } else { keeper::END };
                let _ = pidfd_send_signal(pidfd.as_fd(), end);
                let _ = child.wait();
                let left = match ops::reclaim(Some(self.name), paths) {
                    Ok(_) => String::new(),
                    Err(error) => format!("; cleaning up failed: {error}"),
                };
                return Err(Error::Other(match over {
                    Over::Interrupted => {
                        format!(
                            "the start of container {} was interrupted, and it was ended{left}",
                            self.name
                        )
                    }
                    Over::Late => format!(
                        "container {} was not ready within {} s and was ended; its log {} ends with: {}{left}",
                        self.name,
                        self.timeout.as_secs(),
                        log.display(),
                        last_line(log)
                    ),
                }));
            }
        }
    }
}

fn last_line(log: &Path) -> String {
    let mut bytes = Vec::new();
    let _ = fs::File::open(log).and_then(|mut file| {
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_END)))?;
        file.read_to_end(&mut bytes)
    });
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("its log is empty");
    // The container wrote it: no escape sequence of its goes to the administrator's terminal.
    line.strip_prefix("nixrun: ").unwrap_or(line).replace(char::is_control, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_any_log_is_text() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(last_line(&log), "its log is empty");
        fs::write(&log, b"\xff\xfe\nnixrun: it \x1b[31mfailed\x07\r\n \n").unwrap();
        assert_eq!(last_line(&log), "it [31mfailed");
    }

    #[test]
    fn a_socket_of_a_killed_start_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let (directory, path) = (dir.path().join("a/.start"), dir.path().join("a/.start/start-1"));
        drop(bind(&path, &directory).unwrap());
        assert!(path.exists());
        bind(&path, &directory).unwrap();
    }
}
