//! Links: the veth pair, its properties, and what is known of a link that is there.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InetDevConf, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkInfo, LinkMessage, Prop,
};
use nix::errno::Errno;
use serde::Serialize;

use super::NEW;
use crate::error::Result;
use crate::plan::{ContainerEnd, HostEnd};
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

/// Adds the veth pair: the host's end up and in its group, the container's end born in the namespace `netns`.
///
/// The container's end must not be asked to come up here: the kernel opens it before it knows its peer and fails
/// with ENOTCONN (veth_open, Linux 6.18).
pub(crate) fn add_veth(batch: &mut Batch, host: &HostEnd, container: &ContainerEnd, netns: BorrowedFd<'_>) {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(container.name.clone()),
        LinkAttribute::Address(container.mac.0.to_vec()),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
    ];
    peer.attributes.extend(QUEUES);
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![
        LinkAttribute::IfName(host.name.clone()),
        LinkAttribute::Address(host.mac.0.to_vec()),
        LinkAttribute::Group(host.group),
    ];
    message.attributes.extend(QUEUES);
    if let Some(bridge) = &host.bridge {
        message.attributes.push(LinkAttribute::Controller(bridge.index));
    }
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
    message.attributes = vec![LinkAttribute::PropList(vec![Prop::AltIfName(altname.into())])];
    let flags = NLM_F_APPEND | NLM_F_CREATE | NLM_F_EXCL;
    batch.push(RTM_NEWLINKPROP, flags, &message, format!("add the alternative name {altname}"));
}

/// Brings a link up.
pub(crate) fn up(batch: &mut Batch, index: u32, name: &str) {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    batch.push(RTM_SETLINK, 0, &message, format!("bring {name} up inside the container"));
}

/// The two indexes in the echo of [`add_veth`]: the host's end, the container's end.
pub(crate) fn veth_indexes(echo: &[u8]) -> Option<(u32, u32)> {
    let link = LinkFact::parse(echo)?;
    Some((link.index, link.peer?))
}

impl Socket<Route> {
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
