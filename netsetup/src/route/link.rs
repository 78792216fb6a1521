//! Links: the veth pair, its properties, and what is known of a link that is there.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InetDevConf, InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVeth, IpVlanMode,
    LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, MacVlanMode, Prop,
};
use nix::errno::Errno;
use serde::Serialize;

use super::NEW;
use crate::error::Result;
use crate::plan::{ContainerEnd, HostEnd, Mac, SubLinkKind, SubLinkPlan};
use crate::socket::{Batch, Route, Socket};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWLINKPROP: u16 = 108;
const IFLA_ALT_IFNAME: u16 = 53;

/// What is known of a link on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LinkFact {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Alternative names.
    pub altnames: Vec<String>,
    /// Kind (`veth`, `bridge`, ...); absent for hardware.
    pub kind: Option<String>,
    /// Interface group (`IFLA_GROUP`).
    pub group: u32,
    /// The alias, by which nixrun marks its links.
    pub alias: Option<String>,
    /// Index of the other end of a veth pair.
    pub peer: Option<u32>,
    /// Index of the bridge, bond or VRF that it is a port of.
    pub controller: Option<u32>,
    /// MAC address, where it has one of that form.
    pub mac: Option<Mac>,
}

impl LinkFact {
    fn parse(payload: &[u8]) -> Option<LinkFact> {
        let message = LinkMessage::parse(payload).ok()?;
        let mut link = LinkFact { index: message.header.index, ..LinkFact::default() };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Group(group) => link.group = group,
                LinkAttribute::Link(peer) => link.peer = Some(peer),
                LinkAttribute::Controller(controller) => link.controller = Some(controller),
                LinkAttribute::Address(mac) => link.mac = mac.try_into().ok().map(Mac),
                LinkAttribute::PropList(properties) => {
                    link.altnames.extend(properties.into_iter().filter_map(|property| match property {
                        Prop::AltIfName(name) => Some(name),
                        _ => None,
                    }));
                }
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        Some(link)
    }
}

/// One queue each way: by default a veth has as many as the machine has processors, and every queue costs two
/// objects in sysfs and an event for udev (100 us in all on two processors). Packets take no lock of a queue as
/// long as none has a qdisc of its own, so only XDP programs and qdiscs that a container attaches miss them.
const QUEUES: [LinkAttribute; 2] = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];

/// Adds the veth pair: the host's end in its group and on the bridge with the index `bridge`, the container's end born in
/// the namespace `netns`.
///
/// The container's end must not be asked to come up here: the kernel opens it before it knows its peer and fails
/// with ENOTCONN (veth_open, Linux 6.18).
pub(crate) fn add_veth(
    batch: &mut Batch,
    host: &HostEnd,
    container: &ContainerEnd,
    bridge: Option<u32>,
    netns: BorrowedFd<'_>,
) {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(container.name.clone()),
        LinkAttribute::Address(container.mac.0.to_vec()),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
    ];
    peer.attributes.extend(QUEUES);
    let mut message = LinkMessage::default();
    if host.up {
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
    }
    message.attributes = vec![
        LinkAttribute::IfName(host.name.clone()),
        LinkAttribute::Address(host.mac.0.to_vec()),
        LinkAttribute::Group(host.group),
    ];
    message.attributes.extend(QUEUES);
    message.attributes.extend(bridge.map(LinkAttribute::Controller));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    // The echo says both indexes, which saves two questions.
    let doing = format!("create the veth pair {} (host), {} (container)", host.name, container.name);
    batch.push(RTM_NEWLINK, NEW | NLM_F_ECHO, &message, doing);
}

/// Marks the host's end as ours, and sets its IPv4 properties.
pub(crate) fn mark(batch: &mut Batch, index: u32, host: &HostEnd) {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::IfAlias(host.alias.clone())];
    if host.route_localnet || host.forwarding {
        // Zeros are not sent.
        let mut conf = InetDevConf::default();
        conf.route_localnet = host.route_localnet.into();
        conf.forwarding = host.forwarding.into();
        let inet = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(conf)]);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![inet]));
    }
    batch.push(RTM_SETLINK, 0, &message, format!("set the alias of {}", host.name));
}

/// Gives the link the alternative name. In the request that creates the link the kernel ignores it.
pub(crate) fn add_altname(batch: &mut Batch, index: u32, altname: &str) {
    let mut message = LinkMessage::default();
    message.header.index = index;
    push_altname(batch, message, None, altname);
}

fn push_altname(batch: &mut Batch, mut message: LinkMessage, of: Option<&str>, altname: &str) {
    message.attributes = of.map(|name| LinkAttribute::IfName(name.into())).into_iter().collect();
    message.attributes.push(LinkAttribute::PropList(vec![Prop::AltIfName(altname.into())]));
    let flags = NLM_F_APPEND | NLM_F_CREATE | NLM_F_EXCL;
    batch.push(RTM_NEWLINKPROP, flags, &message, format!("add the alternative name {altname}"));
}

/// Brings a link up.
pub(crate) fn up(batch: &mut Batch, index: u32, name: &str) {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    batch.push(RTM_SETLINK, 0, &message, format!("bring {name} up"));
}

/// The two indexes in the echo of [`add_veth`]: the host's end, the container's end.
pub(crate) fn veth_indexes(echo: &[u8]) -> Option<(u32, u32)> {
    let link = LinkFact::parse(echo)?;
    Some((link.index, link.peer?))
}

/// Adds a MACVLAN link in bridge mode, or an IPVLAN link in L2 mode, on top of `parent`, born in the namespace `netns`. The
/// kernel looks the parent up where the request comes from.
pub(crate) fn add_sub_link(batch: &mut Batch, link: &SubLinkPlan, netns: BorrowedFd<'_>) {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(link.name.clone()),
        LinkAttribute::Link(link.parent_index),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
    ];
    message.attributes.extend(link.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    let (kind, data) = match link.kind {
        SubLinkKind::Macvlan => {
            (InfoKind::MacVlan, InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Bridge)]))
        }
        SubLinkKind::Ipvlan => (InfoKind::IpVlan, InfoData::IpVlan(vec![InfoIpVlan::Mode(IpVlanMode::L2)])),
    };
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]));
    let doing = format!("create the {} link {} on {}", link.kind, link.name, link.parent);
    batch.push(RTM_NEWLINK, NEW, &message, doing);
}

/// Gives a link that has just been made the alternative name, by its name.
pub(crate) fn add_altname_to(batch: &mut Batch, name: &str, altname: &str) {
    push_altname(batch, LinkMessage::default(), Some(name), altname);
}

/// Adds a bridge.
pub(crate) fn add_bridge(batch: &mut Batch, name: &str, up: bool) {
    let mut message = LinkMessage::default();
    if up {
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
    }
    message.attributes = vec![
        LinkAttribute::IfName(name.into()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ];
    batch.push(RTM_NEWLINK, NEW, &message, format!("create the bridge {name}"));
}

/// Makes a link a port of the bridge with the index `bridge`, and up.
pub(crate) fn join(batch: &mut Batch, index: u32, name: &str, bridge: u32) {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![LinkAttribute::Controller(bridge)];
    batch.push(RTM_SETLINK, 0, &message, format!("put {name} on its bridge"));
}

/// Moves a link into another network namespace, under another name where one is given. The kernel closes it on the way,
/// and takes its addresses; alternative names stay.
pub(crate) fn move_to(
    batch: &mut Batch,
    link: &LinkFact,
    rename: Option<&str>,
    netns: BorrowedFd<'_>,
    where_to: &str,
) {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.attributes = vec![LinkAttribute::NetNsFd(netns.as_raw_fd())];
    message.attributes.extend(rename.map(|name| LinkAttribute::IfName(name.into())));
    let under = rename.map(|name| format!(" as {name}")).unwrap_or_default();
    batch.push(RTM_SETLINK, 0, &message, format!("move the link {} {where_to}{under}", link.name));
}

/// Renames a link.
pub(crate) fn rename(batch: &mut Batch, link: &LinkFact, name: &str) {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.attributes = vec![LinkAttribute::IfName(name.into())];
    batch.push(RTM_SETLINK, 0, &message, format!("rename the link {} to {name}", link.name));
}

impl Socket<Route> {
    /// The ports of a bridge.
    pub(crate) fn ports_of(&mut self, bridge: &LinkFact) -> Result<Vec<LinkFact>> {
        // The kernel sends no others.
        let only = vec![LinkAttribute::Controller(bridge.index)];
        let mut ports = self.list(only, format!("list the ports of {}", bridge.name))?;
        ports.retain(|port| port.controller == Some(bridge.index));
        Ok(ports)
    }

    /// All links of the namespace.
    pub(crate) fn links(&mut self) -> Result<Vec<LinkFact>> {
        self.list(Vec::new(), "list the links".into())
    }

    fn list(&mut self, only: Vec<LinkAttribute>, doing: String) -> Result<Vec<LinkFact>> {
        let mut message = LinkMessage::default();
        message.attributes = only;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut links = Vec::new();
        self.dump(RTM_GETLINK, &message, doing, |payload| links.extend(LinkFact::parse(payload)))?;
        Ok(links)
    }

    /// The link with this name or alternative name, if there is one.
    pub(crate) fn link_by_name(&mut self, name: &str) -> Result<Option<LinkFact>> {
        let mut message = LinkMessage::default();
        // The kernel looks for both kinds of name in either attribute, but IFLA_IFNAME takes short ones only.
        message.attributes = vec![if name.len() <= crate::names::LINK_NAME_MAX {
            LinkAttribute::IfName(name.into())
        } else {
            LinkAttribute::Other(DefaultNla::new(IFLA_ALT_IFNAME, [name.as_bytes(), &[0]].concat()))
        }];
        self.link(message, format!("look up the link {name}"))
    }

    /// The link with this index, if there is one.
    pub(crate) fn link_by_index(&mut self, index: u32) -> Result<Option<LinkFact>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.link(message, format!("look up the link with index {index}"))
    }

    fn link(&mut self, mut message: LinkMessage, doing: String) -> Result<Option<LinkFact>> {
        message.header.interface_family = AddressFamily::Unspec;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.request(RTM_GETLINK, &message, doing, LinkFact::parse) {
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Deletes a link, and with it the other end of a pair; `false` when it was gone already. Takes about 17 ms,
    /// since the kernel waits for an RCU grace period.
    pub(crate) fn delete_link(&mut self, index: u32, name: &str) -> Result<bool> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let mut batch = Batch::new();
        batch.push(RTM_DELLINK, 0, &message, format!("delete the link {name}"));
        match self.transact(batch, |_| {}) {
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(false),
            done => done.map(|()| true),
        }
    }
}
