//! The shared table. Its rules never change while containers come and go, so a packet costs the same at any
//! number of them: a masqueraded container is in a group of links (which goes when its link goes), everything
//! else is an element of a map or set.
//!
//! ```text
//! table inet nixrun {
//!   map forward4    { inet_proto . inet_service : ipv4_addr . inet_service }       forward6 likewise
//!   map forward_at4 { ipv4_addr . inet_proto . inet_service : ... }                forward_at6 likewise
//!   set way_out     { ifname . ifname }         nat = INTERFACE
//!   set hairpin     { ifname . ifname }         links that forwarded connections may leave by as they came
//!   set loopback    { ifname }                  bridges with loopback forwards
//!   chain guard       raw prerouting:   127.0.0.0/8 never comes from or goes to a container by itself
//!   chain prerouting  dstnat, output:   to an address of the host -> chain forward
//!   chain forward                       dnat by the maps, the more specific one first
//!   chain postrouting srcnat:           hairpin, loopback, group AUTO leaving the containers' links, way_out
//!   chain private                       masquerade RFC 1918, 100.64.0.0/10, fc00::/7
//! }
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use super::attr::Attributes;
use super::expr::{Ip, Meta, Reg, Rule, Side, Verdict};
use crate::config::Protocol;
use crate::plan::{GROUP, GROUP_MASK, GROUP_MASQUERADE};

/// Name of the table, in the family `inet`.
pub const TABLE: &str = "nixrun";

/// Changes whenever the table's layout does: a table of another layout is replaced as a whole.
pub(crate) const LAYOUT: u32 = 1;

/// A map or set of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapOrSet {
    Forward4,
    Forward6,
    ForwardAt4,
    ForwardAt6,
    WayOut,
    Hairpin,
    Loopback,
}

/// Type numbers of nft's `enum datatypes`, with the size a field takes in a key. The kernel ignores the types;
/// they make `nft list` readable.
const IPV4: (u32, u32) = (7, 4);
const IPV6: (u32, u32) = (8, 16);
const PROTO: (u32, u32) = (12, 4);
const SERVICE: (u32, u32) = (13, 4);
const IFNAME: (u32, u32) = (41, 16);

impl MapOrSet {
    pub(crate) const ALL: [MapOrSet; 7] = [
        MapOrSet::Forward4,
        MapOrSet::Forward6,
        MapOrSet::ForwardAt4,
        MapOrSet::ForwardAt6,
        MapOrSet::WayOut,
        MapOrSet::Hairpin,
        MapOrSet::Loopback,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            MapOrSet::Forward4 => "forward4",
            MapOrSet::Forward6 => "forward6",
            MapOrSet::ForwardAt4 => "forward_at4",
            MapOrSet::ForwardAt6 => "forward_at6",
            MapOrSet::WayOut => "way_out",
            MapOrSet::Hairpin => "hairpin",
            MapOrSet::Loopback => "loopback",
        }
    }

    fn key(self) -> &'static [(u32, u32)] {
        match self {
            MapOrSet::Forward4 | MapOrSet::Forward6 => &[PROTO, SERVICE],
            MapOrSet::ForwardAt4 => &[IPV4, PROTO, SERVICE],
            MapOrSet::ForwardAt6 => &[IPV6, PROTO, SERVICE],
            MapOrSet::WayOut | MapOrSet::Hairpin => &[IFNAME, IFNAME],
            MapOrSet::Loopback => &[IFNAME],
        }
    }

    fn data(self) -> Option<&'static [(u32, u32)]> {
        match self {
            MapOrSet::Forward4 | MapOrSet::ForwardAt4 => Some(&[IPV4, SERVICE]),
            MapOrSet::Forward6 | MapOrSet::ForwardAt6 => Some(&[IPV6, SERVICE]),
            _ => None,
        }
    }

    /// The body of its `NEWSET` message; `id` is any number that is unique in the batch.
    pub(super) fn encode(self, id: u32) -> Attributes {
        const NFT_SET_MAP: u32 = 8;
        // NFTNL_UDATA_SET_KEYBYTEORDER = BYTEORDER_HOST_ENDIAN: without it nft prints link names backwards.
        const HOST_ENDIAN: [u8; 6] = [0, 4, 1, 0, 0, 0];
        let mut body = Attributes::inet();
        // NFTA_SET_TABLE, _NAME, _FLAGS, _KEY_TYPE, _KEY_LEN, _DATA_TYPE, _DATA_LEN, _ID, _USERDATA
        body.string(1, TABLE).string(2, self.name());
        body.u32(3, if self.data().is_some() { NFT_SET_MAP } else { 0 });
        body.u32(4, type_of(self.key())).u32(5, length_of(self.key()));
        if let Some(data) = self.data() {
            body.u32(6, type_of(data)).u32(7, length_of(data));
        }
        body.u32(10, id);
        if self == MapOrSet::Loopback {
            body.bytes(13, &HOST_ENDIAN);
        }
        body
    }
}

/// A concatenation's type is its fields' types, six bits each.
fn type_of(fields: &[(u32, u32)]) -> u32 {
    fields.iter().fold(0, |whole, (kind, _)| whole << 6 | kind)
}

fn length_of(fields: &[(u32, u32)]) -> u32 {
    fields.iter().map(|(_, length)| length).sum()
}

/// A base chain's hook: `NF_INET_*` number and priority.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    pub(super) kind: &'static str,
    pub(super) number: u32,
    pub(super) priority: i32,
}

/// A chain and its rules.
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) hook: Option<Hook>,
    pub(super) rules: Vec<Rule>,
}

/// All chains. One that is jumped to stands before those that jump.
pub(super) fn chains() -> Vec<Chain> {
    let base = |name, kind, number, priority, rules| Chain {
        name,
        hook: Some(Hook { kind, number, priority }),
        rules,
    };
    vec![
        Chain { name: "forward", hook: None, rules: forward() },
        Chain { name: "private", hook: None, rules: private() },
        base("guard", "filter", 0, -300, guard()),
        base("prerouting", "nat", 0, -100, vec![Rule::new().for_host().verdict(Verdict::Jump("forward"))]),
        base("output", "nat", 3, -100, output()),
        base("postrouting", "nat", 4, 100, postrouting()),
    ]
}

/// route_localnet on a container's link opens the host's 127.0.0.1 to the container (the class of CVE-2020-8558),
/// and lets packets in that claim to come from it. Answers to loopback forwards are not hit: they are addressed
/// to the link's own address until connection tracking, which comes after this chain, translates them.
fn guard() -> Vec<Rule> {
    let loopback = |side| Rule::new().within4(side, Ipv4Addr::new(127, 0, 0, 0), 8);
    let mut rules = Vec::new();
    for side in [Side::Destination, Side::Source] {
        rules.push(loopback(side).group(Meta::IifGroup, GROUP_MASK, GROUP, true).verdict(Verdict::Drop));
        rules.push(loopback(side).meta(Meta::IifName, Reg(0)).in_set("loopback").verdict(Verdict::Drop));
    }
    rules
}

fn forward() -> Vec<Rule> {
    let by_port = |ip, map| {
        let key = Rule::new().only(ip).meta(Meta::L4Proto, Reg(0)).destination_port(Reg(1));
        key.dnat_by_map(ip, map)
    };
    let by_address = |ip, map| {
        let next = if ip == Ip::V4 { 1 } else { 4 };
        let address = Rule::new().only(ip).address(ip, Side::Destination, Reg(0));
        address.meta(Meta::L4Proto, Reg(next)).destination_port(Reg(next + 1)).dnat_by_map(ip, map)
    };
    vec![
        by_address(Ip::V4, "forward_at4"),
        by_port(Ip::V4, "forward4"),
        by_address(Ip::V6, "forward_at6"),
        by_port(Ip::V6, "forward6"),
    ]
}

/// IPv6 has no route_localnet: the kernel never sends a packet from ::1 through another link. Connections to
/// [::1] are left alone, so that they are refused at once and programs go on to 127.0.0.1.
fn output() -> Vec<Rule> {
    vec![
        Rule::new().within6(Side::Destination, Ipv6Addr::LOCALHOST, 128).verdict(Verdict::Return),
        Rule::new().for_host().verdict(Verdict::Jump("forward")),
    ]
}

fn postrouting() -> Vec<Rule> {
    let links = |rule: Rule, set| rule.meta(Meta::IifName, Reg(0)).meta(Meta::OifName, Reg(4)).in_set(set);
    let from_loopback = || Rule::new().within4(Side::Source, Ipv4Addr::new(127, 0, 0, 0), 8);
    vec![
        links(Rule::new().translated(), "hairpin").masquerade(),
        from_loopback().group(Meta::OifGroup, GROUP_MASK, GROUP, true).masquerade(),
        from_loopback().meta(Meta::OifName, Reg(0)).in_set("loopback").masquerade(),
        Rule::new()
            .group(Meta::IifGroup, u32::MAX, GROUP_MASQUERADE, true)
            .group(Meta::OifGroup, GROUP_MASK, GROUP, false)
            .verdict(Verdict::Jump("private")),
        links(Rule::new(), "way_out").verdict(Verdict::Jump("private")),
    ]
}

/// Private sources: RFC 1918, RFC 6598 and unique local IPv6 addresses (RFC 4193). Others can be routed, so a
/// container keeps them.
fn private() -> Vec<Rule> {
    let v4 = [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16), ([100, 64, 0, 0], 10)];
    let mut rules: Vec<Rule> =
        v4.map(|(net, prefix)| Rule::new().within4(Side::Source, net.into(), prefix).masquerade()).into();
    let unique_local = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0);
    rules.push(Rule::new().within6(Side::Source, unique_local, 7).masquerade());
    rules
}

impl Protocol {
    /// Its `IPPROTO_*` number, as keys of the maps and sock_diag have it.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => libc::IPPROTO_TCP as u8,
            Protocol::Udp => libc::IPPROTO_UDP as u8,
            Protocol::Sctp => libc::IPPROTO_SCTP as u8,
        }
    }
}
