//! Just enough of HTTP/1.1 (RFC 9112) to be asked for measurements: one thread, a limited number of clients, each with a
//! limited request and a limited time. A connection is for one request.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How many clients may be connected; others wait in the kernel's queue.
const CLIENTS: usize = 32;
/// How long a client may take, from its connection to the last byte of its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest head of a request, in bytes.
const LONGEST_HEAD: usize = 8 * 1024;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// At an address and a port.
    Tcp(SocketAddr),
    /// At a socket's path.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Address, Self::Err> {
        if text.contains('/') {
            return Ok(Address::Unix(text.into()));
        }
        let wrong = "expected ADDRESS:PORT, such as 127.0.0.1:9750 or [::1]:9750, or the path of a socket with a / in it";
        text.parse().map(Address::Tcp).map_err(|_| wrong)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why it cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address is not to be had.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// The address.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// Something that is no socket, or one that is listened at, has the path.
    #[error("cannot listen at {}: {what} is there", path.display())]
    Taken {
        /// The path.
        path: PathBuf,
        /// What.
        what: &'static str,
    },
    /// Waiting for clients failed.
    #[error("cannot wait for clients: {0}")]
    Wait(Errno),
}

/// A socket that is listened at. The path of one goes when it is dropped.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    /// The path and inode of our socket.
    path: Option<(PathBuf, u64)>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Stream: Read + Write + AsFd {}
impl<T: Read + Write + AsFd> Stream for T {}

impl Listener {
    fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Box::new(stream)
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Box::new(stream)
            }
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Server {
    /// Listens. A socket at the path at which nobody listens any more is replaced.
    ///
    /// # Errors
    /// [`ServerError::Listen`], [`ServerError::Taken`].
    pub fn listen(address: &Address) -> Result<Server, ServerError> {
        let failed = |source| ServerError::Listen { address: address.clone(), source };
        match address {
            Address::Tcp(at) => {
                let listener = TcpListener::bind(at).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                Ok(Server { listener: Listener::Tcp(listener), path: None })
            }
            Address::Unix(path) => {
                make_way(path)?;
                let listener = UnixListener::bind(path).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                let inode = fs::symlink_metadata(path).map_err(failed)?.ino();
                Ok(Server { listener: Listener::Unix(listener), path: Some((path.clone(), inode)) })
            }
        }
    }

    /// The address that the kernel has given, where a port of 0 asked for any.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        match (&self.listener, &self.path) {
            (Listener::Tcp(listener), _) => listener.local_addr().ok().map(Address::Tcp),
            (Listener::Unix(_), path) => path.as_ref().map(|(path, _)| Address::Unix(path.clone())),
        }
    }

    /// Answers until `stop` can be read from. `measure` makes the text for each request, or says in a sentence why not.
    ///
    /// # Errors
    /// [`ServerError::Wait`].
    pub fn serve(
        &self,
        stop: BorrowedFd<'_>,
        mut measure: impl FnMut() -> Result<String, String>,
    ) -> Result<(), ServerError> {
        let mut clients: Vec<Client> = Vec::new();
        loop {
            let mut fds = vec![PollFd::new(stop, PollFlags::POLLIN)];
            fds.extend(clients.iter().map(|client| PollFd::new(client.stream.as_fd(), client.interest())));
            if clients.len() < CLIENTS {
                fds.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, timeout(&clients)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(ServerError::Wait(errno)),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            drop(fds);
            if ready[0] {
                return Ok(());
            }
            let new = ready.get(1 + clients.len()) == Some(&true);
            let mut ready = ready.into_iter().skip(1);
            clients.retain_mut(|client| {
                let done = ready.next() == Some(true) && client.go_on(&mut measure);
                !done && Instant::now() < client.deadline
            });
            if new && let Ok(stream) = self.listener.accept() {
                clients.push(Client::new(stream));
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((path, inode)) = &self.path
            && fs::symlink_metadata(path).is_ok_and(|found| found.ino() == *inode)
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes a socket that a killed one has left.
fn make_way(path: &Path) -> Result<(), ServerError> {
    let taken = |what| Err(ServerError::Taken { path: path.to_path_buf(), what });
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(found) if !found.file_type().is_socket() => taken("something that is no socket"),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                let _ = fs::remove_file(path);
                Ok(())
            }
            _ => taken("a socket that somebody listens at"),
        },
    }
}

/// Until the first client has had its time.
fn timeout(clients: &[Client]) -> PollTimeout {
    let Some(first) = clients.iter().map(|client| client.deadline).min() else { return PollTimeout::NONE };
    let left = first.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

struct Client {
    stream: Box<dyn Stream>,
    /// The head of its request, as far as it has come; then what is still to be sent.
    buffer: Vec<u8>,
    answering: bool,
    deadline: Instant,
}

impl Client {
    fn new(stream: Box<dyn Stream>) -> Client {
        Client { stream, buffer: Vec::new(), answering: false, deadline: Instant::now() + PATIENCE }
    }

    fn interest(&self) -> PollFlags {
        if self.answering { PollFlags::POLLOUT } else { PollFlags::POLLIN }
    }

    /// Reads or writes what can be; returns whether that was all.
    fn go_on(&mut self, measure: &mut impl FnMut() -> Result<String, String>) -> bool {
        if self.answering { self.write() } else { self.read(measure) }
    }

    fn read(&mut self, measure: &mut impl FnMut() -> Result<String, String>) -> bool {
        let mut chunk = [0; 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => return true,
            Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
            Err(error) => return !again(&error),
        }
        if let Some(answer) = answer(&self.buffer, measure) {
            self.buffer = answer;
            self.answering = true;
            return self.write();
        }
        false
    }

    fn write(&mut self) -> bool {
        while !self.buffer.is_empty() {
            match self.stream.write(&self.buffer) {
                Ok(length) => drop(self.buffer.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return !again(&error),
            }
        }
        true
    }
}

fn again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The answer to a request, once its head is whole or too long.
fn answer(head: &[u8], measure: &mut impl FnMut() -> Result<String, String>) -> Option<Vec<u8>> {
    const OURS: &str = "text/plain; version=0.0.4; charset=utf-8";
    const PLAIN: &str = "text/plain; charset=utf-8";
    let whole = head.windows(4).any(|four| four == b"\r\n\r\n") || head.windows(2).any(|two| two == b"\n\n");
    if !whole {
        let too_long = head.len() > LONGEST_HEAD;
        return too_long.then(|| response("431 Request Header Fields Too Large", PLAIN, "too long\n", true));
    }
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).unwrap_or_default().trim_end_matches('\r');
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = words[..] else {
        return Some(response("400 Bad Request", PLAIN, "no request of HTTP/1\n", true));
    };
    if !version.starts_with("HTTP/1.") {
        return Some(response("400 Bad Request", PLAIN, "no request of HTTP/1\n", true));
    }
    let with_body = match method {
        "GET" => true,
        "HEAD" => false,
        _ => return Some(response("405 Method Not Allowed\r\nAllow: GET, HEAD", PLAIN, "GET it\n", true)),
    };
    if target.split('?').next() != Some("/metrics") {
        return Some(response("404 Not Found", PLAIN, "there is /metrics\n", with_body));
    }
    Some(match measure() {
        Ok(text) => response("200 OK", OURS, &text, with_body),
        Err(sentence) => response("500 Internal Server Error", PLAIN, &format!("{sentence}\n"), with_body),
    })
}

fn response(status: &str, kind: &str, body: &str, with_body: bool) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let body = if with_body { body } else { "" };
    (head + body).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(request: &str) -> Option<String> {
        let bytes = answer(request.as_bytes(), &mut || Ok("x 1\n".to_owned()))?;
        Some(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_request_is_answered_once_it_is_whole() {
        assert_eq!(ask("GET /metrics HTTP/1.1\r\nHost: a\r\n"), None);
        let answer = ask("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{answer}");
        assert!(
            answer.contains("\r\nContent-Length: 4\r\n") && answer.ends_with("\r\n\r\nx 1\n"),
            "{answer}"
        );
        let head = ask("HEAD /metrics HTTP/1.0\r\n\r\n").unwrap();
        assert!(head.contains("Content-Length: 4\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[test]
    fn everything_else_is_refused_with_its_status() {
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 404),
            ("GET /metrics2 HTTP/1.1\r\n\r\n", 404),
            ("POST /metrics HTTP/1.1\r\n\r\n", 405),
            ("GET /metrics HTTP/2\r\n\r\n", 400),
            ("GET /metrics\r\n\r\n", 400),
            ("\r\n\r\n", 400),
            ("\u{0}\u{1} garbage\n\n", 400),
        ] {
            let answer = ask(request).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        }
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(LONGEST_HEAD));
        assert!(ask(&long).unwrap().starts_with("HTTP/1.1 431 "));
        let failed = answer(b"GET /metrics HTTP/1.1\r\n\r\n", &mut || Err("no".to_owned())).unwrap();
        assert!(failed.starts_with(b"HTTP/1.1 500 "));
    }

    #[test]
    fn addresses_are_told_from_paths() {
        let read = |text: &str| text.parse::<Address>();
        assert_eq!(read("127.0.0.1:9"), Ok(Address::Tcp(([127, 0, 0, 1], 9).into())));
        assert_eq!(read("[::1]:9").map(|address| address.to_string()), Ok("[::1]:9".to_owned()));
        assert_eq!(read("./socket"), Ok(Address::Unix("./socket".into())));
        for wrong in ["", "9", ":9", "localhost:9", "127.0.0.1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
