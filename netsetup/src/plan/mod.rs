//! The plan: every link, address, route, rule element and setting, checked and decided before anything is made.
//! Pure data: it comes from a [`NetworkConfig`] and [`NetFacts`], and prints as a tree.

mod forwards;
mod inside;
mod mac;
mod pair;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::check;
use crate::config::{Forward, ForwardTo, Nat, NetworkConfig, Veth};
use crate::error::Result;
use crate::facts::NetFacts;
use crate::names;
use crate::nft::Element;
use crate::relay::RelayPlan;
use crate::sysctl::SysctlChange;

use forwards::hears_loopback;
pub(crate) use forwards::{forward_elements, loopback_bridge, targets};
pub use inside::{MovedLinkPlan, SubLinkKind, SubLinkPlan};
pub(crate) use inside::{inside_name, sub_link_name};
pub use mac::Mac;
pub use pair::{BridgePort, ContainerEnd, HostEnd, VethPlan};
pub(crate) use pair::{Pair, pairs};

/// Interface group of the containers' links on the host: "nix" in ASCII, with room for a policy below.
/// `ip link show group 1852405760` lists them. A group vanishes with its link, so it needs no clean-up.
pub const GROUP: u32 = 0x6e69_7800;
/// The bits of a group number that say "a container's link".
pub const GROUP_MASK: u32 = 0xffff_ff00;
/// Group of the links whose private sources are masqueraded on every way out (`nat = auto`).
pub const GROUP_MASQUERADE: u32 = GROUP | 1;

/// Begins the alias of every link of ours; the container's name follows.
pub(crate) const ALIAS_PREFIX: &str = "nixrun:";

/// The network of one container, as it will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkPlan {
    /// Name of the container.
    pub container: String,
    /// The veth pair; the loopback link comes up in any case.
    pub veth: Option<VethPlan>,
    /// Further veth pairs.
    pub extra_veths: Vec<VethPlan>,
    /// Links of the host that move into the container.
    pub moved: Vec<MovedLinkPlan>,
    /// MACVLAN and IPVLAN links in the container.
    pub sub_links: Vec<SubLinkPlan>,
    /// Which packets get the host's address on their way out.
    pub nat: NatPlan,
    /// Families that the host must forward.
    pub forwarding: Families,
    /// Host settings that are off and will be turned on for as long as any container needs them, as far as
    /// [`NetFacts::probe_sysctls`] asked. [`crate::apply`] looks for itself.
    pub sysctls: Vec<SysctlChange>,
    /// What is added to the nftables table that all containers share.
    pub elements: Vec<Element>,
    /// Ports of the host that lead into the container.
    pub forwards: Vec<Forward>,
    /// Whether they lead to the addresses that the container has at the time, which make their elements then.
    pub follows: bool,
    /// What the kernel cannot forward, and a program of ours passes on.
    pub relays: Vec<RelayPlan>,
}

/// Address families.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Families {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
}

impl Families {
    /// Those of either.
    pub(crate) fn with(self, other: Families) -> Families {
        Families { ipv4: self.ipv4 || other.ipv4, ipv6: self.ipv6 || other.ipv6 }
    }
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
    /// A bridge that goes with its last port.
    Zone {
        /// Its name.
        bridge: String,
    },
    /// What the container has in the state shared by all: addresses, ports, links of the host, nftables elements, its
    /// part in the host's settings. A file in the state directory says what they are.
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
        let config = &*facts.resolved(config);
        let forwarding = forwarding(config);
        Ok(NetworkPlan {
            container: config.container.clone(),
            veth: config.veth.as_ref().map(|veth| VethPlan::new(config, veth, facts, forwarding)),
            extra_veths: VethPlan::extra(config, facts),
            moved: inside::moved(config, facts),
            sub_links: inside::sub_links(config, facts),
            nat: nat(config),
            forwarding,
            sysctls: facts.sysctls.clone(),
            elements: forwards::elements(config),
            forwards: config.forwards.clone(),
            follows: config.forward_to == ForwardTo::Current && !config.forwards.is_empty(),
            relays: forwards::relays(config),
        })
    }

    /// What the plan makes outside the container's namespaces.
    #[must_use]
    pub fn resources(&self) -> Vec<Resource> {
        let links = self.pairs().map(|pair| Resource::Link { name: pair.host.name.clone() });
        let zone = self.zone().map(|bridge| Resource::Zone { bridge: bridge.name.clone() });
        let registration =
            self.registers().then(|| Resource::Registration { container: self.container.clone() });
        links.chain(zone).chain(registration).collect()
    }

    /// The veth pair and the further ones.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = &VethPlan> {
        self.veth.iter().chain(&self.extra_veths)
    }

    /// The bridge that is made with its first port and removed with its last one.
    pub(crate) fn zone(&self) -> Option<&BridgePort> {
        self.pairs().filter_map(|pair| pair.host.bridge.as_ref()).find(|bridge| bridge.zone)
    }

    /// Whether the container has a part in the state that containers share: all with an address or with a link of the
    /// host, so that these are known.
    pub(crate) fn registers(&self) -> bool {
        self.needs_table() || !self.addresses().is_empty() || !self.moved.is_empty()
    }

    /// Whether the nftables table must be there: for the elements, for the masquerade that hangs on the link's
    /// group, and for the guard that belongs with `route_localnet`.
    pub(crate) fn needs_table(&self) -> bool {
        !self.elements.is_empty() || !self.forwards.is_empty() || self.nat != NatPlan::None
    }

    /// The addresses that forwards lead to.
    pub(crate) fn led_to(&self) -> impl Iterator<Item = IpAddr> {
        self.veth.iter().filter(|_| !self.follows).flat_map(|veth| &veth.container.addresses).map(IpNet::addr)
    }

    /// The container's own addresses, which no other one may have.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.pairs().flat_map(|pair| &pair.container.addresses).map(IpNet::addr).collect()
    }
}

/// What a container of this name may have made, whatever its configuration was: for a clean-up without a journal.
#[must_use]
pub fn resources_for(container: &str) -> Vec<Resource> {
    let link = |bridged| Resource::Link { name: names::host_link_name(container, bridged).name };
    vec![link(false), link(true), Resource::Registration { container: container.into() }]
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
        let led_to = config.forwards.iter().flat_map(|forward| forward_elements(forward, targets(config)));
        let led_to = led_to.filter_map(|element| element.leads_to());
        local && (out || led_to.into_iter().any(|to| to.is_ipv6() == v6))
    };
    Families { ipv4: family(false), ipv6: family(true) }
}
