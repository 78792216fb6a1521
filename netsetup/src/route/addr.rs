//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};

use super::NEW;
use crate::socket::Batch;

const RTM_NEWADDR: u16 = 20;

/// Adds an address to a link. An IPv6 one is usable at once: duplicate address detection would take a second or
/// more, and on the two ends of a pair nobody else can have it.
pub(crate) fn add(batch: &mut Batch, index: u32, link: &str, address: IpNet) {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    // IFA_ADDRESS is the peer's address on point-to-point links: the same one means there is none.
    message.attributes =
        vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    if address.addr().is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    batch.push(RTM_NEWADDR, NEW, &message, format!("add the address {address} to {link}"));
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
