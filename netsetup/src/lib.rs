//! The network of a container, made by raw netlink: a veth pair whose peer is born in the container's network
//! namespace, addresses, routes, masquerade and port forwards. No other program is started.
//!
//! ```text
//! NetworkConfig + NetFacts -> NetworkPlan -> apply -> Applied -> teardown
//!                             (pure data)             `- after a crash: reclaim
//! ```
#![forbid(unsafe_code)]

mod apply;
mod check;
mod config;
mod diag;
mod display;
mod error;
mod facts;
#[cfg(test)]
mod fixture;
pub mod names;
mod netns;
mod nft;
mod plan;
mod reclaim;
mod route;
mod shared;
mod socket;
mod sysctl;

pub use apply::{Applied, apply, encode};
pub use config::{Forward, Nat, NetworkConfig, Protocol, Veth};
pub use error::{Error, ErrorKind, Errors, Holder, KernelError, LinkRole, Result};
pub use facts::{AddressFact, BoundTo, NetFacts, NetPaths, PortFact};
pub use nft::{Element, TABLE};
pub use plan::{
    BridgePort, ContainerEnd, Families, GROUP, GROUP_MASK, GROUP_MASQUERADE, HostEnd, Mac, NatPlan,
    NetworkPlan, Resource, VethPlan, resources_for,
};
pub use reclaim::{Reclaimed, reclaim};
pub use route::link::LinkFact;
pub use sysctl::SysctlChange;
