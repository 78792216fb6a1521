//! UDP: each address that sends to us has a socket of its own towards the container, for as long as either side speaks.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::{Interest, RelayPlan, Targets};

/// How long a silent peer is remembered: the kernel's `nf_conntrack_udp_timeout_stream`.
pub(super) const IDLE: Duration = Duration::from_secs(120);
/// Peers of one relay at a time; the one silent longest makes room.
const MOST: usize = 256;
/// Datagrams taken before others have their turn.
const TURNS: usize = 64;
/// The longest datagram.
const LONGEST: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Relay {
    socket: UdpSocket,
    container_port: u16,
    peers: Vec<Peer>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Peer {
    address: SocketAddr,
    /// Connected to `target`.
    socket: UdpSocket,
    target: SocketAddr,
    heard: Instant,
}

impl Relay {
    pub(super) fn open(plan: RelayPlan) -> io::Result<Relay> {
        let socket = UdpSocket::bind(plan.listen)?;
        socket.set_nonblocking(true)?;
        Ok(Relay { socket, container_port: plan.container_port, peers: Vec::new(), buffer: Vec::new() })
    }

    pub(super) fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    pub(super) fn interest<'a>(&'a self, interest: &mut Interest<'a>) {
        interest.push(&self.socket, PollFlags::POLLIN);
        self.peers.iter().for_each(|peer| interest.push(&peer.socket, PollFlags::POLLIN));
    }

    pub(super) fn advance(&mut self, targets: Targets, now: Instant) {
        self.peers.retain(|peer| now.duration_since(peer.heard) < IDLE);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(LONGEST, 0);
        for _ in 0..TURNS {
            let Ok((length, from)) = self.socket.recv_from(&mut buffer) else { break };
            // Nobody to send it to, or it was lost: so datagrams are.
            if let Ok(peer) = self.peer(from, targets, now) {
                let _ = peer.socket.send(buffer.get(..length).unwrap_or_default());
            }
        }
        for peer in &mut self.peers {
            for _ in 0..TURNS {
                // Also the container's refusals, which UDP cannot pass on from another socket.
                let Ok(length) = peer.socket.recv(&mut buffer) else { break };
                peer.heard = now;
                let _ = self.socket.send_to(buffer.get(..length).unwrap_or_default(), peer.address);
            }
        }
        self.buffer = if self.peers.is_empty() { Vec::new() } else { buffer };
    }

    fn peer(&mut self, address: SocketAddr, targets: Targets, now: Instant) -> io::Result<&Peer> {
        let target = targets.nearest(address).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let target = SocketAddr::new(target, self.container_port);
        // One that the container's address has changed under begins anew.
        self.peers.retain(|peer| peer.address != address || peer.target == target);
        let index = match self.peers.iter().position(|peer| peer.address == address) {
            Some(index) => index,
            None => {
                if self.peers.len() >= MOST {
                    let oldest = self.peers.iter().enumerate().min_by_key(|(_, peer)| peer.heard);
                    let oldest = oldest.map_or(0, |(index, _)| index);
                    self.peers.swap_remove(oldest);
                }
                let any: SocketAddr = if target.is_ipv4() {
                    (Ipv4Addr::UNSPECIFIED, 0).into()
                } else {
                    (Ipv6Addr::UNSPECIFIED, 0).into()
                };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                socket.connect(target)?;
                self.peers.push(Peer { address, socket, target, heard: now });
                self.peers.len() - 1
            }
        };
        let peer = &mut self.peers[index];
        peer.heard = now;
        Ok(peer)
    }
}
