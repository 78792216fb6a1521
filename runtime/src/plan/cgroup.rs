//! Where the control groups go: in a delegated unit `payload` for the container beside `supervisor` for us, else a group
//! of the container's own. systemd inside owns everything from the container's group down.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::resources::Setting;
use crate::config::{CgroupParent, ContainerConfig};
use crate::error::{Error, ErrorKind};
use crate::host::HostFacts;

/// The container's control groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// The group that is the container's alone: a delegated unit, or one of our own making.
    pub unit: PathBuf,
    /// Whether we make (and remove) `unit`; a delegated one belongs to systemd.
    pub make_unit: bool,
    /// The container's group, the root of its cgroup namespace.
    pub payload: PathBuf,
    /// Our own place: in a delegated unit controllers can be enabled only once no process sits in the unit itself.
    pub supervisor: Option<PathBuf>,
    /// Who decides which devices the container may open.
    pub devices: DevicePolicy,
    /// What is written to files of `payload` before the container is in it. Their controllers are enabled above it.
    #[serde(default)]
    pub settings: Vec<Setting>,
}

/// Who decides which devices the container may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DevicePolicy {
    /// The unit that we run in (`DevicePolicy=`, `DeviceAllow=`).
    Unit,
    /// A device filter of our own on `payload`.
    Filter,
}

pub(super) fn plan(config: &ContainerConfig, host: &HostFacts) -> Result<CgroupPlan, Error> {
    let mut plan = place(config, host)?;
    plan.settings = super::resources::plan(config, host, &plan)?;
    Ok(plan)
}

fn place(config: &ContainerConfig, host: &HostFacts) -> Result<CgroupPlan, Error> {
    let Some(facts) = &host.cgroup else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("cannot place container {}: no cgroup v2 file system is mounted", config.name),
        )
        .hint("mount one with `mount -t cgroup2 none /sys/fs/cgroup`, or on /sys/fs/cgroup/unified"));
    };
    if let Some(unit) = &facts.delegated {
        // A service says what its devices are (NixOS: `allowedDevices`). A scope is one that was asked for a shell's
        // container, and says nothing.
        let payload = match config.cgroup {
            CgroupParent::Auto => "payload".to_owned(),
            CgroupParent::Beside => format!("payload-{}", config.name),
        };
        let service = unit.extension().is_some_and(|kind| kind == "service");
        return Ok(CgroupPlan {
            payload: unit.join(payload),
            supervisor: Some(unit.join("supervisor")),
            unit: unit.clone(),
            make_unit: false,
            devices: if service { DevicePolicy::Unit } else { DevicePolicy::Filter },
            settings: Vec::new(),
        });
    }
    let unit = facts.own.join("nixrun").join(&config.name);
    Ok(CgroupPlan {
        // Nothing else is in it, so it needs no part of its own for the container.
        payload: unit.clone(),
        supervisor: None,
        unit,
        make_unit: true,
        devices: DevicePolicy::Filter,
        settings: Vec::new(),
    })
}
