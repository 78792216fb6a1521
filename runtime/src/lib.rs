//! Linux namespaces, mounts, control groups and supervision for containers.
//!
//! ```text
//! ContainerConfig + HostFacts -> Plan -> Prepared -> Paused -> Supervisor -> Outcome
//!    what was asked              data    fds open   cloned    running       ended
//! ```
//!
//! Each arrow consumes what stands before it, so the order cannot be got wrong. Up to and including [`Plan`]
//! nothing on the machine changes and no privileges are needed. The crate has no global state, installs no signal
//! handler and changes nothing of the process that embeds it; it starts no program but the container's own.
//!
//! Launch from a thread that outlives the container: the kernel kills the container when that thread ends.
#![deny(unsafe_code)]

mod caps;
mod cgroup;
#[allow(unsafe_code)]
mod child;
mod config;
pub mod devices;
mod error;
pub mod exec;
mod host;
pub mod instance;
mod launch;
mod plan;
mod prepare;
pub mod rootfs;
pub mod seccomp;
pub mod supervisor;
#[allow(unsafe_code)]
pub mod sys;

pub use caps::{CapSet, CapsError, available as available_capabilities, nspawn_default};
pub use cgroup::{Cgroup, processes as cgroup_processes, remove as remove_cgroup};
pub use config::{
    CgroupParent, Console, ContainerConfig, Mount, Network, Payload, Preparation, Store, UserNamespace,
};
pub use error::{Error, ErrorKind};
pub use host::{CgroupFacts, HostFacts, HostPaths, InitLimits, OsRelease};
pub use launch::Paused;
pub use plan::{
    Attributes, CgroupPlan, DevicePolicy, Entry, Limit, MountPlan, Namespaces, Plan, Source,
};
pub use prepare::Prepared;
pub use supervisor::{Event, Outcome, Supervisor};
