//! The network of a container, made by raw netlink: a veth pair whose peer is born in the container's network
//! namespace, addresses, routes, masquerade and port forwards. No other program is started.
//!
//! ```text
//! NetworkConfig + NetFacts -> NetworkPlan -> apply -> Applied -> teardown
//!                             (pure data)             `- after a crash: reclaim
//! ```
//!
//! ```no_run
//! use std::os::fd::AsFd;
//!
//! use netsetup::{Forward, Nat, NetFacts, NetPaths, NetworkConfig, NetworkPlan, Protocol, Veth};
//!
//! let paths = NetPaths::default();
//! let config = NetworkConfig {
//!     container: "box".into(),
//!     veth: Some(Veth {
//!         container_link: "host0".into(),
//!         bridge: None,
//!         make_bridge: false,
//!         up: true,
//!         container_mac: None,
//!         host_address: Some([10, 9, 0, 1].into()),
//!         host_address6: None,
//!         local_address: Some("10.9.0.2/32".parse()?),
//!         local_address6: None,
//!     }),
//!     nat: Nat::Auto,
//!     forwards: vec![Forward { protocol: Protocol::Tcp, host_address: None, host_port: 8080, container_port: 80 }],
//!     ..NetworkConfig::new("box")
//! };
//! let plan = NetworkPlan::new(&config, &NetFacts::probe(&paths, &config)?)?;
//! println!("{plan}"); // nothing has been changed so far
//!
//! // A network namespace that is new and empty; of a container that waits in it, `runtime::Paused::netns`.
//! let netns = std::fs::File::open("/proc/1234/ns/net")?;
//! let applied = netsetup::apply(&plan, &paths, netns.as_fd())?;
//! // ... the container runs, and ends ...
//! applied.teardown(true)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod addresses;
mod apply;
mod attend;
mod check;
mod config;
mod diag;
mod display;
mod error;
mod facts;
#[cfg(test)]
mod fixture;
mod follow;
mod moved;
pub mod names;
mod netns;
mod nft;
mod plan;
mod reclaim;
mod rejoin;
mod relay;
mod route;
mod shared;
mod socket;
mod sysctl;
mod zone;

pub use addresses::Addresses;
pub use apply::{Applied, apply, encode};
pub use config::{ExtraVeth, Forward, ForwardTo, MovedLink, Nat, NetworkConfig, Protocol, SubLink, Veth};
pub use error::{Error, ErrorKind, Errors, Holder, KernelError, LinkRole, Result};
pub use facts::{AddressFact, BoundTo, MoveFact, NetFacts, NetPaths, PortFact};
pub use nft::{Element, TABLE, foreign_forward_drops};
pub use plan::{
    BridgePort, ContainerEnd, Families, GROUP, GROUP_MASK, GROUP_MASQUERADE, HostEnd, Mac, MovedLinkPlan,
    NatPlan, NetworkPlan, Resource, SubLinkKind, SubLinkPlan, VethPlan, resources_for,
};
pub use reclaim::{Reclaimed, reclaim};
pub use relay::RelayPlan;
pub use route::counters::{LinkCounters, link_counters};
pub use route::link::LinkFact;
pub use sysctl::SysctlChange;
