//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};

use super::NEW;
use crate::error::Result;
use crate::socket::{Batch, Route, Socket};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;

/// Groups that hear of every change: `RTNLGRP_IPV4_IFADDR` and `RTNLGRP_IPV6_IFADDR`.
pub(crate) const GROUPS: [u32; 2] = [5, 9];

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

impl Socket<Route> {
    /// Addresses with global scope that can be used, by the order of their links.
    pub(crate) fn global_addresses(&mut self) -> Result<Vec<IpAddr>> {
        let mut found = Vec::new();
        let doing = "list the addresses of the container".to_owned();
        self.dump(RTM_GETADDR, &AddressMessage::default(), doing, |payload| {
            found.extend(AddressMessage::parse(payload).ok().as_ref().and_then(global));
        })?;
        found.sort_by_key(|(index, _)| *index);
        Ok(found.into_iter().map(|(_, address)| address).collect())
    }
}

/// The address and the index of its link, if packets from elsewhere can be sent to it.
fn global(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Flags(all) => flags = *all,
            AddressAttribute::Local(own) => local = Some(*own),
            // The peer's on a point-to-point link, else the same as the local one; IPv6 has only this.
            AddressAttribute::Address(own) => address = Some(*own),
            _ => {}
        }
    }
    let scope = u8::from(message.header.scope);
    let fit = scope < u8::from(AddressScope::Link) && !flags.intersects(unusable);
    // Whatever scope the container's root has said: those would lead to the host itself.
    let elsewhere = |address: &IpAddr| !(address.is_loopback() || address.is_unspecified());
    let address = fit.then(|| local.or(address)).flatten().filter(elsewhere)?;
    Some((message.header.index, address))
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
