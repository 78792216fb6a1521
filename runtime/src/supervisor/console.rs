//! The console's pty: output to the caller, input from it when it is interactive.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::termios::{self, SetArg, Termios};

use super::Attached;
use crate::error::{Doing, Error};
use crate::sys::pty;

/// As much as a pipe takes without blocking once poll says that it is writable (PIPE_BUF).
const CHUNK: usize = 4096;
/// `^]` three times within a second ends an interactive session, as in nspawn.
const ESCAPE: u8 = 0x1d;
const ESCAPE_TIME: Duration = Duration::from_secs(1);

/// Moves bytes between the console's master and the caller.
#[derive(Debug)]
pub(super) struct Forward<'a> {
    master: Option<BorrowedFd<'a>>,
    /// Kept open: while no process has the terminal open, its master would report a hang-up without end.
    _terminal: Option<OwnedFd>,
    output: Option<BorrowedFd<'a>>,
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
            output: attached.output,
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
            self.output.filter(|_| !self.to_output.is_empty()).map(|fd| (fd, write)),
            self.master.filter(|_| !self.to_master.is_empty()).map(|fd| (fd, write)),
        ]
    }

    /// Moves what is there. Reads come from descriptors that may block, so only where poll found something.
    pub(super) fn transfer(&mut self) {
        if let Some(master) = self.master {
            if self.to_output.is_empty() {
                self.to_output = read_ready(master).unwrap_or_default();
            }
            if let Some(output) = self.output {
                flush(output, &mut self.to_output, &mut self.output);
            } else {
                self.to_output.clear();
            }
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
            let mut open = Some(master);
            flush(master, &mut self.to_master, &mut open);
        }
    }

    /// Passes on what the container wrote last.
    pub(super) fn drain(&mut self) {
        while let Some(master) = self.master {
            if let Some(output) = self.output {
                let _ = write_all(output, &self.to_output);
            }
            self.to_output = match read_ready(master) {
                Some(bytes) if !bytes.is_empty() => bytes,
                _ => return,
            };
        }
    }

    /// Gives the console the size of the caller's terminal.
    pub(super) fn resize(&self) {
        if let (Some(master), Some(output)) = (self.master, self.output) {
            pty::copy_window_size(output, master);
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

/// Writes what can be written without blocking; a descriptor that nobody reads any more is given up.
fn flush<'a>(fd: BorrowedFd<'a>, bytes: &mut Vec<u8>, slot: &mut Option<BorrowedFd<'a>>) {
    while !bytes.is_empty() && is_ready(fd, PollFlags::POLLOUT) {
        match nix::unistd::write(fd, bytes) {
            Ok(length) => drop(bytes.drain(..length)),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return,
            Err(_) => {
                bytes.clear();
                *slot = None;
            }
        }
    }
}

/// Writes everything, however long it takes.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> nix::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(fd, bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let mut fds = [nix::poll::PollFd::new(fd, flags)];
    nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
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
