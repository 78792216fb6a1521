//! The console's pty: output to the caller, input from it when it is interactive.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::sys::termios::{self, SetArg, Termios};

use super::Attached;
use crate::error::{Doing, Error};
use crate::sys::pty;

/// As much as a pipe takes without blocking once poll says that it is writable (PIPE_BUF).
const CHUNK: usize = 4096;
/// `^]` three times within a second ends an interactive session, as in nspawn.
const ESCAPE: u8 = 0x1d;
const ESCAPE_TIME: Duration = Duration::from_secs(1);
/// How long the last output may take: a terminal that nobody reads must not keep a dead container's network, control
/// group and lock.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Moves bytes between the console's master and the caller.
#[derive(Debug)]
pub(super) struct Forward<'a> {
    master: Option<BorrowedFd<'a>>,
    /// Kept open: while no process has the terminal open, its master would report a hang-up without end.
    _terminal: Option<OwnedFd>,
    output: Option<Output<'a>>,
    input: Option<BorrowedFd<'a>>,
    to_output: Vec<u8>,
    to_master: Vec<u8>,
    raw: Option<RawMode<'a>>,
    escapes: VecDeque<Instant>,
}

impl<'a> Forward<'a> {
    pub(super) fn new(
        master: Option<&'a OwnedFd>,
        interactive: bool,
        attached: &Attached<'a>,
    ) -> Result<Forward<'a>, Error> {
        let doing = || "set the console up".to_owned();
        let terminal = master.map(|master| pty::peer(master.as_fd())).transpose().doing(doing)?;
        let input = attached.input.filter(|_| interactive && master.is_some());
        let forward = Forward {
            master: master.map(AsFd::as_fd),
            _terminal: terminal,
            output: attached.output.map(Output::new),
            input,
            to_output: Vec::new(),
            to_master: Vec::new(),
            raw: input.and_then(RawMode::enter),
            escapes: VecDeque::new(),
        };
        forward.resize();
        Ok(forward)
    }

    /// What to wait for. No more is read than could be written.
    pub(super) fn interest(&self) -> [Option<(BorrowedFd<'_>, PollFlags)>; 4] {
        let (read, write) = (PollFlags::POLLIN, PollFlags::POLLOUT);
        [
            self.master.filter(|_| self.to_output.is_empty()).map(|fd| (fd, read)),
            self.input.filter(|_| self.to_master.is_empty()).map(|fd| (fd, read)),
            self.output.as_ref().filter(|_| !self.to_output.is_empty()).map(|output| (output.as_fd(), write)),
            self.master.filter(|_| !self.to_master.is_empty()).map(|fd| (fd, write)),
        ]
    }

    /// Moves what is there. Reads come from descriptors that may block, so only where poll found something.
    pub(super) fn transfer(&mut self) {
        if let Some(master) = self.master {
            if self.to_output.is_empty() {
                self.to_output = read_ready(master).unwrap_or_default();
            }
            self.flush_output();
            if let Some(input) = self.input.filter(|_| self.to_master.is_empty()) {
                match read_ready(input) {
                    Some(bytes) if bytes.is_empty() => self.input = None,
                    Some(bytes) => {
                        self.note_escapes(&bytes);
                        self.to_master = bytes;
                    }
                    None => {}
                }
            }
            // Without the master there is nothing to type into: what it does not take is lost.
            let _ = flush(master, &mut self.to_master);
        }
    }

    /// An output that nobody reads any more is given up.
    fn flush_output(&mut self) {
        match self.output.as_ref().map(|output| flush(output.as_fd(), &mut self.to_output)) {
            Some(Ok(())) => {}
            Some(Err(_)) => self.output = None,
            None => self.to_output.clear(),
        }
    }

    /// Passes on what was written last, as far as it is taken within [`DRAIN_TIME`].
    pub(super) fn drain(&mut self) {
        let deadline = Instant::now() + DRAIN_TIME;
        while let Some(master) = self.master {
            self.flush_output();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            if let Some(output) = self.output.as_ref().filter(|_| !self.to_output.is_empty()) {
                wait(
                    output.as_fd(),
                    PollFlags::POLLOUT,
                    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
                );
                continue;
            }
            self.to_output = read_ready(master).unwrap_or_default();
            if self.to_output.is_empty() {
                return;
            }
        }
    }

    /// Gives the console the size of the caller's terminal, or where that is none the one that the environment claims:
    /// a terminal of no size at all confuses programs.
    pub(super) fn resize(&self) {
        let Some(master) = self.master else { return };
        if !self.output.as_ref().is_some_and(|output| pty::copy_window_size(output.as_fd(), master)) {
            let claimed = |name, default| {
                let value = std::env::var(name).ok().and_then(|text| text.parse().ok());
                value.filter(|size| *size > 0).unwrap_or(default)
            };
            pty::set_window_size(master, claimed("LINES", 24), claimed("COLUMNS", 80));
        }
    }

    /// Whether the user asked to leave.
    pub(super) fn escaped(&self) -> bool {
        self.escapes.len() >= 3
    }

    fn note_escapes(&mut self, bytes: &[u8]) {
        if self.raw.is_none() {
            return;
        }
        let now = Instant::now();
        for byte in bytes {
            if *byte == ESCAPE { self.escapes.push_back(now) } else { self.escapes.clear() }
        }
        while self.escapes.front().is_some_and(|first| now.duration_since(*first) > ESCAPE_TIME) {
            self.escapes.pop_front();
        }
    }
}

/// Reads once if something is there: `None` when nothing is, empty at the end of the file.
fn read_ready(fd: BorrowedFd<'_>) -> Option<Vec<u8>> {
    if !is_ready(fd, PollFlags::POLLIN) {
        return None;
    }
    let mut buffer = vec![0; CHUNK];
    let length = match nix::unistd::read(fd, &mut buffer) {
        Ok(length) => length,
        Err(Errno::EAGAIN | Errno::EINTR) => return None,
        Err(_) => 0,
    };
    buffer.truncate(length);
    Some(buffer)
}

/// Writes what can be written without blocking.
fn flush(fd: BorrowedFd<'_>, bytes: &mut Vec<u8>) -> nix::Result<()> {
    while !bytes.is_empty() && is_ready(fd, PollFlags::POLLOUT) {
        match nix::unistd::write(fd, bytes) {
            Ok(length) => drop(bytes.drain(..length)),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(()),
            Err(errno) => {
                bytes.clear();
                return Err(errno);
            }
        }
    }
    Ok(())
}

pub(super) fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    wait(fd, flags, PollTimeout::ZERO)
}

fn wait(fd: BorrowedFd<'_>, flags: PollFlags, timeout: PollTimeout) -> bool {
    poll(&mut [PollFd::new(fd, flags)], timeout).is_ok_and(|ready| ready > 0)
}

/// Where output goes. A terminal says that it is writable when it takes one byte, and a write of more would block
/// until somebody reads; so it is opened once more without blocking, which leaves the caller's descriptor as it is.
#[derive(Debug)]
struct Output<'a> {
    given: BorrowedFd<'a>,
    own: Option<OwnedFd>,
}

impl<'a> Output<'a> {
    fn new(given: BorrowedFd<'a>) -> Output<'a> {
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let path = format!("/proc/self/fd/{}", given.as_raw_fd());
        let terminal = nix::unistd::isatty(given).unwrap_or(false);
        let own = terminal.then(|| nix::fcntl::open(path.as_str(), flags, Mode::empty()).ok()).flatten();
        Output { given, own }
    }
}

impl AsFd for Output<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own.as_ref().map_or(self.given, AsFd::as_fd)
    }
}

/// The caller's terminal in raw mode, until dropped: the container's terminal does the echoing and line editing.
#[derive(Debug)]
pub(crate) struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawMode<'a> {
    /// `None` when it is no terminal.
    pub(crate) fn enter(terminal: BorrowedFd<'a>) -> Option<RawMode<'a>> {
        let before = termios::tcgetattr(terminal).ok()?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(terminal, SetArg::TCSANOW, &raw).ok()?;
        Some(RawMode { terminal, before })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn output_that_nobody_reads_does_not_hold_us_up() {
        let container = nix::pty::openpty(None, None).unwrap();
        let user = nix::pty::openpty(None, None).unwrap();
        let attached =
            Attached { signals: None, output: Some(user.slave.as_fd()), input: None, grace: Duration::ZERO };
        let mut forward = Forward::new(Some(&container.master), false, &attached).unwrap();
        nix::fcntl::fcntl(&container.slave, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut terminal = std::fs::File::from(container.slave);
        let begun = Instant::now();
        for _ in 0..64 {
            // What does not fit is of no interest here.
            let _ = terminal.write(&[b'x'; 3001]);
            forward.transfer();
        }
        assert!(begun.elapsed() < DRAIN_TIME);
        forward.drain();
        assert!(begun.elapsed() < DRAIN_TIME * 3);
    }
}
