//! Forwards that the kernel cannot make: it sends no packet from a loopback address of IPv6 through another link, and
//! translates no address into one of the other family. A program of ours listens there, and connects to the container.
//!
//! Nothing here blocks: one thread ([`crate::attend`]) polls the sockets of a container's relays together.

mod tcp;
mod udp;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use serde::Serialize;

use crate::config::Protocol;

/// A loopback address and port of the host on which a program of ours listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RelayPlan {
    /// Transport protocol: TCP or UDP.
    pub protocol: Protocol,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Port in the container.
    pub container_port: u16,
}

/// The addresses of a container that forwards lead to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Targets {
    pub(crate) ipv4: Option<IpAddr>,
    pub(crate) ipv6: Option<IpAddr>,
}

impl Targets {
    /// The first address of each family.
    pub(crate) fn of(addresses: impl Iterator<Item = IpAddr>) -> Targets {
        let mut targets = Targets::default();
        for address in addresses {
            let slot = if address.is_ipv4() { &mut targets.ipv4 } else { &mut targets.ipv6 };
            slot.get_or_insert(address);
        }
        targets
    }

    /// Both, IPv4 first.
    pub(crate) fn iter(self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.into_iter().chain(self.ipv6)
    }

    /// The one of the same family as `like`, else the other.
    fn nearest(self, like: SocketAddr) -> Option<IpAddr> {
        if like.is_ipv6() { self.ipv6.or(self.ipv4) } else { self.ipv4.or(self.ipv6) }
    }
}

/// What is polled, and what came of it. Users of one poll each push what they wait for, and find it by its place.
#[derive(Debug, Default)]
pub(crate) struct Interest<'a> {
    pub(crate) fds: Vec<PollFd<'a>>,
}

impl<'a> Interest<'a> {
    pub(crate) fn push(&mut self, fd: &'a impl std::os::fd::AsFd, flags: PollFlags) {
        self.fds.push(PollFd::new(fd.as_fd(), flags));
    }
}

/// The listening sockets of a container's relays, and what goes through them.
#[derive(Debug)]
pub(crate) struct Relays {
    tcp: Vec<tcp::Relay>,
    udp: Vec<udp::Relay>,
}

impl Relays {
    /// Listens at each place, in the calling thread's network namespace. Where that fails, because a program of the
    /// host's is there already, the others are made all the same, and a sentence says so.
    pub(crate) fn open(plans: &[RelayPlan]) -> (Relays, Vec<String>) {
        let mut relays = Relays { tcp: Vec::new(), udp: Vec::new() };
        let mut notes = Vec::new();
        for plan in plans {
            let opened = match plan.protocol {
                Protocol::Tcp => tcp::Relay::open(*plan).map(|relay| relays.tcp.push(relay)),
                Protocol::Udp => udp::Relay::open(*plan).map(|relay| relays.udp.push(relay)),
                Protocol::Sctp => Err(io::ErrorKind::Unsupported.into()),
            };
            match opened {
                Ok(()) => {}
                // A host without IPv6 has no ::1 that anybody could connect to.
                Err(error) if no_such_address(&error) => {}
                Err(error) => {
                    notes.push(format!("cannot forward {} port {}: {error}", plan.protocol, plan.listen));
                }
            }
        }
        (relays, notes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tcp.is_empty() && self.udp.is_empty()
    }

    pub(crate) fn interest<'a>(&'a self, interest: &mut Interest<'a>) {
        self.tcp.iter().for_each(|relay| relay.interest(interest));
        self.udp.iter().for_each(|relay| relay.interest(interest));
    }

    /// Does what can be done without waiting.
    pub(crate) fn advance(&mut self, targets: Targets) {
        self.tcp.iter_mut().for_each(|relay| relay.advance(targets));
        let now = Instant::now();
        self.udp.iter_mut().for_each(|relay| relay.advance(targets, now));
    }

    /// When to call [`Relays::advance`] without anything having happened.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.udp.iter().any(udp::Relay::has_peers).then_some(udp::IDLE)
    }
}

fn no_such_address(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

/// Whether an operation on a socket only has to wait.
fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl fmt::Display for RelayPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} -> port {} of the container, by a relay",
            self.protocol, self.listen, self.container_port
        )
    }
}
