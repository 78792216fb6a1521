//! Veth pairs: what either kind of configuration asks for, and both ends as they will be.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};
use serde::Serialize;

use super::{ALIAS_PREFIX, Families, GROUP, GROUP_MASQUERADE, Mac, NatPlan, hears_loopback, nat};
use crate::config::{ExtraVeth, NetworkConfig, Veth};
use crate::facts::NetFacts;
use crate::names::{self, HostLinkName};

/// Both ends of the veth pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VethPlan {
    /// The end on the host.
    pub host: HostEnd,
    /// The end in the container.
    pub container: ContainerEnd,
}

/// The veth pair's end on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostEnd {
    /// Name, at most 15 bytes.
    pub name: String,
    /// The full name, where it is longer.
    pub altname: Option<String>,
    /// MAC address.
    pub mac: Mac,
    /// Whether it is brought up.
    pub up: bool,
    /// Interface group: [`GROUP`] or [`GROUP_MASQUERADE`].
    pub group: u32,
    /// The alias that marks the link as this container's.
    pub alias: String,
    /// The bridge that takes it.
    pub bridge: Option<BridgePort>,
    /// Its link-local address, where it speaks IPv6: the one the kernel would choose, and then test for a second
    /// or two, in which it forwards no packet to the container, since it has no address to look for it with.
    pub link_local: Option<Ipv6Net>,
    /// Addresses; none with a bridge.
    pub addresses: Vec<IpNet>,
    /// Addresses of the container that the host reaches through this link; none with a bridge.
    pub routes: Vec<IpAddr>,
    /// Whether answers to connections from 127.0.0.0/8 may come in (IPv4 sysctl `route_localnet`).
    pub route_localnet: bool,
    /// Whether the host forwards IPv4 packets that come in.
    pub forwarding: bool,
}

/// The bridge that takes the host's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BridgePort {
    /// Name of the bridge.
    pub name: String,
    /// Its interface index; absent where it does not exist yet.
    pub index: Option<u32>,
    /// Whether it is made with its first port and removed with its last one, as systemd-nspawn's zones.
    pub zone: bool,
}

/// The veth pair's end in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerEnd {
    /// Name.
    pub name: String,
    /// MAC address.
    pub mac: Mac,
    /// Its link-local address, where it speaks IPv6; see [`HostEnd::link_local`].
    pub link_local: Option<Ipv6Net>,
    /// Addresses with their prefixes.
    pub addresses: Vec<IpNet>,
    /// Whether it is brought up.
    pub up: bool,
    /// Addresses beyond the link: each gets a route of its own through it.
    pub routes: Vec<IpAddr>,
    /// Those of them that each get a default route.
    pub gateways: Vec<IpAddr>,
}

/// What a [`Veth`] and an [`ExtraVeth`] have in common.
pub(crate) struct Pair<'a> {
    pub(crate) container_link: &'a str,
    pub(crate) bridge: Option<&'a str>,
    pub(crate) make_bridge: bool,
    pub(crate) up: bool,
    pub(crate) host: Vec<IpAddr>,
    pub(crate) local: Vec<IpNet>,
}

/// The veth pair, if there is one, and the further ones.
pub(crate) fn pairs(config: &NetworkConfig) -> impl Iterator<Item = Pair<'_>> {
    config.veth.iter().map(Pair::from).chain(config.extra_veths.iter().map(Pair::from))
}

impl<'a> From<&'a Veth> for Pair<'a> {
    fn from(veth: &'a Veth) -> Pair<'a> {
        Pair {
            container_link: &veth.container_link,
            bridge: veth.bridge.as_deref(),
            make_bridge: veth.make_bridge,
            up: veth.up,
            host: veth.host_addresses().collect(),
            local: veth.local_addresses().collect(),
        }
    }
}

impl<'a> From<&'a ExtraVeth> for Pair<'a> {
    fn from(veth: &'a ExtraVeth) -> Pair<'a> {
        let host = veth.host_address.map(IpAddr::from).into_iter();
        let local = veth.local_address.map(IpNet::from).into_iter();
        Pair {
            container_link: &veth.container_link,
            bridge: veth.bridge.as_deref(),
            make_bridge: false,
            up: veth.up,
            host: host.chain(veth.host_address6.map(IpAddr::from)).collect(),
            local: local.chain(veth.local_address6.map(IpNet::from)).collect(),
        }
    }
}

impl VethPlan {
    pub(super) fn new(
        config: &NetworkConfig,
        veth: &Veth,
        facts: &NetFacts,
        forwarding: Families,
    ) -> VethPlan {
        let container_mac =
            veth.container_mac.unwrap_or_else(|| names::container_mac(&config.container, facts.machine_id));
        let macs = (names::host_mac(&config.container, facts.machine_id), container_mac);
        let name = names::host_link_name(&config.container, veth.bridge.is_some());
        let mut plan = VethPlan::of(config, &Pair::from(veth), name, macs, facts);
        if nat(config) == NatPlan::Private {
            plan.host.group = GROUP_MASQUERADE;
        }
        let routed = veth.bridge.is_none();
        plan.host.route_localnet =
            routed && config.forwards.iter().any(|forward| hears_loopback(config, forward));
        plan.host.forwarding = routed && forwarding.ipv4;
        plan.container.gateways = plan.container.routes.clone();
        plan
    }

    pub(super) fn extra(config: &NetworkConfig, facts: &NetFacts) -> Vec<VethPlan> {
        let plan = |(index, veth): (usize, &ExtraVeth)| {
            let macs = names::extra_macs(&config.container, facts.machine_id, index);
            let name = HostLinkName { name: veth.host_link.clone(), altname: None };
            VethPlan::of(config, &Pair::from(veth), name, macs, facts)
        };
        config.extra_veths.iter().enumerate().map(plan).collect()
    }

    fn of(
        config: &NetworkConfig,
        pair: &Pair<'_>,
        HostLinkName { name, altname }: HostLinkName,
        (host_mac, container_mac): ([u8; 6], [u8; 6]),
        facts: &NetFacts,
    ) -> VethPlan {
        let (host_mac, container_mac) = (Mac(host_mac), Mac(container_mac));
        let routed = pair.bridge.is_none();
        let speaks_ipv6 =
            pair.host.iter().any(IpAddr::is_ipv6) || pair.local.iter().any(|net| net.addr().is_ipv6());
        let bridge = pair.bridge.map(|asked| {
            let found = facts.link(asked);
            BridgePort {
                name: found.map_or_else(|| asked.to_owned(), |link| link.name.clone()),
                index: found.map(|link| link.index),
                zone: pair.make_bridge,
            }
        });
        let host = HostEnd {
            name,
            altname,
            mac: host_mac,
            // systemd-nspawn, too, brings up what it puts on a bridge.
            up: pair.up || !routed,
            group: GROUP,
            alias: format!("{ALIAS_PREFIX}{}", config.container),
            bridge,
            link_local: (speaks_ipv6 && routed).then(|| host_mac.link_local()),
            addresses: if routed { pair.host.iter().copied().map(IpNet::from).collect() } else { Vec::new() },
            routes: if routed { pair.local.iter().map(IpNet::addr).collect() } else { Vec::new() },
            route_localnet: false,
            forwarding: false,
        };
        let container = ContainerEnd {
            name: pair.container_link.to_owned(),
            mac: container_mac,
            link_local: speaks_ipv6.then(|| container_mac.link_local()),
            addresses: pair.local.clone(),
            up: pair.up,
            routes: pair.host.clone(),
            gateways: Vec::new(),
        };
        VethPlan { host, container }
    }
}

impl Veth {
    pub(crate) fn host_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.host_address.map(IpAddr::from).into_iter().chain(self.host_address6.map(IpAddr::from))
    }

    pub(crate) fn local_addresses(&self) -> impl Iterator<Item = IpNet> {
        self.local_address.map(IpNet::from).into_iter().chain(self.local_address6.map(IpNet::from))
    }
}
