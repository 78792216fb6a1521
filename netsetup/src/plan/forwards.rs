//! Forwards: what the kernel does for them by elements of the table, and what is left to a relay.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{NatPlan, nat};
use crate::config::{Forward, ForwardTo, NetworkConfig, Protocol, Veth};
use crate::names;
use crate::nft::Element;
use crate::relay::{RelayPlan, Targets};

/// The addresses that forwards lead to, as far as they are known before the container runs.
pub(crate) fn targets(config: &NetworkConfig) -> Targets {
    match config.forward_to {
        ForwardTo::Configured => {
            Targets::of(config.veth.iter().flat_map(Veth::local_addresses).map(|net| net.addr()))
        }
        ForwardTo::Current => Targets::default(),
    }
}

/// A forward to each address it leads to: one of either family, unless it names an address of the host.
pub(crate) fn forward_elements(forward: &Forward, targets: Targets) -> impl Iterator<Item = Element> {
    let forward = *forward;
    let fits = move |to: &IpAddr| match forward.host_address {
        None => true,
        // The kernel keeps what is sent to ::1: a relay's.
        Some(host) => host.is_ipv6() == to.is_ipv6() && host != IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    targets.iter().filter(fits).map(move |to| Element::Forward {
        protocol: forward.protocol,
        host_address: forward.host_address,
        host_port: forward.host_port,
        to: SocketAddr::new(to, forward.container_port),
    })
}

/// Where a program of ours listens: at ::1, which the kernel never translates into an address that is reached through
/// a link, and at a loopback address of IPv4 when the container has none of that family.
pub(super) fn relays(config: &NetworkConfig) -> Vec<RelayPlan> {
    let ipv6_only = config.forward_to == ForwardTo::Configured && targets(config).ipv4.is_none();
    let heard = |forward: &Forward| {
        let any = forward.host_address.is_none();
        let ipv6 = any || forward.host_address == Some(IpAddr::V6(Ipv6Addr::LOCALHOST));
        let ipv4 = match forward.host_address {
            None => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            named => named.filter(|address| address.is_ipv4() && address.is_loopback()),
        };
        let ipv6 = ipv6.then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
        ipv6.into_iter().chain(ipv4.filter(|_| ipv6_only)).collect::<Vec<_>>()
    };
    // Nobody has asked for SCTP on the loopback link, and it would take sockets that know about associations.
    let relayed = config.forwards.iter().filter(|forward| forward.protocol != Protocol::Sctp);
    let plan = |forward: &Forward, address| RelayPlan {
        protocol: forward.protocol,
        listen: SocketAddr::new(address, forward.host_port),
        container_port: forward.container_port,
    };
    relayed
        .flat_map(|forward| heard(forward).into_iter().map(move |address| plan(forward, address)))
        .collect()
}

/// Whether a connection from the host to 127.0.0.1 can take the forward without a relay.
pub(super) fn hears_loopback(config: &NetworkConfig, forward: &Forward) -> bool {
    let may_have_ipv4 = config.forward_to == ForwardTo::Current || targets(config).ipv4.is_some();
    may_have_ipv4 && forward.host_address.is_none_or(|address| address.is_ipv4() && address.is_loopback())
}

/// The bridge that needs `route_localnet`, if one does.
pub(crate) fn loopback_bridge(config: &NetworkConfig) -> Option<&str> {
    let bridge = config.veth.as_ref()?.bridge.as_deref()?;
    config.forwards.iter().any(|forward| hears_loopback(config, forward)).then_some(bridge)
}

pub(super) fn elements(config: &NetworkConfig) -> Vec<Element> {
    let Some(veth) = &config.veth else { return Vec::new() };
    let to = targets(config);
    let mut elements: Vec<Element> =
        config.forwards.iter().flat_map(|forward| forward_elements(forward, to)).collect();
    let link = names::host_link_name(&config.container, false).name;
    if !config.forwards.is_empty() {
        elements.push(Element::Hairpin { link: veth.bridge.clone().unwrap_or_else(|| link.clone()) });
    }
    if let Some(bridge) = loopback_bridge(config) {
        elements.push(Element::Loopback { link: bridge.into() });
    }
    if let NatPlan::PrivateVia(to) = nat(config) {
        elements.push(Element::WayOut { from: link, to });
    }
    elements
}
