//! Routes: towards the other end, the default route, and who an address belongs to.

use std::net::IpAddr;

use netlink_packet_core::Parseable;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use nix::errno::Errno;

use super::addr::family;
use super::{NEW, REPLACE};
use crate::error::Result;
use crate::socket::{Batch, Route, Socket};

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

/// Adds a route to one host through a link, as `ip route add ADDRESS dev LINK` does.
pub(crate) fn add_host(batch: &mut Batch, index: u32, link: &str, to: IpAddr) {
    push_host(batch, NEW, index, link, to);
}

/// The same in the place of a route that is there, as `ip route replace` does.
pub(crate) fn replace_host(batch: &mut Batch, index: u32, link: &str, to: IpAddr) {
    push_host(batch, REPLACE, index, link, to);
}

fn push_host(batch: &mut Batch, flags: u16, index: u32, link: &str, to: IpAddr) {
    let mut message = new(to);
    message.header.destination_prefix_length = bits(to);
    // A route without a gateway reaches neighbours only; IPv6 has no such scopes.
    message.header.scope = if to.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    message.attributes = vec![RouteAttribute::Destination(to.into_route()), RouteAttribute::Oif(index)];
    batch.push(RTM_NEWROUTE, flags, &message, format!("add the route to {to} through {link}"));
}

/// Adds the default route through a gateway, as `ip route add default via GATEWAY` does.
pub(crate) fn add_default(batch: &mut Batch, index: u32, link: &str, gateway: IpAddr) {
    let mut message = new(gateway);
    message.attributes = vec![RouteAttribute::Gateway(gateway.into_route()), RouteAttribute::Oif(index)];
    batch.push(RTM_NEWROUTE, NEW, &message, format!("add the default route via {gateway} through {link}"));
}

fn new(address: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(address),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Boot,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message
}

trait IntoRoute {
    fn into_route(self) -> RouteAddress;
}

impl IntoRoute for IpAddr {
    fn into_route(self) -> RouteAddress {
        match self {
            IpAddr::V4(address) => RouteAddress::Inet(address),
            IpAddr::V6(address) => RouteAddress::Inet6(address),
        }
    }
}

/// Number of bits of an address.
pub(crate) fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// A link that an address is bound to by a route of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Index of the link.
    pub(crate) link: u32,
    /// Whether the address is the host's own; otherwise the link leads to it.
    pub(crate) local: bool,
}

impl Socket<Route> {
    /// Who has the address: the host itself, or a link with a route to this very address; `None` when only wider
    /// routes, or none, lead to it. Costs the same at any number of links and routes.
    pub(crate) fn bound_to(&mut self, address: IpAddr) -> Result<Option<Bound>> {
        Ok(self.route_to(address)?.and_then(|route| bound(&route, address)))
    }

    /// Length of the prefix of the route that leads to the address; all of it when it is the host's own.
    pub(crate) fn prefix_to(&mut self, address: IpAddr) -> Result<Option<u8>> {
        let route = self.route_to(address)?;
        Ok(route.map(|route| match route.header.kind {
            RouteType::Local => bits(address),
            _ => route.header.destination_prefix_length,
        }))
    }

    fn route_to(&mut self, address: IpAddr) -> Result<Option<RouteMessage>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(address);
        message.header.destination_prefix_length = bits(address);
        // The entry itself, instead of the path that a packet would take.
        message.header.flags = RouteFlags::FibMatch;
        message.attributes = vec![RouteAttribute::Destination(address.into_route())];
        let doing = format!("look up the route to {address}");
        match self.request(RTM_GETROUTE, &message, doing, |payload| RouteMessage::parse(payload).ok()) {
            Ok(route) => Ok(Some(route)),
            Err(error) => match error.errno() {
                // No route, or one that rejects (blackhole, prohibit).
                Some(
                    Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL | Errno::ENODEV,
                ) => Ok(None),
                // IPv6 is off.
                Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => Ok(None),
                _ => Err(error),
            },
        }
    }
}

fn bound(route: &RouteMessage, address: IpAddr) -> Option<Bound> {
    let local = route.header.kind == RouteType::Local;
    let whole = route.header.destination_prefix_length == bits(address);
    let link = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    (local || whole).then_some(Bound { link, local })
}
