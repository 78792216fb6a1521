//! What a container's processes are held to beyond namespaces: capabilities, the system call filter, personality.

use serde::{Deserialize, Serialize};

use super::{execution, nested};
use crate::caps::CapSet;
use crate::config::{ContainerConfig, Personality, SystemCallRules};
use crate::error::{Error, ErrorKind};
use crate::host::HostFacts;
use crate::seccomp::{Policy, SeccompError};

/// What binds PID 1 and every command of `exec` alike, beyond the capabilities that they have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Confinement {
    /// Capabilities that survive exec of a program without file capabilities, some of those that PID 1 has.
    pub ambient: CapSet,
    /// Whether exec can no longer give privileges.
    pub no_new_privileges: bool,
    /// Changes of the system call filter, all by known names.
    pub system_calls: SystemCallRules,
    /// Whether fsync(2) and its kind do nothing.
    pub suppress_sync: bool,
    /// What uname(2) says the machine is.
    pub personality: Option<Personality>,
    /// `oom_score_adj`.
    pub oom_score_adjust: Option<i32>,
    /// The CPUs that they may use, in ascending order.
    pub cpu_affinity: Option<Vec<u32>>,
}

impl Confinement {
    /// The system call filter of a container with these capabilities.
    ///
    /// # Errors
    /// [`SeccompError::Unknown`], which cannot be for one that a plan has.
    pub fn policy(&self, capabilities: CapSet) -> Result<Policy, SeccompError> {
        let mut policy = Policy::nspawn(capabilities);
        for name in &self.system_calls.allow {
            policy.allow(name)?;
        }
        for name in &self.system_calls.deny {
            policy.deny(name)?;
        }
        if self.suppress_sync {
            policy.suppress_sync();
        }
        Ok(policy)
    }
}

impl Personality {
    /// The kernel's number for it (linux/personality.h).
    pub(crate) fn domain(self) -> u64 {
        match self {
            Personality::Native => 0,
            Personality::Compat => 8,
        }
    }
}

pub(super) fn plan(
    config: &ContainerConfig,
    host: &HostFacts,
    capabilities: CapSet,
    warnings: &mut Vec<String>,
) -> Result<Confinement, Error> {
    let asked = &config.security;
    let missing = asked.ambient_capabilities.difference(capabilities);
    if !missing.is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "container {} cannot have {missing} as ambient capabilities: it does not have them at all",
                config.name
            ),
        )
        .hint("add them to its capabilities, too; what nixrun itself does not have it cannot give"));
    }
    check_personality(config)?;
    let mut system_calls = asked.system_calls.clone();
    if asked.nested {
        nested::allow(&mut system_calls);
    }
    let confinement = Confinement {
        ambient: asked.ambient_capabilities,
        no_new_privileges: asked.no_new_privileges,
        system_calls,
        suppress_sync: asked.suppress_sync,
        personality: asked.personality,
        oom_score_adjust: execution::oom_score(config, host, warnings)?,
        cpu_affinity: execution::affinity(config, host)?,
    };
    confinement.policy(capabilities).map_err(|error| Error::new(ErrorKind::Config, error.to_string()))?;
    Ok(confinement)
}

/// Only 64-bit machines have another one in them. Whether this kernel runs its programs is for the kernel to say, when
/// the first is executed.
fn check_personality(config: &ContainerConfig) -> Result<(), Error> {
    let wide = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
    if config.security.personality != Some(Personality::Compat) || wide {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "container {} cannot see a 32-bit machine: this one is no 64-bit machine that can be one",
            config.name
        ),
    ))
}
