//! sock_diag: programs on the host that listen on a port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::NlasIterator;
use nix::errno::Errno;

use crate::config::Protocol;
use crate::error::Result;
use crate::socket::{Body, SockDiag, Socket};

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `TCP_CLOSE`: the state of a UDP socket that is bound and not connected.
const TCP_CLOSE: u32 = 7;
/// `TCP_LISTEN`.
const TCP_LISTEN: u32 = 10;
/// `INET_DIAG_SKV6ONLY` of `linux/inet_diag.h`.
const INET_DIAG_SKV6ONLY: u16 = 11;
/// `sizeof(struct inet_diag_msg)`.
const MESSAGE_LEN: usize = 72;

/// A socket that receives what comes to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listener {
    /// The address it is bound to, possibly the unspecified one.
    pub(crate) address: IpAddr,
    /// Whether an IPv6 socket leaves IPv4 alone.
    pub(crate) v6_only: bool,
}

impl Listener {
    /// Whether packets to `address` reach it; to any address of the host when `None`.
    pub(crate) fn hears(&self, address: Option<IpAddr>, family_v6: bool) -> bool {
        let own = self.address.to_canonical();
        match address {
            Some(address) if own.is_unspecified() => own.is_ipv6() == address.is_ipv6() || self.dual_stack(),
            Some(address) => own == address,
            None => own.is_ipv6() == family_v6 || self.dual_stack(),
        }
    }

    /// A socket bound to `::` hears IPv4 too, unless told not to.
    fn dual_stack(&self) -> bool {
        self.address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !self.v6_only
    }
}

/// `struct inet_diag_req_v2`.
struct Request {
    family: u8,
    protocol: Protocol,
    port: u16,
}

impl Body for Request {
    fn append(&self, bytes: &mut Vec<u8>) {
        let states: u32 = match self.protocol {
            Protocol::Tcp | Protocol::Sctp => 1 << TCP_LISTEN,
            Protocol::Udp => 1 << TCP_CLOSE,
        };
        // family, protocol, no extensions, padding, states
        bytes.extend([self.family, self.protocol.number(), 0, 0]);
        bytes.extend(states.to_ne_bytes());
        // struct inet_diag_sockid: source port (the kernel filters by it), nothing else
        bytes.extend(self.port.to_be_bytes());
        bytes.extend([0; 46]);
    }
}

impl Socket<SockDiag> {
    /// The sockets that listen on a port, of both families.
    pub(crate) fn listeners(&mut self, protocol: Protocol, port: u16) -> Result<Vec<Listener>> {
        let mut listeners = Vec::new();
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            let doing = format!("ask who listens on {protocol} port {port}");
            let request = Request { family, protocol, port };
            let asked = self.dump(SOCK_DIAG_BY_FAMILY, &request, doing, |payload| {
                listeners
                    .extend(parse(payload).filter(|(bound, _)| *bound == port).map(|(_, socket)| socket));
            });
            match asked {
                // No IPv6, or no module that knows.
                Err(error) if error.errno() == Some(Errno::ENOENT) => {}
                asked => asked?,
            }
        }
        Ok(listeners)
    }
}

/// Decodes `struct inet_diag_msg { u8 family, state, timer, retrans; sockid id; u32 expires, rqueue, wqueue, uid,
/// inode }` with `sockid { be16 sport, dport; be32 src[4], dst[4]; u32 if, cookie[2] }`.
fn parse(payload: &[u8]) -> Option<(u16, Listener)> {
    let (message, attributes) = payload.split_at_checked(MESSAGE_LEN)?;
    let port = u16::from_be_bytes([message[4], message[5]]);
    let source = &message[8..24];
    let address = if i32::from(message[0]) == libc::AF_INET {
        IpAddr::V4(Ipv4Addr::from(*source.first_chunk::<4>()?))
    } else {
        IpAddr::V6(Ipv6Addr::from(*source.first_chunk::<16>()?))
    };
    let v6_only = NlasIterator::new(attributes)
        .flatten()
        .any(|attribute| attribute.kind() == INET_DIAG_SKV6ONLY && attribute.value().first() == Some(&1));
    Some((port, Listener { address, v6_only }))
}
