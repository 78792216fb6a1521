//! What one container adds to the table: elements of its maps and sets.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::attr::Attributes;
use super::table::{MapOrSet, TABLE};
use crate::config::Protocol;

const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_USERDATA: u16 = 6;
const NFTA_DATA_VALUE: u16 = 1;
/// `NFTNL_UDATA_SET_ELEM_COMMENT` of libnftnl: what nft prints as the element's comment.
const UDATA_COMMENT: u8 = 0;
/// `IFNAMSIZ`: names are compared with their padding.
const IFNAMSIZ: usize = 16;

/// One element of a map or set of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Element {
    /// A port of the host leads to a port of the container.
    Forward {
        /// Transport protocol.
        protocol: Protocol,
        /// Only at this address of the host; at each of them when absent.
        host_address: Option<IpAddr>,
        /// Port on the host.
        host_port: u16,
        /// Address and port in the container.
        to: SocketAddr,
    },
    /// Packets that came in by the first link and leave by the second, from private sources, get the second's
    /// address: `nat = INTERFACE`.
    WayOut {
        /// The container's link on the host.
        from: String,
        /// The way out.
        to: String,
    },
    /// Forwarded connections that come in by this link and leave by it again get the host's address: without it
    /// the container would answer itself, or its neighbour on the bridge, directly.
    Hairpin {
        /// The link.
        link: String,
    },
    /// A bridge through which 127.0.0.1 of the host leads to a container.
    Loopback {
        /// The bridge.
        link: String,
    },
}

impl Element {
    /// The set or map that it is an element of.
    pub(super) fn set(&self) -> MapOrSet {
        match self {
            Element::Forward { host_address: None, to, .. } if to.is_ipv4() => MapOrSet::Forward4,
            Element::Forward { host_address: None, .. } => MapOrSet::Forward6,
            Element::Forward { to, .. } if to.is_ipv4() => MapOrSet::ForwardAt4,
            Element::Forward { .. } => MapOrSet::ForwardAt6,
            Element::WayOut { .. } => MapOrSet::WayOut,
            Element::Hairpin { .. } => MapOrSet::Hairpin,
            Element::Loopback { .. } => MapOrSet::Loopback,
        }
    }

    /// The address that a forward leads to.
    pub(crate) fn leads_to(&self) -> Option<IpAddr> {
        match self {
            Element::Forward { to, .. } => Some(to.ip()),
            _ => None,
        }
    }

    /// Whether the two cannot be in the table together.
    pub(crate) fn same_key(&self, other: &Element) -> bool {
        self.set() == other.set() && self.key() == other.key()
    }

    /// The key: its fields one after the other, each padded to four bytes.
    fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(32);
        match self {
            Element::Forward { protocol, host_address, host_port, .. } => {
                if let Some(address) = host_address {
                    push_address(&mut key, *address);
                }
                key.extend([protocol.number(), 0, 0, 0]);
                push_port(&mut key, *host_port);
            }
            Element::WayOut { from, to } => {
                push_name(&mut key, from);
                push_name(&mut key, to);
            }
            Element::Hairpin { link } => {
                push_name(&mut key, link);
                push_name(&mut key, link);
            }
            Element::Loopback { link } => push_name(&mut key, link),
        }
        key
    }

    /// What a map holds for the key.
    fn data(&self) -> Option<Vec<u8>> {
        let Element::Forward { to, .. } = self else { return None };
        let mut data = Vec::with_capacity(20);
        push_address(&mut data, to.ip());
        push_port(&mut data, to.port());
        Some(data)
    }
}

/// The elements of one set, as the body of a `NEWSETELEM` or `DELSETELEM` message. `owner` becomes the comment
/// that `nft list` shows; a deletion needs neither comment nor data.
pub(crate) fn encode_elements(
    set: MapOrSet,
    elements: &[&Element],
    owner: Option<&str>,
) -> impl crate::socket::Body {
    let mut body = Attributes::inet();
    body.string(NFTA_SET_ELEM_LIST_TABLE, TABLE).string(NFTA_SET_ELEM_LIST_SET, set.name());
    body.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
        for element in elements {
            list.nest(NFTA_LIST_ELEM, |entry| {
                entry.nest(NFTA_SET_ELEM_KEY, |key| {
                    key.bytes(NFTA_DATA_VALUE, &element.key());
                });
                let Some(owner) = owner else { return };
                if let Some(data) = element.data() {
                    entry.nest(NFTA_SET_ELEM_DATA, |value| {
                        value.bytes(NFTA_DATA_VALUE, &data);
                    });
                }
                entry.bytes(NFTA_SET_ELEM_USERDATA, &comment(owner));
            });
        }
    });
    body
}

/// A comment as libnftnl stores it: type, length, text with its terminating zero.
fn comment(text: &str) -> Vec<u8> {
    let mut data = vec![UDATA_COMMENT, text.len() as u8 + 1];
    data.extend_from_slice(text.as_bytes());
    data.push(0);
    data
}

fn push_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend(address.octets()),
        IpAddr::V6(address) => bytes.extend(address.octets()),
    }
}

fn push_port(bytes: &mut Vec<u8>, port: u16) {
    let [high, low] = port.to_be_bytes();
    bytes.extend([high, low, 0, 0]);
}

fn push_name(bytes: &mut Vec<u8>, name: &str) {
    let start = bytes.len();
    bytes.extend_from_slice(name.as_bytes());
    bytes.resize(start + IFNAMSIZ, 0);
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Forward { protocol, host_address, host_port, to } => {
                match host_address {
                    Some(address) => write!(f, "{protocol} {}", SocketAddr::new(*address, *host_port))?,
                    None => write!(f, "{protocol} {host_port}")?,
                }
                write!(f, " -> {to}")
            }
            Element::WayOut { from, to } => write!(f, "masquerade private sources from {from} to {to}"),
            Element::Hairpin { link } => write!(f, "masquerade forwarded connections from {link} back to it"),
            Element::Loopback { link } => {
                write!(f, "masquerade forwarded connections from 127.0.0.0/8 to {link}")
            }
        }
    }
}
