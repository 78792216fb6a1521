//! TCP: each connection to the listener is one to the container, byte by byte, each direction closed by itself.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, connect, setsockopt, socket, sockopt,
};

use super::{Interest, RelayPlan, Targets, would_block};

/// Connections of one relay at a time; more wait in the kernel's queue.
const MOST: usize = 256;
/// Bytes on their way in one direction.
const BUFFER: usize = 32 * 1024;
/// Buffers that one direction fills before others have their turn.
const TURNS: usize = 8;

#[derive(Debug)]
pub(super) struct Relay {
    listener: TcpListener,
    container_port: u16,
    flows: Vec<Flow>,
}

impl Relay {
    pub(super) fn open(plan: RelayPlan) -> io::Result<Relay> {
        let listener = TcpListener::bind(plan.listen)?;
        listener.set_nonblocking(true)?;
        Ok(Relay { listener, container_port: plan.container_port, flows: Vec::new() })
    }

    pub(super) fn interest<'a>(&'a self, interest: &mut Interest<'a>) {
        if self.flows.len() < MOST {
            interest.push(&self.listener, PollFlags::POLLIN);
        }
        self.flows.iter().for_each(|flow| flow.interest(interest));
    }

    pub(super) fn advance(&mut self, targets: Targets) {
        self.flows.retain_mut(|flow| flow.advance().is_ok_and(|open| open));
        while self.flows.len() < MOST {
            // Whoever gave up while waiting is no error of ours.
            let Ok((client, _)) = self.listener.accept() else { return };
            match self.connect(&client, targets) {
                Ok(server) => self.flows.push(Flow::new(client, server)),
                Err(_) => refuse(&client),
            }
        }
    }

    /// Begins a connection to the container.
    fn connect(&self, client: &TcpStream, targets: Targets) -> io::Result<TcpStream> {
        client.set_nonblocking(true)?;
        let target = targets.nearest(self.listener.local_addr()?).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let to = SocketAddr::new(target, self.container_port);
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let server =
            socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        let begun = match to {
            SocketAddr::V4(to) => connect(server.as_raw_fd(), &SockaddrIn::from(to)),
            SocketAddr::V6(to) => connect(server.as_raw_fd(), &SockaddrIn6::from(to)),
        };
        match begun {
            Ok(()) | Err(Errno::EINPROGRESS) => Ok(server.into()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Ends a connection with a reset, which is as near as can be to what the container would have answered.
fn refuse(client: &TcpStream) {
    let _ = setsockopt(client, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
}

#[derive(Debug)]
struct Flow {
    client: TcpStream,
    server: TcpStream,
    connected: bool,
    up: Half,
    down: Half,
}

impl Flow {
    fn new(client: TcpStream, server: TcpStream) -> Flow {
        Flow { client, server, connected: false, up: Half::default(), down: Half::default() }
    }

    /// A socket without anything to wait for is not polled: one that both sides have closed would wake us without end.
    fn interest<'a>(&'a self, interest: &mut Interest<'a>) {
        if !self.connected {
            interest.push(&self.server, PollFlags::POLLOUT);
            return;
        }
        for (socket, from, to) in [(&self.client, &self.up, &self.down), (&self.server, &self.down, &self.up)]
        {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, from.wants_input());
            flags.set(PollFlags::POLLOUT, to.wants_output());
            if !flags.is_empty() {
                interest.push(socket, flags);
            }
        }
    }

    /// Whether there is more to come.
    fn advance(&mut self) -> io::Result<bool> {
        if !self.connected {
            if let Some(error) = self.server.take_error()? {
                refuse(&self.client);
                return Err(error);
            }
            match self.server.peer_addr() {
                Ok(_) => self.connected = true,
                // Not yet.
                Err(_) => return Ok(true),
            }
        }
        let done = self
            .up
            .pump(&mut self.client, &mut self.server)
            .and_then(|up| self.down.pump(&mut self.server, &mut self.client).map(|down| up && down));
        if done.is_err() {
            refuse(&self.client);
            refuse(&self.server);
        }
        done.map(|done| !done)
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Half {
    buffer: Vec<u8>,
    sent: usize,
    ended: bool,
    closed: bool,
}

impl Half {
    fn wants_input(&self) -> bool {
        !self.ended && self.buffer.is_empty()
    }

    fn wants_output(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Passes on what is there; whether this direction is over.
    fn pump(&mut self, from: &mut TcpStream, to: &mut TcpStream) -> io::Result<bool> {
        for _ in 0..TURNS {
            if self.wants_input() && !self.fill(from)? {
                break;
            }
            if self.wants_output() && !self.drain(to)? {
                break;
            }
        }
        if self.ended && self.buffer.is_empty() && !self.closed {
            to.shutdown(Shutdown::Write)?;
            self.closed = true;
        }
        Ok(self.closed)
    }

    fn fill(&mut self, from: &mut TcpStream) -> io::Result<bool> {
        self.buffer.resize(BUFFER, 0);
        let read = from.read(&mut self.buffer);
        self.buffer.truncate(read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => {
                self.ended = true;
                Ok(false)
            }
            Ok(_) => Ok(true),
            Err(error) if would_block(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn drain(&mut self, to: &mut TcpStream) -> io::Result<bool> {
        match to.write(self.buffer.get(self.sent..).unwrap_or_default()) {
            Ok(written) => self.sent += written,
            Err(error) if would_block(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        if self.sent < self.buffer.len() {
            return Ok(false);
        }
        self.buffer.clear();
        self.sent = 0;
        Ok(true)
    }
}
