//! The notify protocol, sd_notify(3): from the container's PID 1 to us, and from us to our own service manager.

use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::Event;

/// How long to try to tell a busy service manager that the container is ready.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest message that systemd itself accepts.
const LONGEST: usize = 4096;
/// Most messages taken at a time: a container that sends without end must not keep its supervisor from stopping it.
const MOST: usize = 64;

/// Takes the waiting messages, [`MOST`] at a time; only PID 1's count, as in nspawn: anybody inside can write to the socket.
pub(super) fn receive(socket: &UnixDatagram, pid1: libc::pid_t, on_event: &mut impl FnMut(Event)) {
    let mut buffer = [0; LONGEST];
    for _ in 0..MOST {
        // No room for SCM_RIGHTS: descriptors that a message carries are closed by the kernel.
        let mut control = nix::cmsg_space!(libc::ucred);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let Ok(message) = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags) else {
            return;
        };
        let sender = message.cmsgs().ok().and_then(|mut messages| {
            messages.find_map(|message| match message {
                ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
                _ => None,
            })
        });
        let length = message.bytes;
        if sender != Some(pid1) {
            continue;
        }
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        for line in text.lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => on_event(Event::Ready),
                Some(("STOPPING", "1")) => on_event(Event::Ending),
                Some(("STATUS", status)) => on_event(Event::Status(status.to_owned())),
                _ => {}
            }
        }
    }
}

/// Our own service manager, when there is one.
#[derive(Debug)]
pub struct HostNotify {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl HostNotify {
    /// The service manager behind a `NOTIFY_SOCKET` value: a path, or `@` and an abstract name.
    #[must_use]
    pub fn new(address: &std::ffi::OsStr) -> Option<HostNotify> {
        let address = match address.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(address),
        };
        let socket = UnixDatagram::unbound().ok()?;
        // A service manager that does not read must not keep us from our container.
        socket.set_nonblocking(true).ok()?;
        Some(HostNotify { socket, address: address.ok()? })
    }

    /// Sends assignments, one a line. What fails is left at that, as sd_notify(3) advises, but for a queue that is
    /// full: readiness is worth a second's patience.
    pub fn send(&self, message: &str) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.socket.send_to_addr(message.as_bytes(), &self.address) {
            let full = error.kind() == std::io::ErrorKind::WouldBlock;
            if !full || !message.contains("READY=1") || Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
