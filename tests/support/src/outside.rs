//! A network namespace that stands for the rest of the world.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::host::sh;
use crate::{Error, Netns, Result};

/// The host's address towards the outside.
pub const HOST4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The host's IPv6 address towards the outside.
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The address of the outside, the host's default route.
pub const OUTSIDE4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The IPv6 address of the outside, the host's default route.
pub const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// The outside, at the other end of the host's eth0. It has no route to any container.
#[derive(Debug)]
pub struct Outside {
    netns: Netns,
}

impl Outside {
    /// Connects the host that the calling thread is in.
    pub(crate) fn connect() -> Result<Outside> {
        let netns = Netns::new()?;
        // No address from the kernel and no detection of duplicates: nothing changes by itself later.
        sh(&format!(
            "ip link add eth0 type veth peer name up0 netns {}
             ip link set eth0 up addrgenmode none
             ip addr add {HOST4}/24 dev eth0
             ip addr add {HOST6}/64 dev eth0 nodad
             ip addr add fe80::1/64 dev eth0 nodad",
            netns.path()
        ))?;
        netns.sh(&format!(
            "ip link set up0 up addrgenmode none
             ip addr add {OUTSIDE4}/24 dev up0
             ip addr add {OUTSIDE6}/64 dev up0 nodad
             ip addr add fe80::2/64 dev up0 nodad"
        ))?;
        sh(&format!("ip route add default via {OUTSIDE4}; ip route add default via {OUTSIDE6}"))?;
        Ok(Outside { netns })
    }

    /// Its namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Answers one HTTP request to `address` outside, and says who asked.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn serve_once(&self, address: SocketAddr) -> Result<Served> {
        let bind =
            || TcpListener::bind(address).map_err(Error::doing(format!("listen on {address} outside")));
        let listener = self.netns.run(bind)?;
        let (sender, receiver) = channel();
        // Ends with its one request, or with the process.
        thread::spawn(move || sender.send(answer(&listener)));
        Ok(Served(receiver))
    }
}

/// A request that is being waited for.
#[derive(Debug)]
pub struct Served(Receiver<std::io::Result<IpAddr>>);

impl Served {
    /// The address that the request came from.
    ///
    /// # Errors
    /// When there was none within five seconds.
    pub fn asked_by(self) -> Result<IpAddr> {
        match self.0.recv_timeout(Duration::from_secs(5)) {
            Ok(peer) => peer.map_err(Error::doing("answer a request outside")),
            Err(_) => Err(Error::Unexpected("nothing from the container has arrived outside".to_owned())),
        }
    }
}

fn answer(listener: &TcpListener) -> std::io::Result<IpAddr> {
    let (mut stream, peer) = listener.accept()?;
    let _ = stream.read(&mut [0; 4096])?;
    stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 8\r\n\r\noutside\n")?;
    Ok(peer.ip())
}
