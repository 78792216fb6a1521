//! What was asked of the network: the input of [`crate::NetworkPlan`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// The network of one container that has a network namespace of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// The container's name; the names and MAC addresses of its links derive from it.
    pub container: String,
    /// The veth pair; without one, and without what follows, the container has the loopback link only.
    pub veth: Option<Veth>,
    /// Further veth pairs (NixOS's `extraVeths`, `--network-veth-extra=`).
    pub extra_veths: Vec<ExtraVeth>,
    /// Links of the host that move into the container, and back when it ends (`--network-interface=`).
    pub interfaces: Vec<MovedLink>,
    /// MACVLAN links in the container, in bridge mode (`--network-macvlan=`).
    pub macvlans: Vec<SubLink>,
    /// IPVLAN links in the container, in L2 mode (`--network-ipvlan=`).
    pub ipvlans: Vec<SubLink>,
    /// Who translates the container's addresses on their way out.
    pub nat: Nat,
    /// Ports of the host that lead into the container.
    pub forwards: Vec<Forward>,
    /// Which address of the container they lead to.
    pub forward_to: ForwardTo,
}

impl NetworkConfig {
    /// A container with a loopback link only.
    #[must_use]
    pub fn new(container: impl Into<String>) -> NetworkConfig {
        NetworkConfig {
            container: container.into(),
            veth: None,
            extra_veths: Vec::new(),
            interfaces: Vec::new(),
            macvlans: Vec::new(),
            ipvlans: Vec::new(),
            nat: Nat::Auto,
            forwards: Vec::new(),
            forward_to: ForwardTo::Configured,
        }
    }
}

/// Which address of the container its forwards lead to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForwardTo {
    /// That of the configuration (`local_address`, `local_address6`).
    #[default]
    Configured,
    /// The first one with global scope that the container's link has at the time, in each family: systemd-nspawn's
    /// way, for containers that set their addresses themselves. They follow changes while the container runs.
    Current,
}

/// A further veth pair. With a bridge the host's end has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraVeth {
    /// Name of the host's end.
    pub host_link: String,
    /// Name of the container's end.
    pub container_link: String,
    /// A bridge on the host that the host's end joins.
    pub bridge: Option<String>,
    /// As [`Veth::up`].
    pub up: bool,
    /// IPv4 address of the host's end, a /32; the container gets a route to it.
    pub host_address: Option<Ipv4Addr>,
    /// IPv6 counterpart of `host_address`, a /128.
    pub host_address6: Option<Ipv6Addr>,
    /// IPv4 address of the container's end.
    pub local_address: Option<Ipv4Net>,
    /// IPv6 counterpart of `local_address`.
    pub local_address6: Option<Ipv6Net>,
}

/// A link of the host that moves into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedLink {
    /// Its name, or an alternative name, on the host.
    pub host_link: String,
    /// Its name in the container; the host's when absent.
    pub container_link: Option<String>,
}

/// A link in the container on top of one of the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubLink {
    /// The host's link.
    pub parent: String,
    /// Its name in the container; systemd-nspawn's (`mv-PARENT`, `iv-PARENT`) when absent.
    pub container_link: Option<String>,
}

/// A veth pair between the host and the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Veth {
    /// Name of the container's end: `eth0` for NixOS containers, `host0` in the nspawn personality.
    pub container_link: String,
    /// A bridge on the host that the host's end joins. The host's end then has no address of its own and is
    /// called `vb-NAME` instead of `ve-NAME`.
    pub bridge: Option<String>,
    /// Whether a missing bridge is made and, with the last of its ports, removed: a zone of systemd-nspawn's.
    pub make_bridge: bool,
    /// Whether both ends come up. systemd-nspawn brings up nothing but a host's end on a bridge, and leaves the rest to
    /// systemd-networkd on either side; `false` is its way, for a pair without addresses.
    pub up: bool,
    /// MAC address of the container's end, a unicast one, first octet first; nspawn's stable one when absent
    /// ([`crate::names::container_mac`]).
    pub container_mac: Option<[u8; 6]>,
    /// IPv4 address of the host's end (`HOST_ADDRESS`), a /32 as NixOS sets it. It is the container's default
    /// gateway, also when it belongs to the bridge.
    pub host_address: Option<Ipv4Addr>,
    /// IPv6 counterpart of `host_address` (`HOST_ADDRESS6`), a /128.
    pub host_address6: Option<Ipv6Addr>,
    /// IPv4 address of the container's end (`LOCAL_ADDRESS`), /32 unless a prefix was written.
    pub local_address: Option<Ipv4Net>,
    /// IPv6 counterpart of `local_address` (`LOCAL_ADDRESS6`).
    pub local_address6: Option<Ipv6Net>,
}

/// Which of the container's packets leave the host under the host's address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nat {
    /// Private sources (RFC 1918, 100.64.0.0/10, IPv6 ULA) that leave through a link that is no container's.
    #[default]
    Auto,
    /// None: the administrator routes or translates.
    No,
    /// As `Auto`, but only through this link (`networking.nat.externalInterface`).
    Interface(String),
}

/// Transport protocol of a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// One port of the host that leads into the container, from outside, from the host's own addresses and from
/// 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Forward {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Only this address of the host listens; all of them when absent. What the kernel cannot forward is relayed by a
    /// program: `::1`, from which it sends no packet through another link, and a loopback address of IPv4 when the
    /// container has no address of that family.
    pub host_address: Option<IpAddr>,
    /// Port on the host, from 1 on.
    pub host_port: u16,
    /// Port in the container, from 1 on.
    pub container_port: u16,
}

/// Without the address that it leads to.
impl std::fmt::Display for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host_address {
            Some(address) => write!(f, "{} {}", self.protocol, SocketAddr::new(address, self.host_port))?,
            None => write!(f, "{} {}", self.protocol, self.host_port)?,
        }
        write!(f, " -> port {}", self.container_port)
    }
}

/// As `--nat` takes it.
impl std::fmt::Display for Nat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Nat::Auto => "auto",
            Nat::No => "no",
            Nat::Interface(link) => link,
        })
    }
}
