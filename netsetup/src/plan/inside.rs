//! Links that are in the container alone: those that move in, and those on top of one of the host's.

use std::fmt;

use serde::Serialize;

use super::Mac;
use crate::config::{MovedLink, NetworkConfig, SubLink};
use crate::facts::NetFacts;
use crate::names::{self, HostLinkName};
use crate::route::link::LinkFact;

/// A link of the host that moves into the container, and back at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MovedLinkPlan {
    /// Its name on the host, as it was asked for: also an alternative one.
    pub host_link: String,
    /// Its name in the container.
    pub container_link: String,
}

/// A link in the container on top of one of the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubLinkPlan {
    /// What it is.
    pub kind: SubLinkKind,
    /// Name of the host's link.
    pub parent: String,
    /// Its interface index.
    pub parent_index: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// The full name, where it is longer.
    pub altname: Option<String>,
    /// MAC address; an IPVLAN link has its parent's.
    pub mac: Option<Mac>,
}

/// A kind of link on top of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubLinkKind {
    /// With a MAC address of its own, in bridge mode: the links of one parent reach each other.
    Macvlan,
    /// With its parent's MAC address, in L2 mode.
    Ipvlan,
}

impl fmt::Display for SubLinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SubLinkKind::Macvlan => "MACVLAN",
            SubLinkKind::Ipvlan => "IPVLAN",
        })
    }
}

/// The name that a link has once it has moved in. One of its alternative names cannot become its name; it answers to that
/// already.
pub(crate) fn inside_name<'a>(wanted: &'a str, link: &'a LinkFact) -> &'a str {
    if link.altnames.iter().any(|name| name == wanted) { &link.name } else { wanted }
}

pub(super) fn moved(config: &NetworkConfig, facts: &NetFacts) -> Vec<MovedLinkPlan> {
    let plan = |moved: &MovedLink| {
        let wanted = moved.container_link.as_ref().unwrap_or(&moved.host_link);
        let found = facts.moved.iter().find(|fact| fact.name == moved.host_link);
        let link = found.and_then(|fact| fact.link.as_ref());
        let container_link = link.map_or(wanted.as_str(), |link| inside_name(wanted, link)).to_owned();
        MovedLinkPlan { host_link: moved.host_link.clone(), container_link }
    };
    config.interfaces.iter().map(plan).collect()
}

pub(super) fn sub_links(config: &NetworkConfig, facts: &NetFacts) -> Vec<SubLinkPlan> {
    let plan = |kind, index, link: &SubLink| {
        let HostLinkName { name, altname } = sub_link_name(kind, link);
        // The check has found every parent.
        let parent_index = facts.link(&link.parent).map_or(0, |parent| parent.index);
        let mac = match kind {
            SubLinkKind::Macvlan => Some(Mac(names::macvlan_mac(&config.container, facts.machine_id, index))),
            SubLinkKind::Ipvlan => None,
        };
        SubLinkPlan { kind, parent: link.parent.clone(), parent_index, name, altname, mac }
    };
    let all = |kind, links: &[SubLink]| -> Vec<SubLinkPlan> {
        links.iter().enumerate().map(|(index, link)| plan(kind, index, link)).collect()
    };
    [all(SubLinkKind::Macvlan, &config.macvlans), all(SubLinkKind::Ipvlan, &config.ipvlans)].concat()
}

/// The name of a link on top of another one.
pub(crate) fn sub_link_name(kind: SubLinkKind, link: &SubLink) -> HostLinkName {
    let prefix = match kind {
        SubLinkKind::Macvlan => "mv-",
        SubLinkKind::Ipvlan => "iv-",
    };
    match &link.container_link {
        Some(name) => HostLinkName { name: name.clone(), altname: None },
        None => names::sub_link_name(prefix, &link.parent),
    }
}
