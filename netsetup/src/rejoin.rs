//! Bridges that are removed and made anew while a container is on them, as a NixOS host does when its network changes: the
//! kernel takes the ports off the old one, and nobody else knows that the container's is to be on the new one.

use std::os::fd::{AsFd, BorrowedFd};

use socket2::{SockFilter, SockRef};

use crate::error::{Error, Result};
use crate::route::link::{self, LinkFact};
use crate::socket::{Batch, Route, Socket};

/// Hears of every change of a link.
const RTNLGRP_LINK: u32 = 1;
/// The first attribute of each message about a link.
const IFLA_IFNAME: u16 = 3;
/// Where it begins: behind `struct nlmsghdr` and `struct ifinfomsg`.
const FIRST_ATTRIBUTE: u32 = 32;

/// A container's link on a bridge of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) bridge: String,
    /// Index of the bridge that it was put on.
    pub(crate) bridge_index: u32,
}

impl Port {
    /// Whether it belongs on the bridge of now: a new one, while it is on none. One that the administrator took off stays
    /// off.
    fn belongs_on(&self, port: &LinkFact, bridge: &LinkFact) -> bool {
        bridge.kind.as_deref() == Some("bridge")
            && bridge.index != self.bridge_index
            && port.controller.is_none()
    }
}

/// A container's ports, and a socket that hears of their bridges.
#[derive(Debug)]
pub(crate) struct Ports {
    changes: Socket<Route>,
    questions: Socket<Route>,
    ports: Vec<Port>,
}

impl Ports {
    /// Changes are heard from now on: in the kernel a filter drops what is told of other links, so that no supervisor wakes
    /// because another container starts.
    pub(crate) fn watch(ports: Vec<Port>) -> Result<Ports> {
        let mut changes = Socket::<Route>::open()?;
        let filter = filter(ports.iter().map(|port| port.bridge.as_str()));
        SockRef::from(&changes.as_fd())
            .attach_filter(&filter)
            .map_err(Error::io("filter what is told of other links"))?;
        changes.subscribe(&[RTNLGRP_LINK])?;
        Ok(Ports { changes, questions: Socket::open()?, ports })
    }

    /// Forgets what was told; whether there was something.
    pub(crate) fn changed(&mut self) -> bool {
        self.changes.drain()
    }

    /// Puts the ports on their bridges again where those are new. What fails is tried again at the next change: there is
    /// nobody to tell it to.
    pub(crate) fn rejoin(&mut self) {
        for port in &mut self.ports {
            let _ = rejoin(&mut self.questions, port);
        }
    }
}

/// Readable when something was told of a bridge.
impl AsFd for Ports {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}

fn rejoin(host: &mut Socket<Route>, port: &mut Port) -> Result<()> {
    let Some(bridge) = host.link_by_name(&port.bridge)? else { return Ok(()) };
    let Some(link) = host.link_by_index(port.index)? else { return Ok(()) };
    if port.belongs_on(&link, &bridge) {
        let mut batch = Batch::new();
        link::join(&mut batch, port.index, &port.name, bridge.index);
        host.transact(batch, |_| {})?;
        port.bridge_index = bridge.index;
    }
    Ok(())
}

/// Classic BPF that lets messages about links of these names through. It sees a message from its header on, and its loads
/// are big-endian.
fn filter<'a>(names: impl Iterator<Item = &'a str>) -> Vec<SockFilter> {
    let half = |value: u16| u32::from(u16::from_be_bytes(value.to_ne_bytes()));
    let load_half = |at| SockFilter::new((libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16, 0, 0, at);
    let load_word = |at| SockFilter::new((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0, 0, at);
    let unless =
        |value, skip| SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, skip, value);
    let end = |length| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, length);
    let mut program = Vec::new();
    for name in names {
        // With its terminating zero, and padded to whole words, as the kernel writes it.
        let mut bytes = [name.as_bytes(), &[0]].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let words: Vec<u32> = bytes.as_chunks().0.iter().map(|word| u32::from_be_bytes(*word)).collect();
        // Instructions from behind the comparison of the type to the end of this name's.
        let mut left = 2 * words.len() as u8 + 1;
        program.extend([load_half(FIRST_ATTRIBUTE + 2), unless(half(IFLA_IFNAME), left)]);
        for (at, word) in (FIRST_ATTRIBUTE + 4..).step_by(4).zip(words) {
            left -= 2;
            program.extend([load_word(at), unless(word, left)]);
        }
        program.push(end(u32::MAX));
    }
    program.push(end(0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_goes_to_a_new_bridge_unless_it_was_taken_off_or_is_elsewhere() {
        let port = Port { index: 7, name: "vb-web".into(), bridge: "br0".into(), bridge_index: 3 };
        let bridge = |index| LinkFact { index, kind: Some("bridge".into()), ..LinkFact::default() };
        let free = LinkFact { index: 7, ..LinkFact::default() };
        assert!(port.belongs_on(&free, &bridge(9)));
        assert!(!port.belongs_on(&free, &bridge(3)));
        assert!(!port.belongs_on(&LinkFact { controller: Some(4), ..free.clone() }, &bridge(9)));
        assert!(!port.belongs_on(&free, &LinkFact { index: 9, ..LinkFact::default() }));
    }
}
