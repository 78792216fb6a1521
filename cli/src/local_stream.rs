//! A connection to a service of this host on which nothing waits without end: not past a deadline, and hardly any
//! longer once somebody else calls it off.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// How long an answer that is on its way is still waited for after a call-off: what it says must be undone, and a
/// service that is alive needs a few milliseconds.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often to try to reach a service whose queue of connections is full.
const RETRY: Duration = Duration::from_millis(10);

/// Calls off what a [`LocalStream`] waits for, from any thread.
#[derive(Debug, Clone)]
pub struct CallOff(Arc<EventFd>);

impl CallOff {
    /// Nothing is called off yet.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn new() -> io::Result<CallOff> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(CallOff(Arc::new(event)))
    }

    /// Ends the waiting.
    pub fn now(&self) {
        // Fails only when the counter would overflow.
        let _ = self.0.write(1);
    }

    /// Whether it was ended.
    #[must_use]
    pub fn is_called_off(&self) -> bool {
        ready(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO)
            .is_ok_and(|ready| ready)
    }
}

/// A connected stream socket.
#[derive(Debug)]
pub struct LocalStream {
    socket: OwnedFd,
    deadline: Instant,
    call_off: Option<CallOff>,
}

impl LocalStream {
    /// Connects to the socket at `path`. Until [`LocalStream::set_deadline`] nothing waits past `deadline`.
    ///
    /// # Errors
    /// When nobody listens there, or did not in time.
    pub fn connect(path: &Path, deadline: Instant, call_off: Option<CallOff>) -> io::Result<LocalStream> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let address = UnixAddr::new(path)?;
        let stream = LocalStream { socket, deadline, call_off };
        loop {
            match connect(stream.socket.as_raw_fd(), &address) {
                Ok(()) => return Ok(stream),
                // There is nothing to poll for: a full queue makes itself known by this error alone.
                Err(Errno::EAGAIN) => {
                    let left = stream.left()?;
                    if !stream.pause(left.min(RETRY))? {
                        return Err(called_off());
                    }
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Until when everything from now on has to be done.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Waits for as long as it takes until something can be read; `false` when that is called off.
    ///
    /// # Errors
    /// When poll(2) fails.
    pub fn wait_for_more(&self, call_off: &CallOff) -> io::Result<bool> {
        loop {
            let mut fds = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(call_off.0.as_fd(), PollFlags::POLLIN),
            ];
            if ready(&mut fds, PollTimeout::NONE)? {
                return Ok(!is_set(&fds[1]));
            }
        }
    }

    /// Reads exactly as much as fits.
    ///
    /// # Errors
    /// At the end of the stream, and when it takes too long.
    pub fn read_exact(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            let read = self.read(buffer)?;
            buffer = &mut buffer[read..];
        }
        Ok(())
    }

    /// Reads what is there, at least one byte.
    ///
    /// # Errors
    /// As of [`LocalStream::read_exact`].
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match nix::unistd::read(&self.socket, buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => return Ok(read),
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLIN)?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// When the other end is gone, and when it takes too long.
    pub fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        // Rust programs ignore SIGPIPE unless they undo that; an embedding program may have.
        let flags = nix::sys::socket::MsgFlags::MSG_NOSIGNAL;
        while !bytes.is_empty() {
            match nix::sys::socket::send(self.socket.as_raw_fd(), bytes, flags) {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLOUT)?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn left(&self) -> io::Result<Duration> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
            left => Ok(left),
        }
    }

    /// Waits until the socket is ready, or until there is no time left.
    fn wait(&mut self, flags: PollFlags) -> io::Result<()> {
        let left = self.left()?;
        let mut fds = vec![PollFd::new(self.socket.as_fd(), flags)];
        fds.extend(self.call_off.iter().map(|call_off| PollFd::new(call_off.0.as_fd(), PollFlags::POLLIN)));
        ready(&mut fds, timeout(left))?;
        if fds.get(1).is_some_and(is_set) {
            self.call_off = None;
            self.deadline = self.deadline.min(Instant::now() + LAST_WORDS);
        }
        Ok(())
    }

    /// Lets time go by; `false` when it was called off.
    fn pause(&self, time: Duration) -> io::Result<bool> {
        let Some(call_off) = &self.call_off else {
            std::thread::sleep(time);
            return Ok(true);
        };
        let called_off = ready(&mut [PollFd::new(call_off.0.as_fd(), PollFlags::POLLIN)], timeout(time))?;
        Ok(!called_off)
    }
}

fn called_off() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "the container ended meanwhile")
}

fn timeout(time: Duration) -> PollTimeout {
    // Rounded up: a poll that ends a fraction of a millisecond early would be repeated without waiting.
    PollTimeout::try_from(time + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
}

fn is_set(fd: &PollFd<'_>) -> bool {
    fd.revents().is_some_and(|events| !events.is_empty())
}

/// Whether anything happened in time.
fn ready(fds: &mut [PollFd<'_>], timeout: PollTimeout) -> io::Result<bool> {
    match poll(fds, timeout) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A service that accepts nobody.
    fn deaf() -> (tempfile::TempDir, UnixListener, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        (dir, listener, path)
    }

    #[test]
    fn a_read_ends_at_the_deadline() {
        let (_dir, _listener, path) = deaf();
        let deadline = Instant::now() + Duration::from_millis(50);
        let mut stream = LocalStream::connect(&path, deadline, None).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_call_off_leaves_only_the_time_for_last_words() {
        let (_dir, _listener, path) = deaf();
        let call_off = CallOff::new().unwrap();
        let mut stream = LocalStream::connect(&path, Instant::now() + LONG, Some(call_off.clone())).unwrap();
        call_off.now();
        assert!(!stream.wait_for_more(&call_off).unwrap());
        let begun = Instant::now();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < LONG);
        assert!(call_off.is_called_off());
    }

    #[test]
    fn a_service_whose_queue_is_full_holds_nobody_up() {
        let (_dir, listener, path) = deaf();
        // SOMAXCONN of std is at most a few thousand; a queue of none is full with the first.
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let deadline = Instant::now() + Duration::from_millis(100);
        let queued: Vec<_> = (0..4).map(|_| LocalStream::connect(&path, deadline, None)).collect();
        let refused = queued.iter().filter_map(|tried| tried.as_ref().err()).count();
        assert!(refused > 0, "{queued:?}");
        let call_off = CallOff::new().unwrap();
        call_off.now();
        let tried = LocalStream::connect(&path, Instant::now() + LONG, Some(call_off));
        assert_eq!(tried.unwrap_err().kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn more_than_a_socket_holds_is_written_as_it_is_read() {
        let (_dir, listener, path) = deaf();
        let mut stream = LocalStream::connect(&path, Instant::now() + LONG, None).unwrap();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut listener.accept().unwrap().0, &mut bytes).unwrap();
            bytes.len()
        });
        stream.write_all(&vec![7; 1 << 20]).unwrap();
        drop(stream);
        assert_eq!(reader.join().unwrap(), 1 << 20);
    }
}
