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
//!
//! A container with a network namespace of its own in which there is a loopback link only, and that is down; netsetup
//! fills it between `launch` and `resume`, by [`Paused::netns`]:
//! ```no_run
//! use std::time::Duration;
//!
//! use runtime::supervisor::Attached;
//! use runtime::{Cgroup, Console, ContainerConfig, HostFacts, HostPaths, Network, Outcome, Payload, Plan, Prepared};
//!
//! let argv = ["/bin/busybox", "hostname"].map(Into::into).to_vec();
//! let mut config = ContainerConfig::new("box", "/srv/box", Payload::new(argv));
//! config.network = Network::Private;
//! config.console = Console::Pipe;
//!
//! let plan = Plan::new(&config, &HostFacts::probe_for(&HostPaths::default(), &config)?)?;
//! println!("{plan}"); // nothing has been changed so far
//! let prepared = Prepared::new(plan)?;
//! let cgroup = Cgroup::create(&prepared.plan().cgroup)?;
//! let supervisor = prepared.launch(cgroup)?.resume()?;
//!
//! let attached = Attached { signals: None, output: None, input: None, grace: Duration::from_secs(90) };
//! let end = supervisor.run(&attached, |event| println!("{event:?}"))?;
//! assert_eq!(end.outcome, Outcome::Exited(0));
//! # Ok::<(), runtime::Error>(())
//! ```
//! Nothing here keeps two containers from one root or one name, or remembers what was made when this process is killed:
//! that is [`instance`]'s part, and the library `nixrun` puts all parts together.
#![deny(unsafe_code)]

mod caps;
mod cgroup;
#[allow(unsafe_code)]
mod child;
mod config;
pub mod copy;
pub mod devices;
mod error;
pub mod exec;
mod host;
mod image;
pub mod instance;
mod launch;
mod made;
pub mod nearest;
mod passwd;
mod plan;
mod prepare;
pub mod resolver;
pub mod rootfs;
pub mod seccomp;
pub mod supervisor;
#[allow(unsafe_code)]
pub mod sys;
pub mod tree;
mod users;

pub use caps::{CapSet, CapsError, available as available_capabilities, nspawn_default};
pub use cgroup::{Cgroup, processes as cgroup_processes, remove as remove_cgroup};
pub use config::{
    ApiWritable, BindIds, BindSource, CgroupParent, Console, ContainerConfig, CpuMax, Credential, Device,
    DeviceAllow, Execution, Integration, IoMax, JournalLink, KernelView, LinkJournal, Mount, Network,
    Ownership, Payload, Personality, PivotRoot, Preparation, Program, ResolvConf, ResourceLimit, Resources,
    RootOptions, Security, Store, SystemCallRules, Timezone, UserNamespace, Volatile,
};
pub use error::{Error, ErrorKind};
pub use host::{
    AskedFacts, CgroupFacts, Controllers, Driver, HostFacts, HostPaths, InitLimits, Localtime, Node,
    OsRelease, Resolved, SharedFiles,
};
pub use launch::Paused;
pub use made::remove as remove_from_host;
pub use plan::{
    Attributes, CgroupPlan, Confinement, DevicePolicy, Entry, IdChoice, IdRange, JournalPlan, Layer, Limit,
    MountPlan, Namespaces, OnHost, Plan, Setting, Source, TmpfsOptions, UpperLayer, UserPlan, group_settings,
};
pub use prepare::Prepared;
pub use supervisor::{Event, Outcome, Supervisor};
pub use users::{IdLock, Users, unlock_dead};
