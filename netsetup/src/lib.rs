//! The network of a container, made by raw netlink: a veth pair whose peer is born in the container's network
//! namespace, addresses, routes, masquerade and port forwards.
#![forbid(unsafe_code)]

mod config;

pub use config::{Forward, Nat, NetworkConfig, Protocol, Veth};
