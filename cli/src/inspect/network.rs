//! A container's network, from its plan.

use netsetup::{NatPlan, NetworkPlan, VethPlan};
use schemars::JsonSchema;
use serde::Serialize;

/// A network of the container's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Network {
    /// Pairs of links with an end on the host.
    pub pairs: Vec<Pair>,
    /// Links that only the container has: moved in, or on top of one of the host's.
    pub inside: Vec<Inside>,
    /// Ports of the host that lead into it.
    pub forwards: Vec<Forward>,
    /// Whose private source addresses are translated: `none`, `private`, or `private-via LINK`.
    pub nat: String,
}

/// Two ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Pair {
    /// The host's.
    pub host: End,
    /// The container's.
    pub container: End,
    /// The bridge that has the host's end.
    pub bridge: Option<String>,
}

/// One end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct End {
    /// Its name.
    pub name: String,
    /// Its full name, where that is too long for a link.
    pub altname: Option<String>,
    /// Its MAC address.
    pub mac: String,
    /// Its addresses, with prefixes.
    pub addresses: Vec<String>,
}

/// A link without an end on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Inside {
    /// What it is: `moved`, `macvlan` or `ipvlan`.
    pub kind: String,
    /// The link of the host that it is, or is on top of.
    pub host_link: String,
    /// Its name inside.
    pub name: String,
}

/// A port of the host that leads into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Forward {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Only this address of the host; all of them when absent.
    pub host_address: Option<String>,
    /// The port on the host.
    pub host_port: u16,
    /// The port inside.
    pub container_port: u16,
}

pub(super) fn network(plan: &NetworkPlan) -> Network {
    let moved = plan.moved.iter().map(|link| Inside {
        kind: "moved".to_owned(),
        host_link: link.host_link.clone(),
        name: link.container_link.clone(),
    });
    let on_top = plan.sub_links.iter().map(|link| Inside {
        kind: link.kind.to_string().to_lowercase(),
        host_link: link.parent.clone(),
        name: link.name.clone(),
    });
    let forwards = plan.forwards.iter().map(|forward| Forward {
        protocol: forward.protocol.to_string(),
        host_address: forward.host_address.map(|address| address.to_string()),
        host_port: forward.host_port,
        container_port: forward.container_port,
    });
    Network {
        pairs: plan.veth.iter().chain(&plan.extra_veths).map(pair).collect(),
        inside: moved.chain(on_top).collect(),
        forwards: forwards.collect(),
        nat: match &plan.nat {
            NatPlan::None => "none".to_owned(),
            NatPlan::Private => "private".to_owned(),
            NatPlan::PrivateVia(link) => format!("private-via {link}"),
        },
    }
}

fn pair(pair: &VethPlan) -> Pair {
    let texts = |all: &[ipnet::IpNet]| all.iter().map(ToString::to_string).collect();
    let (host, container) = (&pair.host, &pair.container);
    Pair {
        host: End {
            name: host.name.clone(),
            altname: host.altname.clone(),
            mac: host.mac.to_string(),
            addresses: texts(&host.addresses),
        },
        container: End {
            name: container.name.clone(),
            altname: None,
            mac: container.mac.to_string(),
            addresses: texts(&container.addresses),
        },
        bridge: host.bridge.as_ref().map(|bridge| bridge.name.clone()),
    }
}
