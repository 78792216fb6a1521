//! The plan: every link, address, route, rule element and setting, checked and decided before anything is made.
//! Pure data: it comes from a [`NetworkConfig`] and [`NetFacts`], and prints as a tree.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize, Serializer};

use crate::check;
use crate::config::{Forward, Nat, NetworkConfig, Veth};
use crate::error::Result;
use crate::facts::NetFacts;
use crate::names::{self, HostLinkName};
use crate::nft::Element;
use crate::sysctl::SysctlChange;

/// Interface group of the containers' links on the host: "nix" in ASCII, with room for a policy below.
/// `ip link show group 1852405760` lists them. A group vanishes with its link, so it needs no clean-up.
pub const GROUP: u32 = 0x6e69_7800;
/// The bits of a group number that say "a container's link".
pub const GROUP_MASK: u32 = 0xffff_ff00;
/// Group of the links whose private sources are masqueraded on every way out (`nat = auto`).
pub const GROUP_MASQUERADE: u32 = GROUP | 1;

/// Begins the alias of every link of ours; the container's name follows.
pub(crate) const ALIAS_PREFIX: &str = "nixrun:";

/// A MAC address; prints as `02:00:00:00:00:01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The link-local IPv6 address that derives from it (RFC 4291, appendix A).
    fn link_local(self) -> Ipv6Net {
        let [a, b, c, d, e, f] = self.0;
        let address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        Ipv6Net::new_assert(address.into(), 64)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The network of one container, as it will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkPlan {
    /// Name of the container.
    pub container: String,
    /// The veth pair; the loopback link comes up in any case.
    pub veth: Option<VethPlan>,
    /// Which packets get the host's address on their way out.
    pub nat: NatPlan,
    /// Families that the host must forward.
    pub forwarding: Families,
    /// Host settings that are off and will be turned on for as long as any container needs them, as far as
    /// [`NetFacts::probe_sysctls`] asked. [`crate::apply`] looks for itself.
    pub sysctls: Vec<SysctlChange>,
    /// What is added to the nftables table that all containers share.
    pub elements: Vec<Element>,
}

/// Address families.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Families {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
}

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
    /// Its interface index.
    pub index: u32,
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
    /// Gateways: each gets a route of its own through the link, and a default route through it.
    pub gateways: Vec<IpAddr>,
}

/// Which packets get the host's address on their way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatPlan {
    /// None.
    None,
    /// Those with a private source that leave by a link that is no container's.
    Private,
    /// Those with a private source that leave by this link.
    PrivateVia(String),
}

/// Something that exists outside the container's namespaces and must be removed after a crash. The caller's
/// journal names each before [`crate::apply`] makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Resource {
    /// A link on the host.
    Link {
        /// Its name.
        name: String,
    },
    /// What the container has in the state shared by all: addresses, ports, nftables elements, its part in the
    /// host's settings. A file in the state directory says what they are.
    Registration {
        /// Name of the container.
        container: String,
    },
}

impl NetworkPlan {
    /// Checks what was asked against the host, and decides everything.
    ///
    /// # Errors
    /// Whatever makes the plan impossible: a contradiction in the configuration, an address, a port or a link
    /// name that somebody else has, a bridge or way out that does not exist.
    pub fn new(config: &NetworkConfig, facts: &NetFacts) -> Result<NetworkPlan> {
        check::config(config)?;
        check::facts(config, facts)?;
        let forwarding = forwarding(config);
        Ok(NetworkPlan {
            container: config.container.clone(),
            veth: config.veth.as_ref().map(|veth| VethPlan::new(config, veth, facts, forwarding)),
            nat: nat(config),
            forwarding,
            sysctls: facts.sysctls.clone(),
            elements: elements(config),
        })
    }

    /// What the plan makes outside the container's namespaces.
    #[must_use]
    pub fn resources(&self) -> Vec<Resource> {
        let link = self.veth.iter().map(|veth| Resource::Link { name: veth.host.name.clone() });
        let registration =
            self.registers().then(|| Resource::Registration { container: self.container.clone() });
        link.chain(registration).collect()
    }

    /// Whether the container has a part in the state that containers share: all with a veth pair, so that their
    /// addresses are known, except on a bridge without any.
    pub(crate) fn registers(&self) -> bool {
        self.needs_table() || !self.claimed_addresses().is_empty()
    }

    /// Whether the nftables table must be there: for the elements, for the masquerade that hangs on the link's
    /// group, and for the guard that belongs with `route_localnet`.
    pub(crate) fn needs_table(&self) -> bool {
        !self.elements.is_empty() || self.nat != NatPlan::None
    }

    /// Addresses that no other container may have.
    pub(crate) fn claimed_addresses(&self) -> Vec<IpAddr> {
        self.veth.iter().flat_map(|veth| &veth.container.addresses).map(IpNet::addr).collect()
    }
}

/// What a container of this name may have made, whatever its configuration was: for a clean-up without a journal.
#[must_use]
pub fn resources_for(container: &str) -> Vec<Resource> {
    let link = |bridged| Resource::Link { name: names::host_link_name(container, bridged).name };
    vec![link(false), link(true), Resource::Registration { container: container.into() }]
}

impl VethPlan {
    fn new(config: &NetworkConfig, veth: &Veth, facts: &NetFacts, forwarding: Families) -> VethPlan {
        let bridged = veth.bridge.is_some();
        let HostLinkName { name, altname } = names::host_link_name(&config.container, bridged);
        let masquerade = nat(config) == NatPlan::Private;
        let bridge = facts.bridge.as_ref().filter(|_| bridged);
        let speaks_ipv6 = veth.host_address6.is_some() || veth.local_address6.is_some();
        let mac = Mac(names::host_mac(&config.container, facts.machine_id));
        let host = HostEnd {
            name,
            altname,
            mac,
            group: if masquerade { GROUP_MASQUERADE } else { GROUP },
            alias: format!("{ALIAS_PREFIX}{}", config.container),
            bridge: bridge.map(|bridge| BridgePort { name: bridge.name.clone(), index: bridge.index }),
            link_local: (speaks_ipv6 && !bridged).then(|| mac.link_local()),
            addresses: if bridged { Vec::new() } else { veth.host_addresses().map(IpNet::from).collect() },
            routes: if bridged { Vec::new() } else { veth.local_addresses().map(|net| net.addr()).collect() },
            route_localnet: !bridged && config.forwards.iter().any(|forward| hears_loopback(config, forward)),
            forwarding: !bridged && forwarding.ipv4,
        };
        let mac =
            veth.container_mac.unwrap_or_else(|| names::container_mac(&config.container, facts.machine_id));
        let container = ContainerEnd {
            name: veth.container_link.clone(),
            mac: Mac(mac),
            link_local: speaks_ipv6.then(|| Mac(mac).link_local()),
            addresses: veth.local_addresses().collect(),
            gateways: veth.host_addresses().collect(),
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

/// A bridge's packets are not this container's alone: whoever set the bridge up translates them, or not.
fn nat(config: &NetworkConfig) -> NatPlan {
    let routed =
        config.veth.as_ref().filter(|veth| veth.bridge.is_none() && veth.local_addresses().next().is_some());
    match (&config.nat, routed) {
        (Nat::No, _) | (_, None) => NatPlan::None,
        (Nat::Auto, Some(_)) => NatPlan::Private,
        (Nat::Interface(link), Some(_)) => NatPlan::PrivateVia(link.clone()),
    }
}

/// Families that the host must forward: those in which the container goes out, or is reached from outside.
pub(crate) fn forwarding(config: &NetworkConfig) -> Families {
    let out = nat(config) != NatPlan::None;
    let family = |v6: bool| {
        let local = config.veth.iter().flat_map(Veth::local_addresses).any(|net| net.addr().is_ipv6() == v6);
        local && (out || targets(config).any(|(_, to)| to.is_ipv6() == v6))
    };
    Families { ipv4: family(false), ipv6: family(true) }
}

/// Each forward with each address it leads to: one of either family, unless the forward names the host's address.
fn targets(config: &NetworkConfig) -> impl Iterator<Item = (&Forward, SocketAddr)> {
    config.forwards.iter().flat_map(|forward| {
        config.veth.iter().flat_map(Veth::local_addresses).map(|net| net.addr()).filter_map(move |local| {
            let same_family = forward.host_address.is_none_or(|host| host.is_ipv6() == local.is_ipv6());
            same_family.then(|| (forward, SocketAddr::new(local, forward.container_port)))
        })
    })
}

/// Whether a connection from the host to 127.0.0.1 can take the forward.
fn hears_loopback(config: &NetworkConfig, forward: &Forward) -> bool {
    let has_ipv4 = config.veth.as_ref().is_some_and(|veth| veth.local_address.is_some());
    has_ipv4 && forward.host_address.is_none_or(|address| address.is_ipv4() && address.is_loopback())
}

/// The bridge that needs `route_localnet`, if one does.
pub(crate) fn loopback_bridge(config: &NetworkConfig) -> Option<&str> {
    let bridge = config.veth.as_ref()?.bridge.as_deref()?;
    config.forwards.iter().any(|forward| hears_loopback(config, forward)).then_some(bridge)
}

fn elements(config: &NetworkConfig) -> Vec<Element> {
    let Some(veth) = &config.veth else { return Vec::new() };
    let mut elements: Vec<Element> = targets(config)
        .map(|(forward, to)| Element::Forward {
            protocol: forward.protocol,
            host_address: forward.host_address,
            host_port: forward.host_port,
            to,
        })
        .collect();
    let link = names::host_link_name(&config.container, false).name;
    if !elements.is_empty() {
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
