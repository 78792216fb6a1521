//! What went through links.

use netlink_packet_core::Parseable;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::errno::Errno;
use serde::Serialize;

use crate::error::Result;
use crate::socket::{Route, Socket};

const RTM_GETLINK: u16 = 18;

/// A link's counters since it was made (`struct rtnl_link_stats64`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LinkCounters {
    /// Its name.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets received with errors.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets received and dropped.
    pub rx_dropped: u64,
    /// Packets dropped on the way out.
    pub tx_dropped: u64,
}

impl LinkCounters {
    fn parse(payload: &[u8]) -> Option<LinkCounters> {
        let message = LinkMessage::parse(payload).ok()?;
        let mut counters = LinkCounters::default();
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => counters.name = name,
                LinkAttribute::Stats64(stats) => {
                    counters = LinkCounters {
                        name: counters.name,
                        rx_bytes: stats.rx_bytes,
                        tx_bytes: stats.tx_bytes,
                        rx_packets: stats.rx_packets,
                        tx_packets: stats.tx_packets,
                        rx_errors: stats.rx_errors,
                        tx_errors: stats.tx_errors,
                        rx_dropped: stats.rx_dropped,
                        tx_dropped: stats.tx_dropped,
                    };
                }
                _ => {}
            }
        }
        Some(counters)
    }
}

/// The counters of the links with these names in this thread's network namespace. One that is gone is left out.
///
/// # Errors
/// When the kernel does not answer.
pub fn link_counters(names: &[String]) -> Result<Vec<LinkCounters>> {
    let mut socket = Socket::<Route>::open()?;
    let mut all = Vec::with_capacity(names.len());
    for name in names {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.clone())];
        let doing = format!("read the counters of the link {name}");
        match socket.request(RTM_GETLINK, &message, doing, LinkCounters::parse) {
            Err(error) if error.errno() == Some(Errno::ENODEV) => {}
            counters => all.push(counters?),
        }
    }
    Ok(all)
}
